"""A watch looks on while an episode is played, and may halt the arm."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pytest
from helpers.point_env import PointEnv, Scripted

from sim import Disturbance, make_disturbed_env
from sim.geometry import GOAL_POSE
from vla_policy.evaluation.success.aftermath import aftermath_summary, watched_summary
from vla_policy.evaluation.surprise.environments import StopAfterEvent
from vla_policy.interfaces import STATE
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.rollouts.events import EventLog
from vla_policy.rollouts.results import Start
from vla_policy.rollouts.rollout import rollout
from vla_policy.rollouts.watch import WatchedStep


class HaltAt:
    """Halts every arm at one observation and remembers what it was shown."""

    cameras: Sequence[str] = (STATE,)

    def __init__(self, at: int | None = None) -> None:
        self.at, self.may_halt = at, at is not None
        self.seen: dict[Start, list[WatchedStep]] = defaultdict(list)
        self.updates: list[int] = []  # observations in each

    def update(self, seen: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        self.updates.append(sum(map(len, seen.values())))
        for start, news in seen.items():
            self.seen[start] += news
        return [start for start in seen if self.at is not None and len(self.seen[start]) > self.at]

    def record(self, start: Start) -> dict[str, np.ndarray]:
        scores = np.array([float(k == self.at) for k in range(len(self.seen[start]))])
        return {"surprise": scores, "threshold": np.array(0.5)}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_watcher_sees_every_observation_with_the_command_that_led_to_it(num_workers: int) -> None:
    watcher = HaltAt()
    results = rollout(Scripted(), PointEnv, range(50000, 50004), num_workers=num_workers, watcher=watcher)
    for result in results:
        seen = watcher.seen[Start(result.seed)]
        assert len(seen) == result.steps + 1
        assert seen[0].command is None
        assert seen[0].chunk is None
        assert list(seen[0].observation.values) == [STATE]
        np.testing.assert_array_equal([new.command for new in seen[1:]], result.actions)
        assert np.allclose(np.diff([new.observation.t for new in seen]), 0.1)
        begun = [k for k, new in enumerate(seen) if new.chunk is not None]
        assert begun == list(range(1, result.steps + 1, 4))  # with the command that was its first
        assert result.watched["surprise"].shape == (result.steps + 1,)
    assert max(watcher.updates) == 4 * 4 // max(num_workers, 1)  # all episodes of a process, a chunk's steps at once


@pytest.mark.parametrize("num_workers", [0, 2])
def test_once_halted_the_arm_stays_where_it_was_and_the_policy_is_not_asked_again(num_workers: int) -> None:
    policy, seeds = Scripted(), [50000, 50001, 50002]
    free = rollout(Scripted(), PointEnv, seeds, num_workers=num_workers)
    halted = rollout(policy, PointEnv, seeds, num_workers=num_workers, watcher=HaltAt(3))
    for before, after in zip(free, halted, strict=True):
        np.testing.assert_array_equal(after.actions[:3], before.actions[:3])
        assert np.ptp(after.actions[3:], axis=0).max() == 0
        assert after.held_steps == after.steps - 3
        assert not after.success
    assert sum(policy.batches) == 3  # once an episode
    unhalted = rollout(Scripted(), PointEnv, [50000], num_workers=0, watcher=HaltAt())
    assert watched_summary([*unhalted, halted[0]], "m") == {"monitor": "m", "halted_episodes": 1}


def test_an_arm_that_is_halted_at_once_never_moves() -> None:
    policy = Scripted()
    results = rollout(policy, PointEnv, [50000, 50001], num_envs=1, num_workers=0, watcher=HaltAt(0))
    assert [r.held_steps for r in results] == [r.steps for r in results] == [30, 30]
    assert policy.batches == []


def test_a_halt_ends_with_its_episode() -> None:
    results = rollout(Scripted(), PointEnv, [50000, 50001], num_envs=1, num_workers=0, watcher=HaltAt(3))
    assert [r.held_steps for r in results] == [r.steps - 3 for r in results]


def test_what_came_after_an_event_is_counted() -> None:
    def info(x: float, event_step: int = 2) -> dict:
        return {"block_pose": np.add(GOAL_POSE, [x, 0, 0]), "goal_pose": GOAL_POSE, "event_step": event_step}

    log = EventLog(info(0.05))
    places = [0.06, 0.05, 0.06, 0.0605, 0.08, 0.09]  # away before the event; the event; hardly, away; held
    for step, place in enumerate(places):
        log.step(step, info(place), held=step == 5, halted=step == 5)
    found = log.aftermath(6)
    assert found is not None
    assert (found.event_step, found.acted, found.wrong_pushes, found.stopped_step) == (2, 3, 1, 5)
    assert EventLog(info(0.05, event_step=9)).aftermath(6) is None
    summary = aftermath_summary([found])
    assert (summary["stopped_after_event"], summary["steps_to_stop_p50"]) == (1, 3.0)


@pytest.mark.parametrize("after", [1, 4])
def test_an_episode_ends_so_many_observations_after_its_event(after: int) -> None:
    disturbance = Disturbance("dropped_actions", step=3)
    (result,) = rollout(
        HoldPolicy(),
        lambda: StopAfterEvent(make_disturbed_env("pybullet", (), None, disturbance), after),
        [50000],
        num_workers=0,
    )
    assert result.steps == 3 + after  # observation 4 is the first that differs
    assert result.aftermath is not None
    assert result.aftermath.event_step == 3
