"""Equality of two datasets: every row of every column, and every encoded frame with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.layout import EpisodeRecord
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.video import packets
from vla_policy.interfaces import Failure

OPEN_FILES = 4  # of each kind; enough because episodes are compared in order


def require_same(
    before: LeRobotDataset, after: LeRobotDataset, progress: Callable[[Sequence[str]], Iterable[str]] = iter
) -> None:
    """`Failure` naming the first episode that is not the same in both, apart from the files that contain it."""
    if not _same_rows(_about(before), _about(after)):
        raise Failure(f"{after.root / 'meta' / 'episodes'}: expected the rows of {before.root}, found others")
    records = {f"episode {index}": record for index, record in before.records.items()}
    read, demux = lru_cache(OPEN_FILES)(read_parquet), lru_cache(OPEN_FILES)(packets)
    for name in progress(list(records)):
        one = records[name]
        two = after.records.get(one.index)
        if two is None or one.length != two.length or one.videos.keys() != two.videos.keys():
            raise Failure(f"{after.root}: expected {name} as in {before.root}, found {two}")
        if not _same_rows(_rows(read(one.data), one.index), _rows(read(two.data), one.index)):
            raise Failure(f"{two.data}: expected the rows of {name} in {one.data}, found others")
        for key in one.videos:
            if not _same_frames(_frames(demux, one, key, before.fps), _frames(demux, two, key, after.fps), after.fps):
                paths = one.videos[key].path, two.videos[key].path
                raise Failure(f"{paths[1]}: expected the frames of {name} in {paths[0]}, found others")


def _about(dataset: LeRobotDataset) -> pa.Table:
    """The table meta/episodes without file locations."""
    tables = [read_parquet(path) for path in dict.fromkeys(record.meta for record in dataset.records.values())]
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"episode_index": []})
    places = [name for name in rows.column_names if name.startswith(("data/", "videos/", "meta/episodes/"))]
    return rows.drop_columns(places).sort_by("episode_index")


def _rows(table: pa.Table, index: int) -> pa.Table:
    return table.take(np.flatnonzero(table["episode_index"].to_numpy() == index))


def _same_rows(one: pa.Table, two: pa.Table) -> bool:
    """Equality with NaN equal to NaN."""
    return one.equals(two) or (one.schema.equals(two.schema) and repr(one.to_pylist()) == repr(two.to_pylist()))


def _frames(
    demux: Callable[[Path], tuple[np.ndarray, list[bytes]]], record: EpisodeRecord, key: str, fps: float
) -> tuple[np.ndarray, list[bytes]]:
    """Presentation times of an episode's frames from its start [s], and their digests."""
    span = record.span(key)
    times, digests = demux(span.path)
    first, stop = np.searchsorted(times, span.start + (np.array([0, record.length]) - 0.5) / fps)
    return times[first:stop] - span.start, digests[first:stop]


def _same_frames(one: tuple[np.ndarray, list[bytes]], two: tuple[np.ndarray, list[bytes]], fps: float) -> bool:
    return one[1] == two[1] and bool((np.abs(one[0] - two[0]) * fps < 0.01).all())
