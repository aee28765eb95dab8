"""Replacement of a dataset by one that is built beside it: a kill at any moment leaves the old or the new one whole."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format import layout
from vla_policy.data.format.layout import EpisodeRecord
from vla_policy.data.format.parquet import read_parquet
from vla_policy.interfaces import InputError
from vla_policy.utils.exchange import Exchange, link
from vla_policy.utils.files import sync


@contextmanager
def replaced(root: Path, old: Collection[Path]) -> Iterator[Path]:
    """A folder that takes the place of `root`, a resolved path, once the block has filled it; hold the lock.

    It begins with all files of `root` but `old`, those that the block writes anew; these are deleted at the end.
    An exception leaves `root` as it is.
    """
    exchange = Exchange(root)
    exchange.begin(old)
    try:
        _copy_rest(root, exchange.building, old)
        yield exchange.building
        _sync_folders(root, exchange.building)
    except BaseException:
        exchange.clean()
        raise
    exchange.swap()


def episode_files(record: EpisodeRecord) -> list[Path]:
    """All files that contain something of an episode."""
    return [record.meta, record.data, *(span.path for span in record.videos.values())]


def require_accounted(
    dataset: LeRobotDataset, episodes: Collection[int] | None = None, cameras: Collection[str] | None = None
) -> None:
    """`InputError` unless every row of the data files of `episodes` (default: all) belongs to an episode that
    references it, and their videos of `cameras` (default: those of the first one) are known.
    """
    records = [record for record in dataset.records.values() if episodes is None or record.index in episodes]
    for record in records:
        wanted = records[0].videos if cameras is None else cameras
        if cameras is None and record.videos.keys() != records[0].videos.keys():
            raise InputError(f"{record.meta}: expected videos of {sorted(wanted)}, found {sorted(record.videos)}")
        for key in wanted:
            record.span(key)
        for path in episode_files(record):
            if path.parent.resolve() != path.parent:
                raise InputError(f"{path.parent}: expected a folder of the dataset, found a link out of it")
    lengths: dict[Path, dict[int, int]] = defaultdict(dict)
    for record in dataset.records.values():
        lengths[record.data][record.index] = record.length
    for path in dict.fromkeys(record.data for record in records):
        _require_rows(path, lengths[path])


def free_numbers(out: Path, template: str, key: str = "", first: int = 0) -> Iterator[int]:
    """Unused file numbers, chunk * CHUNKS_SIZE + file, from `first` on."""
    for number in range(first, layout.CHUNKS_SIZE**2):
        if not os.path.lexists(out / template.format(video_key=key, **file_place(number))):
            yield number


def file_place(number: int) -> dict[str, int]:
    """Chunk and file of a file number, by the names that path templates have for them."""
    chunk, file = divmod(number, layout.CHUNKS_SIZE)
    return {"chunk_index": chunk, "file_index": file}


def _require_rows(path: Path, expected: dict[int, int]) -> None:
    table = read_parquet(path, keep="episode_index".__eq__)
    if not table.num_columns:
        raise InputError(f"{path}: expected a column 'episode_index', found none")
    indices, counts = np.unique(table["episode_index"].to_numpy(), return_counts=True)
    found = dict(zip(indices.tolist(), counts.tolist(), strict=True))
    for index in sorted({*expected, *found}):
        if found.get(index, 0) != expected.get(index, 0):
            raise InputError(
                f"{path}: expected {expected.get(index, 0)} rows of episode {index}, as in meta/episodes, found "
                f"{found.get(index, 0)}"
            )


def _copy_rest(root: Path, out: Path, old: Iterable[Path]) -> None:
    """Link all files but the `old` ones, foreign files included."""
    without = set(old)
    for folder, folders, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        if not folders and not files:
            (out / inside).mkdir(parents=True, exist_ok=True)
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path not in without and (path.is_symlink() or not path.is_dir()):
                link(path, out / inside / name)


def _sync_folders(root: Path, out: Path) -> None:
    """Sync all folders, with the permissions of the original ones."""
    for folder, _, _ in os.walk(out):
        before = root / Path(folder).relative_to(out)
        if before.is_dir():
            shutil.copystat(before, folder)
        sync(Path(folder))
