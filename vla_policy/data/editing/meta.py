"""The metadata of an edited dataset: episode records, sentences, info.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.editing.plan import Plan
from vla_policy.data.editing.videos import Clip
from vla_policy.data.format import layout
from vla_policy.data.format.parquet import read_parquet, write_parquet
from vla_policy.data.format.stats import Stats, merge_stats, to_lists
from vla_policy.data.writing import metadata
from vla_policy.data.writing.replace import file_place, free_numbers
from vla_policy.utils.files import read_json_lines, write_json

TASK_COLUMNS = ("task_index", "task", "__index_level_0__")  # of meta/tasks.parquet
ANEW = ("data/", "videos/", "meta/episodes/", "stats/", "dataset_")  # columns of meta/episodes that are made anew


class Records:
    """The records of the new dataset's episodes, in order, with what their old ones say beyond LeRobot's format."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.frames = 0
        self.stats: dict[str, Stats] = {}  # of all episodes
        self._rows: list[dict[str, Any]] = []
        self._extras = {dataset: read_extras(dataset) for dataset in plan.datasets}

    def add(self, sentences: Sequence[str], file: int, clips: Mapping[str, Clip], stats: Mapping[str, Stats]) -> None:
        """The next episode: its sentence of each frame, its data file, its clip of each video by the old name."""
        part, length = self.plan.parts[len(self._rows)], len(sentences)
        row = {**self._extras[part.dataset].get(part.index, {}), "episode_index": len(self._rows)}
        row |= {"tasks": list(dict.fromkeys(sentences)), "length": length}
        row |= {f"data/{name}": value for name, value in file_place(file).items()}
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + length}
        for key, clip in clips.items():
            place = {**file_place(clip.file), "from_timestamp": clip.span.start, "to_timestamp": clip.span.stop}
            row |= {f"videos/{self.plan.videos[key]}/{name}": value for name, value in place.items()}
        for key, values in to_lists(stats).items():
            row |= {f"stats/{key}/{name}": value for name, value in values.items()}
        self._rows.append(row)
        self.frames += length
        self.stats |= merge_stats(self.stats, stats)

    def write(self, out: Path, tasks: list[str]) -> None:
        """Write `meta/` but for what this package stores beside LeRobot's format."""
        number = next(free_numbers(out, layout.EPISODES_PATH))
        rows = [row | {f"meta/episodes/{name}": n for name, n in file_place(number).items()} for row in self._rows]
        names = dict.fromkeys(name for row in rows for name in row)
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
        write_parquet(out / layout.EPISODES_PATH.format(**file_place(number)), table)
        metadata.write_tasks(out, tasks, _more_of(self.plan.datasets[0], tasks))
        write_json(out / "meta" / "stats.json", to_lists(self.stats))
        write_json(out / "meta" / "info.json", _info(self.plan, len(tasks), self.frames))


def read_extras(dataset: LeRobotDataset) -> dict[int, dict[str, Any]]:
    """By episode what its record says beyond LeRobot's format."""
    if dataset.info["codebase_version"] == "v2.1":
        rows = read_json_lines(dataset.root / "meta" / "episodes.jsonl")
    else:
        files = dict.fromkeys(record.meta for record in dataset.records.values())
        rows = [row for path in files for row in read_parquet(path, _is_extra).to_pylist()]
    return {row["episode_index"]: row for row in rows}


def _more_of(dataset: LeRobotDataset, tasks: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """What the dataset's table of sentences says of `tasks` beyond LeRobot's format; nothing of others."""
    path = dataset.root / "meta" / "tasks.parquet"
    if dataset.info["codebase_version"] == "v2.1":
        return {}
    table = read_parquet(path)
    numbers = {number: row for row, number in enumerate(table["task_index"].to_pylist())}
    rows = {task: numbers[number] for number, task in enumerate(dataset.tasks) if number in numbers}
    chosen = pa.array([rows.get(task) for task in tasks], pa.int64())
    return {name: table[name].take(chosen) for name in table.column_names if name not in TASK_COLUMNS}


def _is_extra(name: str) -> bool:
    return not name.startswith(ANEW)


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
        members = [new for old, new in numbers.items() if ends and int(ends[1]) <= old < int(ends[2])]
        if members:
            splits[name] = f"{min(members)}:{max(members) + 1}"
    return splits or everything
