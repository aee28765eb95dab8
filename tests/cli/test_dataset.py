"""vla-dataset as a user calls it."""

import json
import os
import re
import subprocess
import sys

import av
import numpy as np
import pyarrow as pa
import pytest
from helpers.bimanual import HEAD, WRIST
from helpers.commands import error_of
from helpers.plain_dataset import write_plain_dataset
from PIL import Image

from sim import geometry
from vla_policy.cli.dataset import main
from vla_policy.data import LeRobotDataset
from vla_policy.interfaces import IMAGES


@pytest.fixture
def pusht(tmp_path):
    """A short episode in which the pusher moves beside the block, as npz and imported."""
    t = np.arange(15, dtype=np.float32)
    state = np.stack([100 + 4 * t, 120 + 0 * t, 300 + 0 * t, 300 + 0 * t, 0.5 + 0 * t], axis=1)
    arrays = {"state": state, "action": state[:, :2] + np.float32([4, 0]), "episode_ends": np.array([15])}
    np.savez(tmp_path / "human.npz", image=np.full((15, 96, 96, 3), 255, np.uint8), **arrays)
    main(["import-pusht", str(tmp_path / "human.npz"), str(tmp_path / "pusht"), "images=false"])
    return tmp_path / "pusht"


def test_import(pusht):
    dataset = LeRobotDataset(pusht)
    assert dataset.lengths.tolist() == [15]
    assert dataset.tasks == ["Push the T-shaped block onto the T-shaped target."]


def test_info(bimanual_dataset, capsys):
    main(["info", str(bimanual_dataset)])
    text = capsys.readouterr().out
    assert "6 episodes of 60 to 65 frames" in text
    assert "left_joint_3 [rad]" in text
    assert "nothing looks wrong" in text
    main(["info", str(bimanual_dataset), "json=true", "videos=false"])
    about = json.loads(capsys.readouterr().out)
    assert about["frames"] == 375


def test_info_in_a_pipe_cuts_nothing_and_folds_equal_warnings(tmp_path):
    """200 episodes with the same fault, and a feature with a name longer than a terminal is wide."""
    long = "observation." + "very_long_name_" * 8
    features = {long: {"dtype": "float32", "shape": [1], "names": None}}

    def columns(episode, length):
        return {long: np.arange(length) - 123.4, "observation.state": pa.array([[0.0, 0.0]] * length)}

    root = write_plain_dataset(tmp_path / "d", (3,) * 200, features=features, columns=columns)
    command = [sys.executable, "-m", "vla_policy.cli.dataset", "info", str(root), "videos=false"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"})
    assert f"{long} (1)" in done.stdout
    assert re.search(r"0 +-123\.4 +-121\.4 +-122\.4 +0\.8165", done.stdout)
    assert "\u2026" not in done.stdout
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    zero = "warning: episode 0, observation.state: all zero (and 199 more like it, in episodes 0 to 199)"
    assert zero in warnings
    assert len(warnings) < 10
    assert "push (600 frames)" in done.stdout


def test_a_goal_elsewhere_is_reported_and_can_be_given(tmp_path, capsys):
    """The block ends where its goal was: at (150, 380) px and 1 rad, none of it on gym-pusht's own goal."""
    state = np.tile(np.float32([100, 120, 150, 380, 1.0]), (15, 1))
    np.savez(tmp_path / "human.npz", state=state, action=state[:, :2], episode_ends=np.array([7, 15]))
    main(["import-pusht", str(tmp_path / "human.npz"), str(tmp_path / "usual"), "images=false"])
    main(["info", str(tmp_path / "usual")])
    assert "does not cover the goal at the end" in capsys.readouterr().out
    given = "goal_pose=150,380,1.0"
    main(["import-pusht", str(tmp_path / "human.npz"), str(tmp_path / "given"), "images=false", given])
    main(["info", str(tmp_path / "given")])
    assert "covers nothing" not in capsys.readouterr().out
    seen = LeRobotDataset(tmp_path / "given").episode(1).columns["observation.goal_state"]
    assert np.allclose(seen, [0, 0, 1, 0], atol=1e-6)


def test_view(bimanual_dataset, tmp_path):
    main(["view", str(bimanual_dataset), "2", f"out={tmp_path}/two.mp4"])
    with av.open(str(tmp_path / "two.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 62
    assert frames[0].shape[1] > frames[0].shape[0]
    main(["view", str(bimanual_dataset), "2", f"out={tmp_path}/two.png"])
    sheet = np.asarray(Image.open(tmp_path / "two.png"))
    red = (sheet[..., 0] > 150) & (sheet[..., 1] < 90)
    assert red.any()


def test_a_frame_is_saved_as_it_is(bimanual_dataset, tmp_path, capsys):
    main(["frame", str(bimanual_dataset), "2", "30", f"out={tmp_path}/frame"])
    told = capsys.readouterr().out.split()
    dataset = LeRobotDataset(bimanual_dataset)
    for key in (HEAD, WRIST):
        path = tmp_path / "frame" / f"{key.removeprefix(IMAGES)}.png"
        assert str(path) in told
        assert np.array_equal(np.asarray(Image.open(path)), dataset.frames(2, key)[30])


@pytest.mark.parametrize("env", ["pybullet", "gym_pusht"])
def test_replay(pusht, tmp_path, capsys, env):
    if env == "gym_pusht":
        pytest.importorskip("gym_pusht")
    capsys.readouterr()
    main(["replay", str(pusht), "0", f"env={env}", "json=true"])
    about = json.loads(capsys.readouterr().out[:].strip().split("\n", 0)[0])
    assert about["frames"] == 15
    assert about["position_error_mm"]["end"] < 1.0
    assert about["angle_error_deg"]["end"] < 1.0
    pose = geometry.pose_from_pixels(np.array([300.0, 300.0, 0.5]))
    assert about["coverage_end"]["recorded"] == pytest.approx(geometry.coverage(pose), abs=1e-4)


@pytest.mark.slow
def test_replay_film(pusht, tmp_path):
    main(["replay", str(pusht), "0", f"out={tmp_path}/replay.mp4"])
    with av.open(str(tmp_path / "replay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 15


def test_compact(bimanual_dataset, capsys):
    before = LeRobotDataset(bimanual_dataset).frames(3, HEAD)
    main(["compact", str(bimanual_dataset)])
    assert "25 files merged into 5" in capsys.readouterr().out
    assert np.array_equal(LeRobotDataset(bimanual_dataset).frames(3, HEAD), before)


def test_edits(bimanual_dataset, tmp_path, capsys):
    """Each command once, in place and as a new dataset."""

    def run(*words):
        main([str(word) for word in words])
        return capsys.readouterr().out.strip().splitlines()[-1]

    root, parts, merged = bimanual_dataset, tmp_path / "parts", tmp_path / "merged"
    assert run("delete", root, "1,4-5") == f"3 episodes, 185 frames in {root}"
    assert run("split", root, parts, "train=0.67", "val=0.33", "seed=1").startswith("1 episodes")
    assert run("merge", merged, parts / "train", parts / "val") == f"3 episodes, 185 frames in {merged}"
    assert run("split", root, tmp_path / "numbers", "a=0,2").startswith("2 episodes, 123 frames")
    run("retask", merged, "fold, then stop", "episodes=0-1")
    assert LeRobotDataset(merged).episode(1).task == "fold, then stop"
    run("retask", merged, "wave", "old=fold, then stop")
    assert LeRobotDataset(merged).episode(1).task == "wave"
    run("rename", merged, f"{HEAD}=observation.images.front", f"out={tmp_path / 'renamed'}")
    run("drop", tmp_path / "renamed", WRIST)
    assert LeRobotDataset(tmp_path / "renamed").interface.cameras == ["observation.images.front"]
    assert LeRobotDataset(merged).interface.cameras == [HEAD, WRIST]
    run("reencode", tmp_path / "renamed", "codec=av1")
    assert run("stats", tmp_path / "renamed", "out=null").endswith(f" in {tmp_path / 'renamed'}")
    old = write_plain_dataset(tmp_path / "old", (3, 4))
    assert run("convert", old, tmp_path / "new") == f"2 episodes, 7 frames in {tmp_path / 'new'}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["delete", "DATASET", "1-x"], "episodes: expected numbers and ranges such as 3,7,10-20, found '1-x'"),
        (["split", "DATASET", "out", "a=0.5", "b=3"], "split: expected shares alone, such as 0.8, or episodes alone"),
        (
            ["retask", "DATASET", "fold", "episodes="],
            "episodes: expected numbers and ranges such as 3,7,10-20, found ''",
        ),
        (["delete", "DATASET", "1", "out="], "out: expected a value, or null for none, found ''"),
        (["drop", "DATASET", WRIST, "out="], "out: expected a value, or null for none, found ''"),
        (["retask", "DATASET", "fold", "old="], "old: expected a value, or null for none, found ''"),
        (["rename", "DATASET", "observation.state"], "rename: expected OLD=NEW, once for a feature"),
        (["drop", "DATASET", "observation.depth"], "found 'observation.depth'"),
        (["merge", "out", "DATASET"], "merge: expected two or more different datasets"),
        (["convert", "DATASET", "out"], "expected a v2.1 dataset to convert, found v3.0"),
        (["info", "nowhere"], "nowhere: expected a LeRobotDataset"),
        (["view", "DATASET", "9"], "expected an episode from 0 to 5, found 9"),
        (["view", "DATASET", "0", "out=film.gif"], "expected a file name ending in .mp4 or .png"),
        (["view", "DATASET", "0", "camera=head"], "expected one of out=..., found 'camera=head'"),
        (["frame", "DATASET", "2", "62"], "expected a frame of episode 2 from 0 to 61, found 62"),
        (["info", "DATASET", "videos=perhaps"], "videos: expected true or false, found 'perhaps'"),
        (["compact", "DATASET", "video_mb=big"], "video_mb: expected a number, found 'big'"),
        (["replay", "DATASET", "0"], "observation.environment_state: missing"),
        (["import-pusht", "nothing.npz", "out", "goal_pose=1,2"], "goal_pose: expected 3 numbers"),
        (["import-pusht", "nothing.npz", "out"], "nothing.npz: expected the PushT demonstrations"),
    ],
)
def test_mistakes_are_one_line(bimanual_original, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    words = [bimanual_original if word == "DATASET" else word for word in arguments]
    assert says in error_of(main, *words)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("film*"))
