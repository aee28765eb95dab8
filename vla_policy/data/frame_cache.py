"""Cache of decoded frames: all images of a camera in one memory-mapped file."""

from __future__ import annotations

import errno
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
from vla_policy.data.format.findings import Finding
from vla_policy.data.quality import camera_findings, thumbnail
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.utils.files import TEMPORARY, read_json, reserve, write_json, write_whole

LARGE = 2**30  # bytes; for larger caches the first image is checked before space is allocated


@dataclass(frozen=True)
class FrameCache:
    """`frames` (N, H, W, 3) uint8 are all frames of the dataset in order; `findings` are warnings about them.

    `broken` maps episodes that could not be decoded to the reason; their frames are black.
    """

    frames: np.ndarray
    findings: list[Finding]
    broken: dict[int, str]


def open_cache(
    dataset: LeRobotDataset, key: str, episodes: Collection[int], cache_dir: str | Path | None = None
) -> FrameCache:
    """The frames of camera `key`, decoded first if the cache in `cache_dir` (`<root>/.cache`) is missing or stale.

    Waits if another process is decoding. `InputError` if one of `episodes` cannot be decoded; corrupt videos of other
    episodes are ignored.
    """
    for record in dataset.records.values():
        if record.index in episodes and key in record.videos and record.videos[key].problem:
            raise _unreadable(record.index, record.videos[key].problem)
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
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise InputError(
            f"{folder}: expected a folder to decode videos into, found it read-only; name one with data.cache_dir="
        ) from None
    notes = read_json(path.with_suffix(".json"))
    broken = {int(episode): reason for episode, reason in notes["broken"].items()}
    for episode in sorted(set(episodes) & set(broken)):
        raise _unreadable(episode, broken[episode])
    findings = [Finding.from_dict(finding) for finding in notes["findings"]]
    return FrameCache(np.load(path, mmap_mode="r"), findings, broken)


def _fingerprint(dataset: LeRobotDataset, key: str) -> str:
    spans: list[tuple[int, Path, float]] = []  # of the episodes in the videos, or in data files by their index
    for record in dataset.records.values():
        if dataset.in_parquet(key):
            spans.append((record.length, record.data, record.index))
        elif key in record.videos:
            spans.append((record.length, record.videos[key].path, record.videos[key].start))
    stats = {path: path.stat() for path in {path for _, path, _ in spans} if path.exists()}
    files = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()]
    content = [dataset.fps, dataset.image_shape(key), [(n, p.name, s) for n, p, s in spans], sorted(files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _build(dataset: LeRobotDataset, key: str, needed: Collection[int], path: Path) -> None:
    findings: list[Finding] = []
    broken: dict[int, str] = {}

    def fill(temporary: Path) -> None:
        shape = (dataset.num_frames, *dataset.image_shape(key))
        if np.prod(shape, dtype=float) > LARGE:
            _check_first_image(dataset, key, needed)
        with open(temporary, "wb") as file:
            reserve(file, temporary.parent, int(np.prod(shape)) + 4096)
        frames = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for episode in track(dataset.episodes, f"decoding {key}", disable=dataset.num_frames < 2000):
            try:
                findings.extend(_decode(dataset, key, episode, frames[dataset.rows(episode)]))
            except InputError as error:
                if episode in needed:
                    raise _unreadable(episode, str(error)) from None
                broken[episode] = str(error)
        frames.flush()

    write_whole(path, fill)
    write_json(path.with_suffix(".json"), {"findings": [f.to_dict() for f in findings], "broken": broken})


def _unreadable(episode: int, reason: str) -> InputError:
    return InputError(f"episode {episode}: {reason}; data.exclude_episodes=[{episode}] leaves it out")


def _check_first_image(dataset: LeRobotDataset, key: str, episodes: Collection[int]) -> None:
    """`InputError` if the first image does not have the declared size, before disk space is allocated."""
    for episode in episodes:
        if dataset.length(episode):
            next(dataset.iter_frames(episode, key))
            return


def _decode(dataset: LeRobotDataset, key: str, episode: int, rows: np.ndarray) -> list[Finding]:
    thumbnails = []
    for row, frame in zip(rows, dataset.iter_frames(episode, key), strict=True):
        row[...] = frame
        thumbnails.append(thumbnail(frame))
    if not thumbnails:
        return []
    columns = dataset.episode(episode).columns
    return camera_findings(episode, key, thumbnails, dataset.fps, columns[STATE if STATE in columns else ACTION])


def _remove_outdated(path: Path, key: str) -> None:
    own = re.compile(rf"{re.escape(key)}-[0-9a-f]{{16}}\.(npy|json)")
    for other in path.parent.iterdir():
        if own.fullmatch(other.name) and other.stem != path.stem:
            other.unlink(missing_ok=True)
    for other in path.parent.glob(f".{key}-*{TEMPORARY}"):
        other.unlink(missing_ok=True)
