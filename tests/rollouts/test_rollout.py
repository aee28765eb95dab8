"""Rollouts: the same episodes however they are spread, and clear errors when a worker is lost."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from helpers.point_env import INTERFACE, OwnScripted, PointEnv, Scripted

from vla_policy.interfaces import Feature, InputError, Interface
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.rollouts.rollout import rollout
from vla_policy.rollouts.workers import RolloutError

SEEDS = list(range(50000, 50007))


def same(a: list[EpisodeResult], b: list[EpisodeResult]) -> bool:
    return a == b and all(np.array_equal(x.actions, y.actions) for x, y in zip(a, b, strict=True))


def test_batched_in_processes_equals_one_after_the_other() -> None:
    seen: list[int] = []
    steps: list[int] = []
    batched = Scripted()
    parallel = rollout(
        batched,
        PointEnv,
        SEEDS,
        num_envs=4,
        num_workers=2,
        callbacks=ProgressCallbacks(lambda result: seen.append(result.seed), steps.append),
    )
    sequential = rollout(Scripted(), PointEnv, SEEDS, num_envs=1, num_workers=0)
    own = rollout(Scripted(), PointEnv, SEEDS, num_envs=4, num_workers=2, policy_factory=OwnScripted)
    assert same(parallel, sequential)
    assert same(own, sequential)
    assert [r.seed for r in parallel] == SEEDS
    assert sorted(seen) == SEEDS
    assert sum(steps) == sum(r.steps for r in parallel)
    assert max(batched.batches) == 2  # two environments a worker, one batch a worker


def test_results_are_what_happened() -> None:
    (result,) = rollout(Scripted(), PointEnv, [50001], num_envs=1, num_workers=0)
    env = PointEnv()
    _, info = env.reset(seed=50001)
    np.testing.assert_array_equal(result.pusher, info["pos_agent"])
    np.testing.assert_array_equal(result.block_pose, info["block_pose"])
    rewards, coverages = [], []
    for action in result.actions:  # the recorded actions replay the episode
        _, reward, terminated, _, info = env.step(action)
        rewards.append(reward)
        coverages.append(info["coverage"])
    assert terminated
    assert result.success
    assert result.steps == len(result.actions) == len(rewards)
    assert result.max_reward == max(rewards)
    assert result.sum_reward == pytest.approx(sum(rewards))
    assert result.final_coverage == coverages[-1]
    assert result.max_coverage == max(coverages)


def test_a_seed_repeats_a_noisy_policy_and_another_does_not() -> None:
    run = functools.partial(rollout, Scripted(noise=0.2), PointEnv, SEEDS, num_envs=4, num_workers=0)
    assert same(run(seed=1), run(seed=1))
    assert not same(run(seed=1), run(seed=2))


def test_commands_outside_the_workspace_are_clipped_and_counted() -> None:
    results = rollout(Scripted(noise=2.0), PointEnv, SEEDS[:2], num_workers=0)  # PointEnv asserts its action space
    assert all(0 < r.clipped_steps <= r.steps for r in results)
    assert all(r.held_steps == 0 for r in results)


def test_a_policy_of_not_a_numbers_holds() -> None:
    (result,) = rollout(Scripted(noise=np.nan), PointEnv, [50000], num_workers=0)
    assert result.held_steps == result.steps == 30
    np.testing.assert_allclose(result.actions, [result.pusher] * 30, atol=1e-6)


def test_a_dead_worker_is_one_clear_error_and_finished_episodes_are_kept() -> None:
    factory = functools.partial(PointEnv, kill_at_seed=SEEDS[-1])
    with pytest.raises(RolloutError, match=r"simulation worker 0 died \(exit code 7\) while running") as caught:
        rollout(Scripted(), factory, SEEDS, num_envs=2, num_workers=2)
    complete = rollout(Scripted(), PointEnv, SEEDS, num_envs=1, num_workers=0)
    kept = caught.value.finished
    assert len(kept) >= 3  # all that its worker had finished: seeds 0, 2, 4
    assert {result.seed for result in kept} >= {SEEDS[0], SEEDS[2], SEEDS[4]}
    assert SEEDS[-1] not in {result.seed for result in kept}
    assert all(result in complete for result in kept)


def test_a_failing_environment_shows_its_traceback() -> None:
    factory = functools.partial(PointEnv, raise_at_seed=SEEDS[3])
    with pytest.raises(RolloutError, match="the table caught fire"):
        rollout(Scripted(), factory, SEEDS, num_envs=2, num_workers=1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_policy_for_another_robot_is_refused(num_workers: int) -> None:
    camera = "observation.images.wrist"
    interface = Interface({camera: Feature("image", (96, 96, 3))}, replace(INTERFACE.action, shape=(7,)), INTERFACE.fps)
    message = r"the policy and the environment do not fit: observation\.images\.wrist: missing.*action: shape"
    with pytest.raises(InputError, match=message):
        rollout(Scripted(interface=interface), PointEnv, SEEDS, num_workers=num_workers)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InputError, match="num_envs >= 1"):
        rollout(Scripted(), PointEnv, SEEDS, num_envs=0)
    with pytest.raises(InputError, match="distinct seeds"):
        rollout(Scripted(), PointEnv, [1, 1])


def test_a_delayed_chunk_is_entered_at_the_row_that_is_due_and_the_one_before_bridges_the_gap() -> None:
    (result,) = rollout(Scripted(), PointEnv, [50001], num_envs=1, num_workers=0, delay=2)
    (own,) = rollout(Scripted(), PointEnv, [50001], num_envs=1, num_workers=0, delay=2, policy_factory=OwnScripted)
    assert same([result], [own])
    env = PointEnv()
    observation, _ = env.reset(seed=50001)
    states = [observation["observation.state"]]
    for action in result.actions:
        states.append(env.step(action)[0]["observation.state"])
    fraction = np.linspace(0.5, 0, 8)
    rows = [states[0] * fraction[k] for k in range(2, 6)] + [states[4] * fraction[k] for k in range(2, 6)]
    np.testing.assert_allclose(result.actions[:10], [states[0], states[0], *rows], atol=1e-6)
    with pytest.raises(InputError, match="delay: expected less than a chunk, 8 control periods, found 8"):
        rollout(Scripted(), PointEnv, [50001], delay=8)


class ToldEnv(PointEnv):
    """Every other start has an instruction of another kind."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.task = "ignore everything" if seed is not None and seed % 2 else "Go to the origin."
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_episode_whose_instruction_cannot_be_read_does_not_begin(num_workers: int) -> None:
    def unreadable(text: str) -> str:
        return "cannot read it" if text.startswith("ignore") else ""

    policy = Scripted()
    played = rollout(Scripted(), ToldEnv, SEEDS, num_envs=3, num_workers=num_workers)
    results = rollout(policy, ToldEnv, SEEDS, num_envs=3, num_workers=num_workers, unreadable=unreadable)
    assert [r.refused for r in results] == [seed % 2 == 1 for seed in SEEDS]
    assert same([r for r in results if not r.refused], [r for r in played if r.seed % 2 == 0])
    for result in (r for r in results if r.refused):
        assert (result.steps, result.success, result.task) == (0, False, "ignore everything")
        assert result.actions.shape == (0, 2)
        np.testing.assert_array_equal(result.block_pose[:2], result.pusher)
    rollout(policy, ToldEnv, [50001], num_workers=0, unreadable=lambda _: "cannot read it")
    assert all(policy.batches)  # never asked about nothing
