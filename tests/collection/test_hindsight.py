"""Play as demonstrations of the goals that it reached."""

from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of
from hydra import compose, initialize_config_module

from sim import PushTConfig
from sim.geometry import pose_features, relative_pose
from sim.gym_pusht import make_env
from sim.interface import pusht_interface
from vla_policy.cli.dataset import main
from vla_policy.collection.hindsight import stretches
from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, GOAL_STATE, STATE
from vla_policy.rollouts.scenes import load_scene
from vla_policy.utils.options import store_scene


def poses(frames: np.ndarray) -> np.ndarray:
    """Of the moving block."""
    time = np.minimum(frames, 30)
    return np.stack([0.4 + 0.002 * time, 0.1 - 0.001 * time, 0.03 * time], axis=-1)


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """An episode in which the block moves for three seconds and rests for three, and one in which it rests."""
    moving = poses(np.arange(60))
    with LeRobotWriter(tmp_path / "play", pusht_interface({}), executed=True) as writer:
        for block in (moving, np.tile([0.4, 0.0, 1.0], (40, 1))):
            state = np.random.default_rng(0).uniform(0.3, 0.5, (len(block), 2)).astype(np.float32)
            columns = {STATE: state, ENVIRONMENT_STATE: pose_features(block).astype(np.float32), ACTION: state}
            writer.add_episode({**columns, "executed_action": state + 0.01}, {}, "play")
    return tmp_path / "play"


def test_every_stretch_ends_at_its_goal_and_shows_what_was_done(play: Path, tmp_path: Path) -> None:
    main(["hindsight", str(play), str(tmp_path / "out"), "seconds=2", "every=1"])
    made, source = LeRobotDataset(tmp_path / "out"), LeRobotDataset(play).episode(0)
    assert made.lengths.tolist() == [20, 20, 20, 10]  # ending at 4 s, 3 s and so on; from 3 s on it is still
    for index, end in enumerate((40, 30, 20, 10)):
        episode, begin = made.episode(index), max(0, end - 20)
        block = poses(np.array([begin, end - 1]))
        np.testing.assert_allclose(episode.columns[GOAL_STATE][-1], [0, 0, 1, 0], atol=1e-6)
        expected = pose_features(relative_pose(block[0], block[1]))
        np.testing.assert_allclose(episode.columns[GOAL_STATE][0], expected, atol=1e-5)
        np.testing.assert_array_equal(episode.columns[ACTION], source.executed[begin:end])


def test_stretches_as_far_apart_as_they_are_long_share_no_frame() -> None:
    moving = pose_features(poses(np.arange(30))).astype(np.float32)
    frames = [frame for stretch in stretches(moving, 10, 10) for frame in range(stretch.start, stretch.stop)]
    assert sorted(frames) == list(range(30))


def test_a_block_that_stays_teaches_nothing(play: Path) -> None:
    still = LeRobotDataset(play).episode(1).columns[ENVIRONMENT_STATE]
    assert list(stretches(still, 20, 10)) == []


def test_mistakes_are_one_line(play: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "expected every of a frame up to seconds 1, found 2" in error_of(
        main, "hindsight", str(play), out, "seconds=1"
    )
    main(["hindsight", str(play), out])
    assert "expected a new folder, found a dataset of" in error_of(main, "hindsight", str(play), out)


def test_the_scene_shows_a_goal_at_any_pose_as_the_data_do() -> None:
    store_scene()
    with initialize_config_module("vla_policy.conf", version_base="1.3"):
        values = compose(overrides=["+scene=pusht_goal", "scene.goals.green.pose=[0.5,0.1,0.3]"]).scene
    config = PushTConfig.from_mapping(dict(values))
    env = make_env("pybullet", [], config)
    seen, info = env.reset(seed=3)
    np.testing.assert_allclose(info["goal_pose"], [0.5, 0.1, 0.3])
    expected = pose_features(relative_pose(info["block_pose"], np.array([0.5, 0.1, 0.3])))
    np.testing.assert_allclose(seen[GOAL_STATE], expected, atol=1e-6)
    env.close()
    assert load_scene("pusht_goal").goals["green"].pose == pytest.approx(PushTConfig().goal_pose, abs=1e-3)
