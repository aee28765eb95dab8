"""Which episodes a dataset has and where they lie: the `meta/` folders of LeRobotDataset v3.0 and v2.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data.files import read_json, read_json_lines, read_parquet
from vla_policy.data.layout import BOOKKEEPING, DATA_PATH, VIDEO_PATH, EpisodeRecord, VideoSpan
from vla_policy.data.stats import Stats
from vla_policy.interfaces import InputError

VERSIONS = ("v3.0", "v2.1")


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`, checked for what reading needs."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise InputError(f"{root}: expected a LeRobotDataset with meta/info.json, found none")
    info = read_json(path)
    needed = ("codebase_version", "fps", "features", "total_episodes", "total_frames")
    missing = [key for key in needed if not isinstance(info, Mapping) or key not in info]
    if missing:
        raise InputError(f"{path}: expected the keys {list(needed)}, {missing} are missing")
    if info["codebase_version"] not in VERSIONS:
        raise InputError(f"{path}: expected codebase_version {' or '.join(VERSIONS)}, found {info['codebase_version']}")
    if not info["fps"] > 0:
        raise InputError(f"{path}: expected fps > 0, found {info['fps']}")
    for key, entry in info["features"].items():
        if not isinstance(entry, Mapping) or "dtype" not in entry or "shape" not in entry:
            raise InputError(f"{path}: expected dtype and shape of feature {key!r}, found {entry}")
    return info


def video_keys(info: Mapping[str, Any]) -> list[str]:
    return [key for key, entry in info["features"].items() if entry["dtype"] == "video"]


def column_shapes(info: Mapping[str, Any]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape in one frame of every numeric feature that has a column in the data files."""
    columns = {}
    for key, entry in info["features"].items():
        if entry["dtype"] not in ("video", "image", "string"):
            shape = () if key in BOOKKEEPING else tuple(entry["shape"])
            columns[key] = (np.dtype(entry["dtype"]), shape)
    return columns


def read_index(root: Path, info: Mapping[str, Any]) -> tuple[list[EpisodeRecord], list[str]]:
    """Records of the episodes in order, and the task strings by task index."""
    records, tasks = _read_v30(root, info) if info["codebase_version"] == "v3.0" else _read_v21(root, info)
    return sorted(records, key=lambda record: record.index), tasks


def _read_v30(root: Path, info: Mapping[str, Any]) -> tuple[list[EpisodeRecord], list[str]]:
    data_path, video_path = info.get("data_path") or DATA_PATH, info.get("video_path") or VIDEO_PATH
    cameras = video_keys(info)
    records = []
    for meta in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        rows = read_parquet(meta, keep=lambda name: not name.startswith("stats/")).to_pylist()
        for row in rows:
            try:
                data = data_path.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
                videos = {}
                for key in cameras:
                    chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
                    path = video_path.format(video_key=key, chunk_index=chunk, file_index=file)
                    start = float(row[f"videos/{key}/from_timestamp"])
                    stop = row.get(f"videos/{key}/to_timestamp")
                    stop = start + row["length"] / info["fps"] if stop is None else float(stop)
                    videos[key] = VideoSpan(root / path, start, stop)
                records.append(EpisodeRecord(row["episode_index"], row["length"], root / data, videos, meta))
            except KeyError as error:
                raise InputError(f"{meta}: expected a column {error.args[0]!r}, found {sorted(row)}") from None
    path = root / "meta" / "tasks.parquet"
    table = read_parquet(path)
    text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise InputError(f"{path}: expected the columns 'task' and 'task_index', found {table.column_names}")
    return records, _by_index(dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True)))


def _read_v21(root: Path, info: Mapping[str, Any]) -> tuple[list[EpisodeRecord], list[str]]:
    meta = root / "meta" / "episodes.jsonl"
    data_path = info.get("data_path") or "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    default = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    video_path, per_chunk = info.get("video_path") or default, info.get("chunks_size") or 1000
    records = []
    for row in read_json_lines(meta):
        missing = [key for key in ("episode_index", "length") if key not in row]
        if missing:
            raise InputError(f"{meta}: expected the keys 'episode_index' and 'length', found {sorted(row)}")
        place = {"episode_chunk": row["episode_index"] // per_chunk, "episode_index": row["episode_index"]}
        videos = {
            key: VideoSpan(root / video_path.format(video_key=key, **place), 0.0, row["length"] / info["fps"])
            for key in video_keys(info)
        }
        records.append(
            EpisodeRecord(row["episode_index"], row["length"], root / data_path.format(**place), videos, meta)
        )
    path = root / "meta" / "tasks.jsonl"
    try:
        return records, _by_index({row["task_index"]: row["task"] for row in read_json_lines(path)})
    except KeyError as error:
        raise InputError(f"{path}: expected the keys 'task_index' and 'task', key {error.args[0]!r} missing") from None


def _by_index(tasks: Mapping[int, str]) -> list[str]:
    return [tasks.get(index, "") for index in range(max(tasks, default=-1) + 1)]


def read_stats(root: Path, info: Mapping[str, Any]) -> dict[int, dict[str, Stats]]:
    """Statistics of each episode by feature, as far as the dataset has them."""
    if info["codebase_version"] == "v2.1":
        path = root / "meta" / "episodes_stats.jsonl"
        rows = read_json_lines(path) if path.exists() else []
        return {row["episode_index"]: {key: _arrays(stats) for key, stats in row["stats"].items()} for row in rows}
    found: dict[int, dict[str, Stats]] = {}
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        for row in read_parquet(
            path, keep=lambda name: name == "episode_index" or name.startswith("stats/")
        ).to_pylist():
            stats = found.setdefault(row.pop("episode_index"), {})
            for name, value in row.items():
                key, stat = name.removeprefix("stats/").rsplit("/", 1)
                stats.setdefault(key, {})[stat] = np.asarray(value)
    return found


def _arrays(stats: Mapping[str, Any]) -> Stats:
    return {name: np.asarray(value) for name, value in stats.items()}
