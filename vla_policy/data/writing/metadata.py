"""Writing of a LeRobotDataset v3.0's metadata: info.json, tasks.parquet, rows of data and of episodes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla_policy.data.format import layout
from vla_policy.data.format.parquet import write_parquet
from vla_policy.data.format.stats import Stats, to_lists
from vla_policy.interfaces import Interface

NOTHING: Mapping[str, pa.ChunkedArray] = {}


def new_info(interface: Interface, robot_type: str, codec: str, executed: bool = False) -> dict[str, Any]:
    """info.json of a dataset without episodes."""
    return {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": layout.CHUNKS_SIZE,
        "data_files_size_in_mb": layout.DATA_FILE_MB,
        "video_files_size_in_mb": layout.VIDEO_FILE_MB,
        "fps": int(interface.fps),
        "splits": {"train": "0:0"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if interface.cameras else None,
        "features": layout.features_of(interface, codec, executed),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, old, new) for every incompatible entry of two info.json."""
    before, after = old["features"], new["features"]
    if set(before) != set(after):
        yield "features", sorted(before), sorted(after)
        return
    for key in before:
        one, two = (entry.get("info", {}).get("video.codec") for entry in (before[key], after[key]))
        if one != two:
            yield f"video codec of {key!r}", one, two
    if old.get("robot_type") and new["robot_type"] and old["robot_type"] != new["robot_type"]:
        yield "robot_type", old["robot_type"], new["robot_type"]
    for key, default in (("data_path", layout.DATA_PATH), ("video_path", layout.VIDEO_PATH)):
        if new.get(key) and (old.get(key) or default) != new[key]:
            yield key, old[key], new[key]


def write_tasks(root: Path, tasks: list[str], more: Mapping[str, pa.ChunkedArray] = NOTHING) -> None:
    """Write `meta/tasks.parquet`, with `more` columns; pandas metadata makes the task the index, as LeRobot expects."""
    column = {"field_name": "task_index", "name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    index = {"field_name": "task", "name": "task", "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [entry | {"metadata": None} for entry in (column, index)],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    columns = {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())}
    table = pa.table({**columns, **more})
    write_parquet(root / "meta" / "tasks.parquet", table.replace_schema_metadata({"pandas": json.dumps(pandas)}))


def data_table(arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """The rows of an episode: vectors (T, D) as fixed-size lists, (T,) as scalars."""
    columns = {}
    for key, values in arrays.items():
        flat = pa.array(values.ravel(), pa.float32() if values.dtype.kind == "f" else pa.int64())
        size = values[0].size
        columns[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.table(columns)


def episode_table(
    info: Mapping[str, Any], index: int, length: int, task: str, place: Mapping[str, int], stats: Mapping[str, Stats]
) -> pa.Table:
    """The row of an episode with its own data, video and meta file, all at `place`."""
    start = info["total_frames"]
    row: dict[str, Any] = {"episode_index": index, "tasks": [task], "length": length}
    row |= {f"data/{name}": value for name, value in place.items()}
    row |= {"dataset_from_index": start, "dataset_to_index": start + length}
    for key, entry in info["features"].items():
        if entry["dtype"] == "video":
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / info["fps"]}
    for key, values in to_lists(stats).items():
        row |= {f"stats/{key}/{name}": value for name, value in values.items()}
    row |= {f"meta/episodes/{name}": value for name, value in place.items()}
    return pa.table({name: pa.array([value]) for name, value in row.items()})
