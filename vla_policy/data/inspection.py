"""The report of `vla-dataset info` as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format import video
from vla_policy.data.format.findings import Finding
from vla_policy.data.format.layout import BOOKKEEPING
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.stats import ImageStats, Stats, merge_stats, vector_stats
from vla_policy.data.quality import ColumnCheck, camera_findings, thumbnail
from vla_policy.interfaces import ACTION, STATE, InputError


def inspect(
    dataset: LeRobotDataset, videos: bool = True, progress: Callable[[list[int]], Iterable[int]] = iter
) -> dict[str, Any]:
    """Counts, ranges of every feature and `warnings`; opens every file, videos only if `videos`.

    Intended for datasets opened with `strict=False`: unreadable files become warnings.
    """
    check = ColumnCheck(dataset.fps)
    stats: dict[str, Stats] = {}
    missing = dataset.missing_files(dataset.interface.cameras)
    found = [*dataset.problems, *_oddities(dataset), *missing, *dataset.span_findings, *_counts(dataset, videos)]
    cameras = dataset.interface.cameras if videos else []
    absent = {(finding.episode, finding.key) for finding in missing}
    task_frames = dict.fromkeys(dataset.tasks, 0)
    for index in progress(dataset.episodes):
        motion = None
        try:
            episode = dataset.episode(index)
            columns = episode.columns
            for task in episode.tasks:
                task_frames[task] += 1
            motion = columns[STATE if STATE in columns else ACTION]
            check.add(index, columns)
            vectors = {key: vector_stats(values) for key, values in columns.items() if key not in BOOKKEEPING}
            stats = stats | merge_stats(stats, vectors)
        except InputError as error:
            if (index, "data") not in absent:
                found.append(Finding(index, "data", str(error)))
        for key in cameras:
            if (index, key) in absent:
                continue
            watch = ImageStats()
            thumbnails: list[np.ndarray] = []
            try:
                thumbnails += [thumbnail(frame) for frame in watch.watch(dataset.iter_frames(index, key))]
            except InputError as error:
                found.append(Finding(index, key, str(error)))
            if thumbnails:
                still = np.zeros((len(thumbnails), 1)) if motion is None else motion
                found += camera_findings(index, key, thumbnails, dataset.fps, still)
                stats = stats | merge_stats(stats, {key: watch.result()})
    lengths = [record.length for record in dataset.records.values()]
    takeovers = _takeovers(dataset, found)
    return {
        "root": str(dataset.root),
        "version": dataset.info["codebase_version"],
        "robot_type": dataset.info.get("robot_type") or "",
        "fps": dataset.fps,
        "frame": dataset.interface.frame,
        "interface": dataset.interface.digest(),
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "seconds": dataset.num_frames / dataset.fps,
        "lengths": {"min": min(lengths, default=0), "max": max(lengths, default=0)},
        "tasks": dataset.tasks,
        "task_frames": task_frames,
        "interventions": {"takeovers": len(takeovers), "frames": sum(last - first for first, last in takeovers)},
        "features": {
            key: _feature(dataset, key, stats.get(key))
            for key in dataset.features
            if key not in BOOKKEEPING and key not in dataset.left_out
        },
        "warnings": [finding.to_dict() for finding in found + check.findings()],
    }


def _feature(dataset: LeRobotDataset, key: str, stats: Stats | None) -> dict[str, Any]:
    entry = dataset.features[key]
    declared = dataset.interface.observations.get(key, dataset.interface.action if key == ACTION else None)
    about = {"dtype": entry["dtype"], "shape": list(declared.shape if declared else entry["shape"])}
    if declared and declared.dtype != "image":
        about |= {"names": list(declared.names), "units": list(declared.units)}
    elif entry["dtype"] == "video" and isinstance(entry.get("info"), Mapping):
        about |= {"codec": entry["info"].get("video.codec", "")}
    ranges = {name: np.ravel(stats[name]).tolist() for name in ("min", "max", "mean", "std")} if stats else {}
    return about | ranges


def _oddities(dataset: LeRobotDataset) -> Iterator[Finding]:
    for key, why in dataset.left_out.items():
        yield Finding(None, key, f"left out: {why}")
    for before, after in pairwise([-1, *dataset.episodes]):
        if after > before + 1:
            yield Finding(None, "meta", f"no episode {before + 1}" + (f" to {after - 1}" if after > before + 2 else ""))


def _takeovers(dataset: LeRobotDataset, found: list[Finding]) -> list[tuple[int, int]]:
    """The recorded takeovers of all episodes; marks that cannot be read are added to `found`."""
    try:
        return [span for spans in dataset.interventions.values() for span in spans]
    except InputError as error:
        found.append(Finding(None, "interventions", str(error)))
        return []


def _counts(dataset: LeRobotDataset, videos: bool) -> Iterator[Finding]:
    """Files with more rows or frames than their episodes; missing ones are found on reading."""
    expected: dict[tuple[str, Any], list[int]] = {}
    for record in dataset.records.values():
        expected.setdefault(("data", record.data), []).append(record.index)
        for key, span in record.videos.items():
            if videos and key in dataset.interface.cameras:
                expected.setdefault((key, span.path), []).append(record.index)
    lengths = {index: record.length for index, record in dataset.records.items()}
    for (key, path), episodes in expected.items():
        length = sum(lengths[index] for index in episodes)
        alone = episodes[0] if len(episodes) == 1 else None
        try:
            if key != "data":
                count = video.read_header(path).frames
            else:
                table = read_parquet(path, keep=lambda name: name == "episode_index" or name not in dataset.features)
                count = table.num_rows
                for name in sorted(set(table.column_names) - set(dataset.features)):
                    yield Finding(alone, name, f"column of {path} that info.json does not declare")
        except InputError:
            continue  # reported when the episode is read
        if count > length:
            what = "rows" if key == "data" else "frames"
            yield Finding(alone, key, f"{path}: expected {length} {what}, found {count}")
