"""What a planner is told to want."""

import numpy as np
import pytest

from sim.geometry import GOAL_POSE, PUSHER_RADIUS, T_CORNERS, transform
from sim.objectives import FORBIDDEN, corner_distance, make_objective
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError


def features(pose: np.ndarray) -> np.ndarray:
    return np.array([pose[0], pose[1], np.cos(pose[2]), np.sin(pose[2])])


def future(poses: list[np.ndarray], steps: int = 4) -> dict[str, np.ndarray]:
    """Candidates whose block stands still at these poses, and whose pusher stands in the middle."""
    count = len(poses)
    return {
        ENVIRONMENT_STATE: np.stack([np.tile(features(pose), (steps, 1)) for pose in poses]),
        STATE: np.full((count, steps, 2), 0.4),
        ACTION: np.full((count, steps, 2), 0.4),
    }


def test_the_corner_distance_is_that_of_the_corners() -> None:
    assert corner_distance(features(GOAL_POSE), GOAL_POSE) == pytest.approx(0, abs=1e-12)
    moved = GOAL_POSE + np.array([0.03, 0.04, 0])
    assert corner_distance(features(moved), GOAL_POSE) == pytest.approx(0.05)
    turned = GOAL_POSE + np.array([0, 0, 0.5])
    expected = np.linalg.norm(transform(T_CORNERS, turned) - transform(T_CORNERS, GOAL_POSE), axis=1).mean()
    assert corner_distance(features(turned), GOAL_POSE) == pytest.approx(expected)
    assert corner_distance(1.3 * features(turned) * np.array([1 / 1.3, 1 / 1.3, 1, 1]), GOAL_POSE) == pytest.approx(
        expected
    )


def test_progress_prefers_the_block_nearer_to_whichever_goal() -> None:
    other = np.array([0.5, 0.1, 0.2])
    candidates = future([GOAL_POSE, other])
    assert make_objective("progress")(candidates).argmax() == 0
    assert make_objective("progress", goal=other.tolist())(candidates).argmax() == 1


def test_no_progress_is_worth_a_step_in_the_disc() -> None:
    candidates = future([GOAL_POSE, GOAL_POSE + np.array([0.3, 0.3, 0])])
    candidates[STATE][0, 2] = [0.6, 0.1 + 0.02 + 0.9 * PUSHER_RADIUS]
    candidates[STATE][1] = [0.6, 0.1 + 0.02 + 1.1 * PUSHER_RADIUS]
    scores = make_objective("keep_out", disc=[0.6, 0.1, 0.02])(candidates)
    assert scores.argmax() == 1
    assert scores[0] == pytest.approx(-FORBIDDEN)


def test_gentle_prefers_the_smoother_of_two_that_arrive() -> None:
    candidates = future([GOAL_POSE, GOAL_POSE], steps=5)
    candidates[ACTION][0, :, 0] = [0, 0.02, 0, 0.02, 0]
    candidates[ACTION][1, :, 0] = [0, 0.005, 0.01, 0.015, 0.02]
    assert make_objective("gentle")(candidates).argmax() == 1
    assert make_objective("gentle")(candidates)[1] == pytest.approx(0, abs=1e-12)


def test_the_control_knows_nothing() -> None:
    score, candidates = make_objective("random"), future([GOAL_POSE, GOAL_POSE + np.array([0.2, 0, 0])])
    wins = np.mean([score(candidates).argmax() for _ in range(400)])
    assert 0.4 < wins < 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "speed"}, r"planner\.objective: expected one of .*found 'speed'"),
        ({"name": "keep_out"}, r"planner\.disc: expected x, y and radius with"),
        ({"name": "progress", "disc": [0, 0]}, r"planner\.disc: expected three numbers, found \[0, 0\]"),
        ({"name": "progress", "goal": [0.4, 0.1]}, r"planner\.goal: expected three numbers, found \[0\.4, 0\.1\]"),
    ],
)
def test_mistakes_are_named(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_objective(**words)
