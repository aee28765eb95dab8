"""Poses and coverage against closed forms and against gym-pusht."""

import numpy as np
import pytest

from sim import geometry
from sim.geometry import GOAL_POSE, PIXEL, coverage

UNIT = 30 * PIXEL  # the bar is 4 x 1 units, the stem 1 x 3
AREA = 7 * UNIT**2


def moved(along: float, across: float, angle: float = 0.0) -> np.ndarray:
    """The goal's pose moved in the block's own frame (metres) and turned."""
    offset = geometry.transform(np.array([[along, across]]), np.array([0, 0, GOAL_POSE[2]]))[0]
    return GOAL_POSE + np.array([*offset, angle])


def test_the_block_has_the_size_of_the_benchmark() -> None:
    assert geometry.T_SHAPE.area == pytest.approx(AREA)
    assert np.ptp(geometry.T_CORNERS, axis=0) == pytest.approx([0.090, 0.090])
    assert geometry.BAR.area == pytest.approx(0.090 * 0.0225)
    assert geometry.STEM.area == pytest.approx(0.0225 * 0.0675)


def test_coverage_of_the_goal_itself_and_of_nothing() -> None:
    assert coverage(GOAL_POSE) == pytest.approx(1.0)
    assert coverage(GOAL_POSE + np.array([0, 0, 2 * np.pi])) == pytest.approx(1.0)
    assert coverage(moved(0.0, 5 * UNIT)) == 0.0


@pytest.mark.parametrize("d", [0.001, 0.01, 0.02])
def test_coverage_of_a_shifted_block(d: float) -> None:
    assert coverage(moved(0, d)) == pytest.approx(1 - (d * UNIT + d * 3 * UNIT) / AREA)  # bar and stem lose a strip
    assert coverage(moved(d, 0)) == pytest.approx(1 - 4 * UNIT * d / AREA)  # the bar's edge; the stem slides in itself
    assert coverage(moved(0, d)) == pytest.approx(coverage(moved(0, -d)))


def test_coverage_of_a_block_turned_round() -> None:
    """About the middle of its length: bar and stem cross in two squares, the stems' middle halves lie on each other."""
    assert coverage(moved(-4 * UNIT, 0, np.pi)) == pytest.approx(4 * UNIT**2 / AREA)


def test_reward_is_coverage_up_to_success() -> None:
    assert geometry.reward(0.0) == 0.0
    assert geometry.reward(0.475) == pytest.approx(0.5)
    assert geometry.reward(0.95) == geometry.reward(1.0) == 1.0


def test_poses_survive_pixels_and_features() -> None:
    poses = np.random.default_rng(0).uniform([0.3, -0.15, -np.pi], [0.6, 0.15, np.pi], (200, 3))
    np.testing.assert_allclose(geometry.pose_from_pixels(geometry.pose_to_pixels(poses)), poses, atol=1e-12)
    np.testing.assert_allclose(geometry.pose_from_features(geometry.pose_features(poses)), poses, atol=1e-12)
    np.testing.assert_allclose(geometry.pose_from_pixels(np.array([256, 256, np.pi / 4])), GOAL_POSE, atol=1e-12)
    assert geometry.position_from_pixels(np.array([0, 0])).tolist() == pytest.approx([0.642, 0.192])


def test_coverage_agrees_with_gym_pusht() -> None:
    pytest.importorskip("gym_pusht")
    from sim import GymPushTEnv

    env = GymPushTEnv()
    generator = np.random.default_rng(0)
    for spread in (0.01, 0.05) * 10:
        pose = GOAL_POSE + generator.normal(size=3) * [spread, spread, 10 * spread]
        _, info = env.reset(seed=0, options={"block_pose": pose})
        np.testing.assert_allclose(info["block_pose"][:2], pose[:2], atol=1e-9)
        assert abs(geometry.wrap_angle(info["block_pose"][2] - pose[2])) < 1e-9
        assert info["coverage"] == pytest.approx(coverage(pose), abs=1e-6)
    env.close()
