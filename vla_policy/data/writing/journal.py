"""The advisory lock of a dataset's writer, and removal of an interrupted writer's files.

A writer lists the files that it is about to create in a journal. The next writer deletes those of an episode that is
not in info.json, and no others: files that no episode references may be the user's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import IO

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.index import read_info
from vla_policy.data.format.layout import CHUNKS_SIZE
from vla_policy.interfaces import InputError
from vla_policy.utils.exchange import Exchange
from vla_policy.utils.files import TEMPORARY, read_json, sync, write_json
from vla_policy.utils.locks import lock_file

LOCK = ".lock"
JOURNAL = ".vla_policy.unfinished.json"
FOLDERS = ("meta", "data", "videos")
FILES = ("meta/episodes/*/*", "data/*/*", "videos/*/*/*")


def lock(root: Path) -> IO[str]:
    """Create the folder if needed and lock it until the returned file is closed or the process ends.

    Files of an interrupted writer or exchange are removed. `InputError` if another writer holds the lock or the folder
    contains something other than a dataset.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: expected a folder, found a file")
    exchange = Exchange(root.resolve())
    exchange.recover()
    _require_own(root)
    lock = lock_file(root / LOCK, "writer")
    try:
        exchange.clean()
        remove_unfinished(root)
        for path in chain(root.glob(f".*{TEMPORARY}"), *(root.glob(f"{name}/**/.*{TEMPORARY}") for name in FOLDERS)):
            path.unlink(missing_ok=True)
    except BaseException:
        lock.close()
        raise
    return lock


def mark_unfinished(root: Path, files: Sequence[Path], episodes: int) -> None:
    """Journal `files` as unfinished until info.json counts `episodes` episodes. Hold the lock."""
    names = [str(path.relative_to(root)) for path in files]
    write_json(root / JOURNAL, {"total_episodes": episodes, "files": names})
    sync(root)


def remove_unfinished(root: Path) -> None:
    """Remove the journal and the unfinished files that it lists. Hold the lock."""
    info = root / "meta" / "info.json"
    episodes, files = _read_journal(root)
    if not (info.exists() and read_info(root)["total_episodes"] >= episodes):
        for path in files:
            path.unlink(missing_ok=True)
    (root / JOURNAL).unlink(missing_ok=True)


def require_counted(dataset: LeRobotDataset) -> None:
    """`InputError` for an episode that info.json does not count and no journal marks as unfinished."""
    if dataset.uncounted is not None:
        raise InputError(
            f"{dataset.root / 'meta' / 'info.json'}: expected total_episodes and total_frames to count episode "
            f"{dataset.uncounted.index} in {dataset.uncounted.meta}, found {dataset.num_episodes} episodes; correct "
            "them or move the file away"
        )


def next_file(root: Path) -> int:
    """The first number, chunk * CHUNKS_SIZE + file, above those of all files of any kind."""
    names = (f"{path.parent.name}/{path.name.split('.')[0]}" for pattern in FILES for path in root.glob(pattern))
    taken = (re.fullmatch(r"chunk-(\d+)/file-(\d+)", name) for name in names)
    return 1 + max((int(found[1]) * CHUNKS_SIZE + int(found[2]) for found in taken if found), default=-1)


def _read_journal(root: Path) -> tuple[int, list[Path]]:
    """The number of episodes once the files are finished, and the files; `InputError` for other JSON."""
    path = root / JOURNAL
    if not path.exists():
        return 0, []
    match read_json(path):
        case {"total_episodes": int(episodes), "files": [*names]} if all(isinstance(name, str) for name in names):
            files = [root / name for name in names]
            if all(file.resolve().is_relative_to(root.resolve()) for file in files):
                return episodes, files
    raise InputError(f"{path}: expected total_episodes and files of the dataset, found something else")


def _require_own(root: Path) -> None:
    """`InputError` if the folder has no info.json, but files other than an interrupted writer's."""
    if (root / "meta" / "info.json").exists() or not root.is_dir():
        return
    own = {root / LOCK, root / JOURNAL, root / "meta", *_read_journal(root)[1]}
    foreign = [
        str(path.relative_to(root))
        for path in sorted({*root.iterdir(), *(root / "meta").glob("*")} - own)
        if not path.name.endswith(TEMPORARY)
    ]
    if foreign:
        raise InputError(f"{root}: expected a LeRobotDataset or an empty folder, found {foreign[:3]}")
