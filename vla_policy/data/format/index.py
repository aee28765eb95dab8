"""The episode index of a dataset: the `meta/` folders of LeRobotDataset v3.0 and v2.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from vla_policy.data.format.layout import DATA_PATH, VIDEO_PATH, EpisodeRecord, VideoSpan
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.stats import Stats
from vla_policy.interfaces import InputError
from vla_policy.utils.files import read_json, read_json_lines

VERSIONS = ("v3.0", "v2.1")
FPS = (0.001, 10_000)  # plausible frame rates
MOST = 2**40  # plausible number of frames or episodes
MOST_TASKS = 1_000_000
_SPAN = ("chunk_index", "file_index", "from_timestamp")
_FILE = ("data/chunk_index", "data/file_index")
PLACES = {"video_key", "chunk_index", "file_index", "episode_chunk", "episode_index"}  # fields of path templates


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`, validated as far as reading needs it."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise InputError(f"{root}: expected a LeRobotDataset with meta/info.json, found none")
    info: dict[str, Any] = read_json(path)
    needed = ("codebase_version", "fps", "features", "total_episodes", "total_frames")
    missing = [key for key in needed if not isinstance(info, Mapping) or key not in info]
    if missing:
        raise InputError(f"{path}: expected the keys {list(needed)}, {missing} are missing")
    if info["codebase_version"] not in VERSIONS:
        raise InputError(f"{path}: expected codebase_version {' or '.join(VERSIONS)}, found {info['codebase_version']}")
    fps = info["fps"]
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not FPS[0] <= fps <= FPS[1]:
        raise InputError(f"{path}: expected fps > 0, a number up to {FPS[1]}, found {fps!r}")
    for key in ("total_episodes", "total_frames"):
        whole_number(path, key, info[key])
    for key in ("data_path", "video_path"):
        _check_template(path, key, info.get(key))
    if info.get("chunks_size") is not None and whole_number(path, "chunks_size", info["chunks_size"]) == 0:
        raise InputError(f"{path}: expected chunks_size > 0, found 0")
    if not isinstance(info["features"], Mapping):
        raise InputError(f"{path}: expected features by name, found {_short(info['features'])}")
    for key, entry in info["features"].items():
        _check_feature(path, key, entry)
    return info


def _check_feature(path: Path, key: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or "dtype" not in entry or "shape" not in entry:
        raise InputError(f"{path}: expected dtype and shape of feature {key!r}, found {_short(entry)}")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str):
        raise InputError(f"{path}: expected a dtype of feature {key!r}, found {_short(dtype)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 < n < MOST for n in shape):
        raise InputError(f"{path}: expected a shape of feature {key!r}, positive numbers, found {_short(shape)}")


def whole_number(path: Path, key: str, value: Any) -> int:
    """`value` as a count or index; `InputError` if it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value < MOST:
        raise InputError(f"{path}: expected {key} to be a whole number from 0 on, found {_short(value)}")
    return value


def _check_template(path: Path, key: str, template: Any) -> None:
    """`InputError` unless a path template has only known fields with plausible format specs."""
    if template is None:
        return
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
        good = all(name in PLACES and re.fullmatch(r"(0?\d)?d?", spec or "") and not to for _, name, spec, to in fields)
    except (TypeError, ValueError):
        good = False
    if not good:
        found = _short(template)
        raise InputError(f"{path}: expected {key} to be a path with places of {sorted(PLACES)}, found {found}")


def _short(value: Any) -> str:
    """The value, shortened for an error."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def video_keys(info: Mapping[str, Any]) -> list[str]:
    return [key for key, entry in info["features"].items() if entry["dtype"] == "video"]


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
            missing = [name for name in ("episode_index", "length", *_FILE) if row.get(name) is None]
            if missing:
                raise InputError(f"{meta}: expected a column {missing[0]!r} without gaps, found {sorted(row)}")
            index, length, chunk, file = (whole_number(meta, n, row[n]) for n in ("episode_index", "length", *_FILE))
            data = _place(root, data_path, chunk_index=chunk, file_index=file)
            videos = {}
            for key in cameras:
                chunk, file, start = (row.get(f"videos/{key}/{name}") for name in _SPAN)
                if any(value is None or value != value for value in (chunk, file, start)):
                    continue  # an episode without this camera
                if not isinstance(start, (int, float)) or not abs(start) < MOST:
                    raise InputError(f"{meta}, episode {index}: expected from_timestamp of {key!r}, found {start}")
                numbers = {"chunk_index": whole_number(meta, key, chunk), "file_index": whole_number(meta, key, file)}
                stop = row.get(f"videos/{key}/to_timestamp")
                stop = float(stop) if isinstance(stop, (int, float)) else start + length / info["fps"]
                videos[key] = VideoSpan(_place(root, video_path, video_key=key, **numbers), float(start), stop)
            records.append(EpisodeRecord(index, length, data, videos, meta))
    path = root / "meta" / "tasks.parquet"
    table = read_parquet(path)
    text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise InputError(f"{path}: expected the columns 'task' and 'task_index', found {table.column_names}")
    return records, _by_index(path, zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def _read_v21(root: Path, info: Mapping[str, Any]) -> tuple[list[EpisodeRecord], list[str]]:
    meta = root / "meta" / "episodes.jsonl"
    data_path = info.get("data_path") or "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    default = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    video_path, per_chunk = info.get("video_path") or default, info.get("chunks_size") or 1000
    records = []
    for row in _json_rows(meta, "episode_index", "length"):
        index, length = (whole_number(meta, key, row[key]) for key in ("episode_index", "length"))
        place = {"episode_chunk": index // per_chunk, "episode_index": index}
        videos = {
            key: VideoSpan(_place(root, video_path, video_key=key, **place), 0.0, length / info["fps"])
            for key in video_keys(info)
        }
        records.append(EpisodeRecord(index, length, _place(root, data_path, **place), videos, meta))
    path = root / "meta" / "tasks.jsonl"
    rows = _json_rows(path, "task_index", "task")
    return records, _by_index(path, ((row["task_index"], row["task"]) for row in rows))


def _json_rows(path: Path, *keys: str) -> Iterator[Mapping[str, Any]]:
    """The lines of a file, all of which have these keys."""
    for row in read_json_lines(path):
        if not isinstance(row, Mapping) or any(key not in row for key in keys):
            found = sorted(row) if isinstance(row, Mapping) else _short(row)
            raise InputError(f"{path}: expected the keys {' and '.join(map(repr, keys))} in every line, found {found}")
        yield row


def _place(root: Path, template: str, **numbers: Any) -> Path:
    """The path of a template with `numbers`; `InputError` if it is outside the dataset."""
    try:
        path = Path(template.format(**numbers))
    except (KeyError, ValueError) as error:
        raise InputError(f"{root}: expected places of {sorted(numbers)} in {template!r}, found {error}") from None
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise InputError(f"{root}: expected files inside the dataset, found {str(path)!r}")
    return root / path


def _by_index(path: Path, tasks: Iterable[tuple[Any, Any]]) -> list[str]:
    """Sentences by index; "" for missing ones."""
    table = {whole_number(path, "task_index", index): task for index, task in tasks}
    wrong = [task for task in table.values() if not isinstance(task, str)]
    if wrong or max(table, default=0) > MOST_TASKS:
        found = _short(wrong[0]) if wrong else f"the task_index {max(table)}"
        raise InputError(f"{path}: expected sentences numbered from 0 on, found {found}")
    return [table.get(index, "") for index in range(max(table, default=-1) + 1)]


def read_stats(root: Path, info: Mapping[str, Any]) -> dict[int, dict[str, Stats]]:
    """Statistics per episode and feature, as far as available."""
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
