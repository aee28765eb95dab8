"""Datasets as people have them: odd features, gaps, bad episodes, hand-written metadata. What can be read is read."""

import errno
import json
import logging
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.bimanual import make_bimanual_dataset
from helpers.plain_dataset import FRONT, SIZE, picture, png, write_plain_dataset
from PIL import Image

from vla_policy.data import LeRobotDataset, WindowDataset
from vla_policy.data.format.features import channel_names
from vla_policy.data.inspection import inspect
from vla_policy.data.rendering import save_frame
from vla_policy.interfaces import ACTION, STATE, InputError

DEPTH = "observation.images.depth"


def texts(root: Path) -> list[str]:
    return [warning["text"] for warning in inspect(LeRobotDataset(root, strict=False))["warnings"]]


def edit_info(root: Path, change) -> Path:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    return path


@pytest.mark.parametrize("cache", [True, False])
def test_pictures_in_the_data_files_are_read_like_videos(tmp_path, cache):
    dataset = LeRobotDataset(write_plain_dataset(tmp_path / "d"))
    assert dataset.interface.cameras == [FRONT]
    assert np.array_equal(dataset.frames(2, FRONT), [picture(2, t) for t in range(10)])
    windows = WindowDataset(dataset, [STATE, FRONT], 2, 4, 2, cache=cache)
    for index in (0, 13, 30):
        episode, frame = windows.window(index)
        assert np.array_equal(windows[index][FRONT][-1].numpy(), picture(episode, frame))
    (path,) = save_frame(dataset, 1, 4, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(path)), picture(1, 4))
    assert inspect(dataset)["features"][FRONT]["max"][1] == pytest.approx(230 / 255)
    assert texts(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (png(np.zeros((8, 24, 3), np.uint8)), "RGB of 16 x 24, found RGB of 8 x 24"),
        (png(np.zeros(SIZE, np.uint16)), "RGB of 16 x 24, found I;16 of 16 x 24"),
        ({"bytes": b"\x89PNG", "path": ""}, "found a broken one"),
        ({"bytes": None, "path": "images/0.png"}, "found a broken one"),
    ],
)
def test_broken_pictures_are_named(tmp_path, cell, says):
    root = write_plain_dataset(tmp_path / "d", (3,), columns=lambda e, n: {FRONT: pa.array([cell] * n)})
    with pytest.raises(InputError, match=rf"episode_000000\.parquet: expected every picture of '{FRONT}' as .*{says}"):
        LeRobotDataset(root).frames(0, FRONT)


ODD = {
    DEPTH: ({"dtype": "video", "shape": [16, 24, 1], "names": None}, r"3 colours, found the shape \[16, 24, 1\]"),
    "observation.images.flat": ({"dtype": "image", "shape": [16, 24]}, r"3 colours, found the shape \[16, 24\]"),
    "observation.images.rgba": ({"dtype": "video", "shape": [16, 24, 4]}, r"3 colours, found the shape \[16, 24, 4\]"),
    "observation.images.range": (
        {"dtype": "video", "shape": [16, 24, 3], "info": {"video.is_depth_map": True}},
        "3 colours, found a depth map",
    ),
    "language_events": ({"dtype": "language", "shape": [1]}, "found the dtype 'language'"),
    "observation.voxels": ({"dtype": "float32", "shape": [2, 2, 2]}, r"a vector or a matrix, found .*\[2, 2, 2\]"),
}


def test_odd_features_are_left_out_by_name(tmp_path, caplog):
    def columns(episode, length):
        return {"language_events": pa.array([[{"content": "reach"}]] * length)}

    root = write_plain_dataset(
        tmp_path / "d", features={key: entry for key, (entry, _) in ODD.items()}, columns=columns
    )
    dataset = LeRobotDataset(root)
    assert list(dataset.interface.observations) == [FRONT, STATE]
    assert dataset.episode(0).length == 12
    found = texts(root)
    assert len(found) == len(ODD)
    for key, (_, says) in ODD.items():
        (text,) = (text for text in found if text.startswith(f"all episodes, {key}: left out: "))
        assert re.search(says, text)
    with caplog.at_level(logging.WARNING):
        WindowDataset(dataset, [STATE, FRONT], 2, 4, 2)
    assert f"{DEPTH}: left out" in caplog.text


def test_integers_and_matrices_become_vectors(tmp_path):
    features = {
        "observation.count": {"dtype": "int64", "shape": [1], "names": ["count"]},
        "observation.closed": {"dtype": "bool", "shape": [1], "names": None},
        "observation.wrench": {"dtype": "float32", "shape": [2, 3], "names": None},
    }

    def columns(episode, length):
        matrix = (np.arange(6).reshape(2, 3) + 10 * episode).tolist()
        return {
            "observation.count": np.arange(length),
            "observation.closed": np.arange(length) % 2 == 1,
            "observation.wrench": pa.array([matrix] * length, pa.list_(pa.list_(pa.float32()))),
        }

    dataset = LeRobotDataset(write_plain_dataset(tmp_path / "d", features=features, columns=columns))
    assert dataset.interface.observations["observation.wrench"].shape == (6,)
    windows = WindowDataset(dataset, ["observation.count", "observation.closed", "observation.wrench"], 1, 1, 0)
    batch = windows.__getitems__([15])
    assert batch["observation.count"].tolist() == [[[3.0]]]
    assert batch["observation.closed"].tolist() == [[[1.0]]]
    assert batch["observation.wrench"].tolist() == [[[10.0, 11.0, 12.0, 13.0, 14.0, 15.0]]]


@pytest.mark.parametrize(
    ("names", "shape", "expected"),
    [
        (["a", "b"], [2], ("a", "b")),
        ([["a", "b"]], [2], ("a", "b")),
        ({"motors": ["a", "b"]}, [2], ("a", "b")),
        ({"left": ["x", "y"], "right": ["x", "y"]}, [4], ("left_x", "left_y", "right_x", "right_y")),
        ([{"left": ["x", "y"]}, {"right": ["z"]}], [3], ("x", "y", "z")),
        ({"y": 1, "x": 0}, [2], ("x", "y")),
        ({"y": 1, "x": 2}, [2], ()),
        ({"axes": ["gripper"]}, [1], ("gripper",)),
        ([["a", "b", "c"], ["d", "e", "f"]], [2, 3], ("a", "b", "c", "d", "e", "f")),
        ([["top", "bottom"], ["left", "right"]], [2, 2], ()),
        ({"rows": ["top", "bottom"], "columns": ["left", "right"]}, [2, 2], ()),
        (["a"], [2], ()),
        (None, [2], ()),
        ("ab", [2], ()),
        ({}, [2], ()),
    ],
)
def test_lists_and_groups_are_names(names, shape, expected):
    assert channel_names(names, shape) == expected


def test_a_gap_in_the_episodes_is_usable_and_each_keeps_its_number(tmp_path):
    root = write_plain_dataset(tmp_path / "d", {0: 12, 1: 9, 3: 10, 6: 11})
    dataset = LeRobotDataset(root)
    assert dataset.episodes == [0, 1, 3, 6]
    assert np.array_equal(dataset.frames(3, FRONT), [picture(3, t) for t in range(10)])
    windows = WindowDataset(dataset, [STATE, FRONT], 1, 1, 0, episodes=[6, 3])
    assert windows.window(11) == (3, 0)
    assert np.array_equal(windows[11][FRONT][0].numpy(), picture(3, 0))
    assert windows[11][STATE][0, 0] == 3
    assert texts(root) == ["all episodes, meta: no episode 2", "all episodes, meta: no episode 4 to 5"]
    (root / "data/chunk-000/episode_000006.parquet").unlink()
    assert any(text.startswith("episode 6, data: expected the file") for text in texts(root))
    with pytest.raises(InputError, match="expected an episode from 0 to 1, 3, 6, found 2"):
        dataset.episode(2)
    with pytest.raises(InputError, match="expected episodes 0 to 3, found 0 to 1, 3, 6"):
        dataset.require_whole()


def test_bad_episodes_are_all_named_and_can_be_excluded(tmp_path):
    def columns(episode, length):
        value = float("nan") if episode in (1, 3) else 0.5
        return {ACTION: pa.array([[value, 0.0]] * length, pa.list_(pa.float32()))}

    root = write_plain_dataset(tmp_path / "d", (5, 5, 5, 5), columns=columns)
    with pytest.raises(
        InputError, match=r"episode 1, 'action': .* nan .*bad episodes: 1, 3.*exclude_episodes=\[1, 3\]"
    ):
        WindowDataset(LeRobotDataset(root), [STATE], 1, 1, 0)
    windows = WindowDataset(LeRobotDataset(root, exclude=[1, 3]), [STATE, FRONT], 1, 1, 0)
    assert {windows.window(i)[0] for i in range(len(windows))} == {0, 2}
    assert np.array_equal(windows[7][FRONT][0].numpy(), picture(2, 2))


def test_an_episode_without_frames_counts_for_nothing(tmp_path, caplog):
    root = write_plain_dataset(tmp_path / "d", (12, 0, 1, 10))
    dataset = LeRobotDataset(root)
    with caplog.at_level(logging.WARNING):
        windows = WindowDataset(dataset, [STATE, FRONT], 2, 4, 2)
    assert len(windows) == 12 + 1 + 10
    assert "episode 1, data: no frames" in caplog.text
    assert any("frames of episode 1, found a length of 0" in text for text in texts(root))
    with pytest.raises(InputError, match="expected frames of episode 1, found a length of 0"):
        dataset.episode(1)
    assert dataset.frames(1, FRONT).shape == (0, *SIZE, 3)


def test_each_frame_has_its_own_task(tmp_path):
    def columns(episode, length):
        return {"task_index": np.where(np.arange(length) < 4, 0, 1)}

    dataset = LeRobotDataset(write_plain_dataset(tmp_path / "d", columns=columns, tasks=("grasp", "place", "never")))
    episode = dataset.episode(1)
    assert list(episode.tasks) == ["grasp"] * 4 + ["place"] * 5
    assert episode.task == "grasp, then place"
    assert inspect(dataset)["task_frames"] == {"grasp": 12, "place": 19, "never": 0}


@pytest.mark.parametrize("missing", [None, "index", "task_index"])
def test_counters_need_no_declaration(tmp_path, missing):
    root = write_plain_dataset(
        tmp_path / "d", columns=lambda e, n: {missing: None} if missing else {}, declare_counters=False
    )
    assert LeRobotDataset(root).episode(2).columns[STATE][3, 1] == np.float32(0.3)
    assert LeRobotDataset(root).episode(2).task == "push"


def test_a_missing_counter_is_one_error(tmp_path):
    root = write_plain_dataset(tmp_path / "d", columns=lambda e, n: {"frame_index": None}, declare_counters=False)
    with pytest.raises(InputError, match=r"episode_000001\.parquet: expected a column 'frame_index', found \["):
        LeRobotDataset(root).episode(1)


@pytest.mark.parametrize(
    ("encoding", "task", "says"),
    [
        ("gbk", "把方块推到目标", "line 1: expected UTF-8"),
        ("utf-8-sig", "把方块", None),
        ("utf-8", "push\u2028it", None),
    ],
)
def test_lines_of_json_in_other_encodings(tmp_path, encoding, task, says):
    root = write_plain_dataset(tmp_path / "d")
    path = root / "meta/tasks.jsonl"
    path.write_text(json.dumps({"task_index": 0, "task": task}, ensure_ascii=False) + "\n", encoding=encoding)
    if says is None:
        assert LeRobotDataset(root).episode(0).task == task
    else:
        with pytest.raises(InputError, match=rf"tasks\.jsonl, {says}"):
            LeRobotDataset(root)


def test_lfs_pointers_are_called_that(tmp_path):
    root = write_plain_dataset(tmp_path / "d")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    for path in (root / "data/chunk-000").iterdir():
        path.write_bytes(pointer)
    with pytest.raises(InputError, match=r"episode_000001\.parquet.*Git LFS pointer"):
        LeRobotDataset(root).episode(1)
    with pytest.raises(InputError, match=r"Git LFS pointer.*bad episodes: 0 to 2\)$"):
        WindowDataset(LeRobotDataset(root), [STATE], 1, 1, 0)
    (root / "meta/info.json").write_bytes(pointer)
    with pytest.raises(InputError, match=r"info\.json: expected JSON, found a Git LFS pointer"):
        LeRobotDataset(root)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("fps", "10", "expected fps > 0, .*found '10'"),
        ("fps", None, "expected fps > 0, .*found None"),
        ("fps", float("nan"), "expected fps > 0, .*found nan"),
        ("fps", True, "expected fps > 0, .*found True"),
        ("features", ["action"], r"features by name, found \['action'\]"),
        ("total_episodes", None, "total_episodes to be a whole number from 0 on, found None"),
        ("total_frames", "31", "total_frames to be a whole number from 0 on, found '31'"),
        ("chunks_size", 0, "chunks_size > 0, found 0"),
        ("data_path", "data/{episode_index:0999999999d}.parquet", "data_path to be a path"),
        ("data_path", "data/{episode_index.__class__}.parquet", "data_path to be a path"),
        ("data_path", "../{episode_index}.parquet", r"files inside the dataset, found '\.\./0\.parquet'"),
        ("data_path", "/{episode_index}.parquet", "files inside the dataset"),
        ("data_path", "data/{file_index}.parquet", r"places of \['episode_chunk', 'episode_index'\]"),
        ("data_path", 5, "data_path to be a path"),
    ],
)
def test_hand_written_info_is_one_error(tmp_path, key, value, says):
    root = write_plain_dataset(tmp_path / "d")
    path = edit_info(root, lambda info: info.update({key: value}))
    with pytest.raises(InputError, match=says) as error:
        LeRobotDataset(root)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or str(root) in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": 3}, "shape of feature 'action', positive numbers, found 3"),
        ({"shape": None}, "shape of feature 'action', positive numbers, found None"),
        ({"shape": [-1]}, r"shape of feature 'action', positive numbers, found \[-1\]"),
        ({"dtype": "list"}, r"feature 'action' of numbers, found one left out \(.*dtype 'list'\)"),
        ({"dtype": 3}, "dtype of feature 'action', found 3"),
    ],
)
def test_hand_written_features_are_one_error(tmp_path, change, says):
    root = write_plain_dataset(tmp_path / "d")
    edit_info(root, lambda info: info["features"][ACTION].update(change))
    with pytest.raises(InputError, match=rf"info\.json: expected .*{says}"):
        LeRobotDataset(root)


def test_a_read_only_file_system_is_an_input_error(tmp_path, monkeypatch):
    dataset = LeRobotDataset(write_plain_dataset(tmp_path / "d"))

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(dataset.root / ".cache"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        InputError, match=r"\.cache: expected a folder to decode videos into, found it read-only.*cache_dir"
    ):
        WindowDataset(dataset, [FRONT], 1, 1, 0)


def test_records_and_lengths_go_by_the_episodes_number_across_a_gap(tmp_path: Path) -> None:
    root = tmp_path / "gap"
    make_bimanual_dataset(root, episodes=4, length=12)
    dataset = LeRobotDataset(root, exclude=[1])
    assert list(dataset.records) == dataset.episodes == [0, 2, 3]
    assert dataset.lengths[1] == 0
    for index in dataset.episodes:
        rows = dataset.rows(index)
        assert dataset.records[index].index == dataset.episode(index).index == index
        assert (rows.start, rows.stop) == (dataset.lengths[:index].sum(), dataset.lengths[: index + 1].sum())
