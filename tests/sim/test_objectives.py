"""What a planner is told to want of PushT's block."""

import numpy as np
import pytest

from sim.geometry import GOAL_POSE, T_CORNERS, transform
from sim.objectives import Progress, corner_distance
from vla_policy.interfaces import ENVIRONMENT_STATE


def features(pose: np.ndarray) -> np.ndarray:
    return np.array([pose[0], pose[1], np.cos(pose[2]), np.sin(pose[2])])


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
    candidates = {ENVIRONMENT_STATE: np.stack([np.tile(features(pose), (4, 1)) for pose in (GOAL_POSE, other)])}
    assert Progress()(candidates).argmax() == 0
    assert Progress(tuple(other))(candidates).argmax() == 1
    assert Progress()(candidates)[0] == pytest.approx(0, abs=1e-12)
