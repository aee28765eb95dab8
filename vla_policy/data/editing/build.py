"""Builds an edited dataset in a folder: rows, videos, statistics and metadata of the episodes of a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla_policy.data.dataset import Episode, LeRobotDataset
from vla_policy.data.editing.about import write_about
from vla_policy.data.editing.plan import Part, Plan
from vla_policy.data.editing.rows import DataFiles, counters, edited_rows
from vla_policy.data.editing.videos import Clip, write_videos
from vla_policy.data.format import layout
from vla_policy.data.format.features import read_features
from vla_policy.data.format.index import read_stats
from vla_policy.data.format.parquet import read_parquet, write_parquet
from vla_policy.data.format.stats import ImageStats, Stats, merge_stats, to_lists, vector_stats
from vla_policy.data.writing import metadata
from vla_policy.data.writing.compare import rows_of
from vla_policy.data.writing.replace import file_place, free_numbers
from vla_policy.utils.files import read_json_lines, write_json

Progress = Callable[[Sequence[str]], Iterable[str]]  # shows that a list is gone through
PLACES = ("data/", "videos/", "meta/episodes/", "stats/", "dataset_")  # columns of meta/episodes that are made anew


@dataclass
class Built:
    """What is in the new folder: the `sentences` of each episode's frames, the clips of each video feature by its old
    name, and `notes` for the user.
    """

    sentences: list[list[str]] = field(default_factory=list)
    clips: dict[str, list[Clip]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build(plan: Plan, out: Path, copy: Callable[[Path, Path], object], progress: Progress) -> Built:
    """Write the dataset of a plan to the folder `out`; `copy` takes over a whole file."""
    built = Built()
    for key in progress(list(plan.videos)):
        built.clips[key] = write_videos(plan, key, out, copy, built.notes.append)
    tasks: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    merged: dict[str, Stats] = {}
    extras = lru_cache(None)(episode_extras)
    stored = lru_cache(None)(lambda dataset: read_stats(dataset.root, dataset.info))
    data_rows = lru_cache(2)(read_parquet)  # episodes are read in order
    start = 0
    with DataFiles(out) as files:
        for number, _ in enumerate(progress([f"episode {number}" for number in range(len(plan.parts))])):
            part = plan.parts[number]
            episode = part.dataset.episode(part.index)
            sentences = [part.sentences.get(task, task) for task in episode.tasks]
            for task in sentences:
                tasks.setdefault(task, len(tasks))
            counted = counters(number, start, [tasks[task] for task in sentences])
            file = files.write(edited_rows(plan, _rows(part, data_rows), episode, counted))
            stats = _stats(plan, part, episode, counted, stored(part.dataset).get(part.index, {}))
            row = {**extras(part.dataset).get(part.index, {}), "episode_index": number}
            row |= {"tasks": list(dict.fromkeys(sentences)), "length": episode.length}
            row |= {f"data/{name}": value for name, value in file_place(file).items()}
            row |= {"dataset_from_index": start, "dataset_to_index": start + episode.length}
            row |= _video_places(plan, {key: clips[number] for key, clips in built.clips.items()})
            for key, values in to_lists(stats).items():
                row |= {f"stats/{key}/{name}": value for name, value in values.items()}
            rows.append(row)
            merged |= merge_stats(merged, stats)
            built.sentences.append(sentences)
            start += episode.length
    _write_meta(plan, out, rows, list(tasks), start, merged)
    changed = {n: _one(built.sentences[n]) for n, part in enumerate(plan.parts) if part.sentences}
    write_about(plan, out, changed)
    return built


def _one(sentences: Sequence[str]) -> str:
    """The sentence of an episode, or the distinct ones in order."""
    return ", then ".join(task for task, _ in groupby(sentences))


def _rows(part: Part, read: Callable[[Path], pa.Table]) -> pa.Table:
    return rows_of(read(part.dataset.records[part.index].data), part.index)


def _stats(
    plan: Plan, part: Part, episode: Episode, counted: Mapping[str, np.ndarray], stored: Mapping[str, Stats]
) -> dict[str, Stats]:
    """The statistics of an episode: of vectors from their values, of cameras those that are stored, if any are."""
    cameras = read_features(part.dataset.features).cameras
    stats: dict[str, Stats] = {}
    for key in part.dataset.features:
        name = plan.name(key)
        if name is None:
            continue
        if key in episode.columns:
            stats[name] = vector_stats(counted.get(key, episode.columns[key]))
        elif _is_usable(stored.get(key, {})) and not (plan.fresh_stats and key in cameras):
            stats[name] = stored[key]
        elif key in cameras:
            stats[name] = _camera_stats(part.dataset, part.index, key)
    return stats


def _is_usable(stats: Mapping[str, np.ndarray]) -> bool:
    return {"min", "max", "mean", "std", "count"} <= stats.keys() and all(v.dtype.kind in "iuf" for v in stats.values())


def _camera_stats(dataset: LeRobotDataset, index: int, key: str) -> Stats:
    watch = ImageStats()
    for _ in watch.watch(dataset.iter_frames(index, key)):
        pass
    return watch.result()


def episode_extras(dataset: LeRobotDataset) -> dict[int, dict[str, Any]]:
    """By episode what its record says beyond LeRobot's format."""
    if dataset.info["codebase_version"] == "v2.1":
        rows = read_json_lines(dataset.root / "meta" / "episodes.jsonl")
    else:
        files = dict.fromkeys(record.meta for record in dataset.records.values())
        rows = [row for path in files for row in read_parquet(path, _is_extra).to_pylist()]
    return {row["episode_index"]: row for row in rows}


def _is_extra(name: str) -> bool:
    return not name.startswith(PLACES)


def _video_places(plan: Plan, clips: Mapping[str, Clip]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, clip in clips.items():
        row |= {f"videos/{plan.videos[key]}/{name}": value for name, value in file_place(clip.file).items()}
        row |= {f"videos/{plan.videos[key]}/from_timestamp": clip.span.start}
        row |= {f"videos/{plan.videos[key]}/to_timestamp": clip.span.stop}
    return row


def _write_meta(
    plan: Plan, out: Path, rows: list[dict[str, Any]], tasks: list[str], frames: int, stats: Mapping[str, Stats]
) -> None:
    number = next(free_numbers(out, layout.EPISODES_PATH))
    for row in rows:
        row |= {f"meta/episodes/{name}": value for name, value in file_place(number).items()}
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    write_parquet(out / layout.EPISODES_PATH.format(**file_place(number)), table)
    metadata.write_tasks(out, tasks)
    write_json(out / "meta" / "stats.json", to_lists(stats))
    write_json(out / "meta" / "info.json", _info(plan, len(tasks), frames))


def _info(plan: Plan, tasks: int, frames: int) -> dict[str, Any]:
    """info.json: what the first dataset's says beyond the format stays."""
    old = {key: value for key, value in plan.datasets[0].info.items() if key not in ("total_videos", "total_chunks")}
    robots = [dataset.info["robot_type"] for dataset in plan.datasets if dataset.info.get("robot_type")]
    return old | {
        "codebase_version": "v3.0",
        "robot_type": robots[0] if robots else "",
        "total_episodes": len(plan.parts),
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": layout.CHUNKS_SIZE,
        "data_files_size_in_mb": layout.DATA_FILE_MB,
        "video_files_size_in_mb": layout.VIDEO_FILE_MB,
        "splits": _splits(plan),
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if plan.videos else None,
        "features": plan.features,
    }


def _splits(plan: Plan) -> dict[str, str]:
    """The splits of info.json with the new numbers of their episodes."""
    (dataset, *others), everything = plan.datasets, {"train": f"0:{len(plan.parts)}"}
    if others:
        return everything
    numbers, splits = plan.numbers(dataset), {}
    for name, text in dict(dataset.info.get("splits") or {}).items():
        ends = re.fullmatch(r"(\d+):(\d+)", str(text))
        members = [numbers[index] for index in range(int(ends[1]), int(ends[2])) if index in numbers] if ends else []
        if members:
            splits[name] = f"{min(members)}:{max(members) + 1}"
    return splits or everything
