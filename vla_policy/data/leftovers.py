"""Who may write to a dataset, and what an interrupted writer left in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.files import TEMPORARY, Neighbours
from vla_policy.data.layout import CHUNKS_SIZE
from vla_policy.interfaces import InputError
from vla_policy.locks import only_one

LOCK = ".lock"


def lock(root: Path) -> IO[str]:
    """Make the folder if needed and keep other writers out until the returned file is closed or the process dies.

    `InputError` if another writer is at work or the folder holds something that is no dataset.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: expected a folder, found a file")
    if root.is_dir() and not (root / "meta" / "info.json").exists():
        foreign = sorted(path.name for path in root.iterdir() if path.name not in (LOCK, "meta"))
        if foreign:
            raise InputError(f"{root}: expected a LeRobotDataset or an empty folder, found {foreign[:3]}")
    Neighbours(root.resolve()).recover()
    return only_one(root / LOCK, "writer")


def remove_leftovers(dataset: LeRobotDataset) -> None:
    """Remove temporary files, unfinished rearrangements and an episode that never made it into info.json.

    Hold the lock.
    """
    known: set[Path] = set()
    for record in dataset.records:
        known |= {record.meta, record.data, *(span.path for span in record.videos.values())}
    for path in _files(dataset.root):
        if path not in known:
            path.unlink()
    Neighbours(dataset.root.resolve()).clean()
    for path in dataset.root.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def next_file(root: Path) -> int:
    """The first number, chunk * CHUNKS_SIZE + file, behind all that are taken."""
    numbers = (int(path.parent.name[-3:]) * CHUNKS_SIZE + int(path.stem[-3:]) for path in _files(root))
    return 1 + max(numbers, default=-1)


def _files(root: Path) -> Iterator[Path]:
    for pattern in ("meta/episodes/*/*.parquet", "data/*/*.parquet", "videos/*/*/*.mp4"):
        yield from root.glob(pattern)
