"""Edits of damaged datasets, beside readers and killed writers, and mistakes."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, WRIST, add_bimanual_episode
from helpers.edited import assert_whole, contents

from vla_policy.data import LeRobotDataset
from vla_policy.data.editing import (
    delete,
    drop,
    merge,
    reencode,
    rename,
    retask,
    split,
)
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import ACTION, InputError


def test_an_unreadable_episode_can_be_deleted(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    record = LeRobotDataset(root).records[2]
    record.data.write_bytes(b"broken")
    record.videos[WRIST].path.unlink()
    with pytest.raises(InputError, match=r"episode 2, .*wrist: expected the file"):
        delete(root, [0])
    delete(root, [2])
    assert_whole(root)


def test_a_reader_of_the_old_dataset_finds_no_other_episodes(dataset: LeRobotDataset) -> None:
    episode = dataset.episode(5)
    for change in (lambda: delete(dataset.root, [0]), lambda: compact(dataset.root), lambda: delete(dataset.root, [0])):
        old = LeRobotDataset(dataset.root)
        change()
        for index in old.episodes:
            with pytest.raises(InputError, match=r"expected .*found none"):
                old.episode(index)
            with pytest.raises(InputError, match=r"file-\d+\.mp4"):
                old.frames(index, HEAD)
    assert np.array_equal(assert_whole(dataset.root).episode(3).columns[ACTION], episode.columns[ACTION])


def test_an_episode_that_a_killed_writer_left_is_removed(dataset: LeRobotDataset, monkeypatch) -> None:
    writing = "vla_policy.data.writing.writer"
    with monkeypatch.context() as patch:
        patch.setattr(f"{writing}.remove_unfinished", lambda root: None)
        patch.setattr(f"{writing}.LeRobotWriter._commit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add_bimanual_episode(dataset.root)
    assert LeRobotDataset(dataset.root).uncounted is not None
    delete(dataset.root, [0])
    assert assert_whole(dataset.root).num_episodes == 5


def test_values_that_are_not_finite_hinder_no_edit(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    record = LeRobotDataset(root).records[2]
    rows = pq.read_table(record.data)
    effort = pa.array(np.where(np.arange(len(rows)) == 3, np.nan, 0.5).astype(np.float32))
    for other in LeRobotDataset(root).records.values():
        table = pq.read_table(other.data)
        column = effort if other.index == 2 else pa.array(np.zeros(len(table), np.float32))
        pq.write_table(table.append_column("observation.effort", column), other.data)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.effort"] = {"dtype": "float32", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="expected finite numbers, found nan"):
        LeRobotDataset(root).episode(2)
    delete(root, [0])
    assert np.isnan(LeRobotDataset(root).episode(1, finite=False).columns["observation.effort"]).sum() == 1
    drop(root, ["observation.effort"])
    assert_whole(root)


def test_a_camera_of_which_videos_are_missing_can_be_dropped(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    LeRobotDataset(root).records[2].videos[WRIST].path.unlink()
    drop(root, [WRIST])
    assert assert_whole(root).num_episodes == 6


MISTAKES = [
    (lambda root, out: delete(root, [6], out), "delete: expected episodes from 0 to 5, found 6"),
    (lambda root, out: delete(root, range(6), out), "delete: expected at least one episode in the new dataset"),
    (lambda root, out: delete(root / "none", [0], out), "expected a LeRobotDataset"),
    (lambda root, out: drop(root, [ACTION], out), "expected a feature 'action' of numbers"),
    (lambda root, out: drop(root, ["depth"], out), "expected a feature out of .*, found 'depth'"),
    (lambda root, out: drop(root, ["timestamp"], out), "expected a feature that is none of"),
    (lambda root, out: rename(root, {HEAD: WRIST}, out), f"expected every feature once, found '{WRIST}' again"),
    (lambda root, out: rename(root, {HEAD: "a/b"}, out), "expected a feature's name without '/', found 'a/b'"),
    (lambda root, out: retask(root, "", out=out), "task: expected a sentence"),
    (
        lambda root, out: retask(root, "x", old="y", out=out),
        "old: expected one of the dataset's sentences .*, found 'y'",
    ),
    (lambda root, out: reencode(root, "vp8", out), "codec: expected one of .*, found 'vp8'"),
    (lambda root, out: merge([root, root], out), "merge: expected two or more different datasets"),
    (lambda root, out: split(root, out, {"a": [0, 1], "b": [1]}), "every episode once at most, found 1 more often"),
    (lambda root, out: split(root, out, {"a": [0, 2, 2]}), "every episode once at most, found 2 more often"),
    (lambda root, out: split(root, out, {"../a": [0]}), "expected names of folders"),
    (lambda root, out: delete(root, [0], out=root), "expected a new folder, found a dataset"),
]


@pytest.mark.parametrize(("act", "says"), MISTAKES)
def test_mistakes_change_nothing(shared: Path, tmp_path: Path, act, says: str) -> None:
    before = contents(shared)
    with pytest.raises(InputError, match=says):
        act(shared, tmp_path / "new")
    assert contents(shared) == before
    assert list(tmp_path.iterdir()) == []
