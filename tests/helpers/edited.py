"""An edited dataset beside the one before: what of it is the same, and whether it is whole."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from vla_policy.data import LeRobotDataset
from vla_policy.data.inspection import inspect
from vla_policy.interfaces import ACTION

LENGTH = 8  # of the first episode; each is a frame longer than the one before it
OTHER = "another task"


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def encoded(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.pts is not None]


def assert_same_episode(one: LeRobotDataset, i: int, other: LeRobotDataset, j: int) -> None:
    a, b = one.episode(i), other.episode(j)
    assert list(a.tasks) == list(b.tasks)
    assert a.columns.keys() == b.columns.keys()
    for key in a.columns.keys() - {"episode_index", "index", "task_index"}:
        assert np.array_equal(a.columns[key], b.columns[key])
    assert one.interface.cameras == other.interface.cameras
    for key in one.interface.cameras:
        assert np.array_equal(one.frames(i, key), other.frames(j, key))


def assert_whole(root: Path) -> LeRobotDataset:
    """A dataset in LeRobot's layout whose metadata, rows, videos and statistics agree, and that a writer takes."""
    dataset = LeRobotDataset(root)
    dataset.require_whole()
    assert dataset.span_findings == []
    assert inspect(dataset)["warnings"] == []
    assert dataset.info["codebase_version"] == "v3.0"
    assert dataset.info["splits"]["train"] == f"0:{dataset.num_episodes}"
    assert dataset.info["total_tasks"] == len(dataset.tasks)
    rows = {}
    for path in sorted((root / "meta/episodes").rglob("*.parquet")):
        rows |= {row["episode_index"]: row for row in pq.read_table(path).to_pylist()}
    assert list(rows) == dataset.episodes
    stats = json.loads((root / "meta/stats.json").read_text())
    declared = {key for key, entry in dataset.features.items()}
    assert stats.keys() == declared
    start = 0
    for index, row in rows.items():
        episode = dataset.episode(index)
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + episode.length)
        assert np.array_equal(episode.columns["index"], np.arange(start, start + episode.length))
        assert np.array_equal(episode.columns["frame_index"], np.arange(episode.length))
        assert row["tasks"] == list(dict.fromkeys(episode.tasks))
        assert np.allclose(row[f"stats/{ACTION}/mean"], episode.columns[ACTION].mean(0))
        assert row["stats/index/max"] == [start + episode.length - 1]
        assert {name.split("/")[1] for name in row if name.startswith("stats/")} == declared
        for key in dataset.interface.cameras:
            seconds = row[f"videos/{key}/to_timestamp"] - row[f"videos/{key}/from_timestamp"]
            assert seconds == pytest.approx(episode.length / dataset.fps)
        start += episode.length
    actions = np.concatenate([dataset.episode(i).columns[ACTION] for i in dataset.episodes]).astype(float)
    assert np.allclose(stats[ACTION]["std"], actions.std(0))
    assert stats[ACTION]["count"] == [start]
    for path in {record.data for record in dataset.records.values()}:
        columns = {key for key, entry in dataset.features.items() if entry["dtype"] != "video"}
        assert set(pq.read_schema(path).names) == columns
    return dataset
