"""A watch looks on while an episode is played, and may halt the arm."""

from collections.abc import Sequence

import numpy as np
import pytest
from helpers.point_env import PointEnv, Scripted

from sim import Disturbance, make_env
from sim.geometry import GOAL_POSE
from vla_policy.evaluation.success.aftermath import aftermath_summary, watched_summary
from vla_policy.evaluation.surprise.traces import StopAfterEvent
from vla_policy.interfaces import STATE, ActionChunk, Observation
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.rollouts.events import EventLog
from vla_policy.rollouts.rollout import rollout


class HaltAt:
    """Halts the arm at one observation and remembers what it was shown."""

    cameras: Sequence[str] = (STATE,)

    def __init__(self, at: int = 10**9) -> None:
        self.at = at

    def reset(self) -> None:
        self.seen: list[tuple[float, np.ndarray | None, ActionChunk | None]] = []

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        self.seen.append((observation.t, command, chunk))
        return len(self.seen) - 1 == self.at

    def record(self) -> dict[str, np.ndarray]:
        scores = np.array([float(k == self.at) for k in range(len(self.seen))])
        return {"surprise": scores, "threshold": np.array(0.5)}


def test_a_watch_sees_every_observation_with_the_command_that_led_to_it() -> None:
    watch = HaltAt()
    (result,) = rollout(Scripted(), PointEnv, [50000], num_workers=0, watch_factory=lambda: watch)
    assert len(watch.seen) == result.steps + 1
    assert watch.seen[0][1] is None
    assert watch.seen[0][2] is None
    np.testing.assert_array_equal([command for _, command, _ in watch.seen[1:]], result.actions)
    assert np.allclose(np.diff([t for t, _, _ in watch.seen]), 0.1)
    assert all(chunk is not None for _, _, chunk in watch.seen[1:])
    assert result.watched["surprise"].shape == (result.steps + 1,)


def test_once_halted_the_arm_stays_where_it_was_and_the_policy_is_not_asked_again() -> None:
    free, halted = (
        rollout(Scripted(), PointEnv, [50000], num_workers=0, watch_factory=lambda at=at: HaltAt(at))[0]
        for at in (10**9, 3)
    )
    np.testing.assert_array_equal(halted.actions[:3], free.actions[:3])
    assert np.ptp(halted.actions[3:], axis=0).max() == 0
    assert halted.held_steps == halted.steps - 3
    assert not halted.success
    assert watched_summary([free, halted], "m") == {"monitor": "m", "halted_episodes": 1}


def test_a_halt_ends_with_its_episode() -> None:
    results = rollout(Scripted(), PointEnv, [50000, 50001], num_envs=1, num_workers=0, watch_factory=lambda: HaltAt(3))
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
        lambda: StopAfterEvent(make_env("pybullet", (), None, disturbance=disturbance), after),
        [50000],
        num_workers=0,
    )
    assert result.steps == 3 + after  # observation 4 is the first that differs
    assert result.aftermath is not None
    assert result.aftermath.event_step == 3
