"""Frames decoded once: a camera's pictures of a whole dataset in one memory-mapped file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.files import TEMPORARY, read_json, reserve, write_json, write_whole
from vla_policy.data.quality import Finding, camera_findings, thumbnail
from vla_policy.interfaces import ACTION, STATE, InputError


@dataclass(frozen=True)
class FrameCache:
    """`frames` (N, H, W, 3) uint8 has all frames of the dataset in order; `findings` what was odd about them.

    `broken` maps episodes that could not be decoded to the reason; their frames are black.
    """

    frames: np.ndarray
    findings: list[Finding]
    broken: dict[int, str]


def open_cache(
    dataset: LeRobotDataset, key: str, episodes: Collection[int], cache_dir: str | Path | None = None
) -> FrameCache:
    """The frames of camera `key`, decoded first if the cache in `cache_dir` (`<root>/.cache`) lacks or outdates them.

    A process that finds another one decoding waits for it. `InputError` if one of `episodes` cannot be decoded; broken
    videos of other episodes do not matter.
    """
    for episode in episodes:
        dataset.records[episode].videos[key].known()
    folder = Path(cache_dir) if cache_dir is not None else dataset.root / ".cache"
    path = folder / f"{key}-{_fingerprint(dataset, key)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (path.exists() and path.with_suffix(".json").exists()):
                _build(dataset, key, episodes, path)
                if cache_dir is None:
                    _remove_outdated(path, key)
    except PermissionError:
        raise InputError(f"{folder}: expected a folder to decode videos into, found it read-only; name one") from None
    notes = read_json(path.with_suffix(".json"))
    broken = {int(episode): reason for episode, reason in notes["broken"].items()}
    for episode in sorted(set(episodes) & set(broken)):
        raise InputError(broken[episode])
    findings = [Finding(**finding) for finding in notes["findings"]]
    return FrameCache(np.load(path, mmap_mode="r"), findings, broken)


def _fingerprint(dataset: LeRobotDataset, key: str) -> str:
    spans = [(record.length, str(record.videos[key].path), record.videos[key].start) for record in dataset.records]
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in {Path(span[1]) for span in spans}]
    content = [dataset.fps, dataset.image_shape(key), [(n, Path(p).name, s) for n, p, s in spans], sorted(files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _build(dataset: LeRobotDataset, key: str, needed: Collection[int], path: Path) -> None:
    findings: list[Finding] = []
    broken: dict[int, str] = {}

    def fill(temporary: Path) -> None:
        shape = (dataset.num_frames, *dataset.image_shape(key))
        with open(temporary, "wb") as file:
            reserve(file, temporary.parent, int(np.prod(shape)) + 4096)
        frames = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        starts = np.cumsum(dataset.lengths) - dataset.lengths
        for episode in track(range(dataset.num_episodes), f"decoding {key}", disable=dataset.num_frames < 2000):
            try:
                findings.extend(_decode(dataset, key, episode, frames[starts[episode] :]))
            except InputError as error:
                if episode in needed:
                    raise
                broken[episode] = str(error)
        frames.flush()

    write_whole(path, fill)
    write_json(path.with_suffix(".json"), {"findings": [f.to_dict() for f in findings], "broken": broken})


def _decode(dataset: LeRobotDataset, key: str, episode: int, rows: np.ndarray) -> list[Finding]:
    thumbnails = []
    for row, frame in zip(rows, dataset.iter_frames(episode, key), strict=False):
        row[...] = frame
        thumbnails.append(thumbnail(frame))
    columns = dataset.episode(episode).columns
    return camera_findings(episode, key, thumbnails, dataset.fps, columns[STATE if STATE in columns else ACTION])


def _remove_outdated(path: Path, key: str) -> None:
    own = re.compile(rf"{re.escape(key)}-[0-9a-f]{{16}}\.(npy|json)")
    for other in path.parent.iterdir():
        if own.fullmatch(other.name) and other.stem != path.stem:
            other.unlink(missing_ok=True)
    for other in path.parent.glob(f".{key}-*{TEMPORARY}"):
        other.unlink(missing_ok=True)
