"""Evaluations in the real environments: exact repeats, exact replays, baselines."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

from sim import PushTConfig, make_env
from sim.interface import pusht_interface
from vla_policy.evaluation.success.films import replay
from vla_policy.interfaces import IMAGES, STATE, InputError, Interface
from vla_policy.rollouts.baselines import ExpertPolicy, HoldPolicy, baseline_factory
from vla_policy.rollouts.rollout import rollout

SEEDS = [50000, 50001, 50002]


def factory(env: str, cameras: tuple[str, ...] = (), steps: int = 25) -> functools.partial:
    return functools.partial(make_env, env, cameras, PushTConfig(max_episode_steps=steps))


@pytest.mark.parametrize("env", ["pybullet", "gym_pusht"])
def test_the_expert_gains_on_holding_and_films_are_exact(env: str) -> None:
    play = functools.partial(rollout, env_factory=factory(env), seeds=SEEDS, num_envs=3)
    expert = play(ExpertPolicy(0), num_workers=2, policy_factory=ExpertPolicy)
    hold = play(HoldPolicy(), num_workers=0)
    assert [(r.pusher, r.block_pose) for r in expert] == [(r.pusher, r.block_pose) for r in hold]  # the same starts
    assert sum(r.max_coverage for r in expert) > sum(r.max_coverage for r in hold)
    for result in (expert[0], hold[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it would be another episode
            frames = list(replay(factory(env), result))
        assert len(frames) == result.steps + 1
        assert max(frame.coverage for frame in frames[1:]) == result.max_coverage


def test_a_run_repeats_bit_for_bit_however_the_workers_are_timed() -> None:
    play = functools.partial(rollout, ExpertPolicy(0), factory("pybullet"), SEEDS, policy_factory=ExpertPolicy)
    first, second = play(num_envs=3, num_workers=2), play(num_envs=1, num_workers=0)
    assert first == second
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)


def test_a_policy_with_a_camera_sees_what_the_camera_saw() -> None:
    key = IMAGES + "top"
    seen = []

    class Looks(HoldPolicy):
        interface: Interface = pusht_interface({"top": 96}).select([STATE, key])

        def __init__(self) -> None:
            pass

        def predict(self, histories, generator):
            seen.extend(history[-1].values[key] for history in histories)
            return super().predict(histories, generator)

    rollout(Looks(), factory("pybullet", ("top",), steps=2), SEEDS[:1], num_workers=1)
    env = factory("pybullet", ("top",))()
    observation, _ = env.reset(seed=SEEDS[0])
    np.testing.assert_array_equal(seen[0], observation[key])


def test_unknown_baselines_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected one of \['expert', 'hold'\], found 'random'"):
        baseline_factory("random")
