"""Equality of two datasets: every row of every column, and every encoded frame with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.layout import VideoSpan
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.video import packets
from vla_policy.interfaces import Failure

OPEN_FILES = 4  # of each kind; enough because episodes are compared in order

Demux = Callable[[Path], tuple[np.ndarray, list[bytes]]]  # `packets`, perhaps with a cache


def require_same(
    before: LeRobotDataset, after: LeRobotDataset, progress: Callable[[Sequence[str]], Iterable[str]] = iter
) -> None:
    """`Failure` naming the first episode that is not the same in both, apart from the files that contain it."""
    if not same_rows(_about(before), _about(after)):
        raise Failure(f"{after.root / 'meta' / 'episodes'}: expected the rows of {before.root}, found others")
    records = {f"episode {index}": record for index, record in before.records.items()}
    read, demux = lru_cache(OPEN_FILES)(read_parquet), lru_cache(OPEN_FILES)(packets)
    for name in progress(list(records)):
        one = records[name]
        two = after.records.get(one.index)
        if two is None or one.length != two.length or one.videos.keys() != two.videos.keys():
            raise Failure(f"{after.root}: expected {name} as in {before.root}, found {two}")
        if not same_rows(rows_of(read(one.data), one.index), rows_of(read(two.data), one.index)):
            raise Failure(f"{two.data}: expected the rows of {name} in {one.data}, found others")
        for key in one.videos:
            spans = one.span(key), two.span(key)
            if not same_frames(demux, *spans, one.length, before.fps):
                raise Failure(f"{spans[1].path}: expected the frames of {name} in {spans[0].path}, found others")


def _about(dataset: LeRobotDataset) -> pa.Table:
    """The table meta/episodes without file locations."""
    tables = [read_parquet(path) for path in dict.fromkeys(record.meta for record in dataset.records.values())]
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"episode_index": []})
    places = [name for name in rows.column_names if name.startswith(("data/", "videos/", "meta/episodes/"))]
    return rows.drop_columns(places).sort_by("episode_index")


def rows_of(table: pa.Table, index: int) -> pa.Table:
    """The rows of an episode in a data file's table."""
    return table.take(np.flatnonzero(table["episode_index"].to_numpy() == index))


def same_rows(one: pa.Table, two: pa.Table) -> bool:
    """Equality with NaN equal to NaN."""
    return one.equals(two) or (one.schema.equals(two.schema) and repr(one.to_pylist()) == repr(two.to_pylist()))


def same_frames(demux: Demux, one: VideoSpan, two: VideoSpan, length: int, fps: float) -> bool:
    """Whether two spans have the same `length` encoded frames, byte for byte, at the same times from their starts."""
    (times, digests), (others, others_digests) = (_frames(demux, span, length, fps) for span in (one, two))
    return digests == others_digests and bool((np.abs(times - others) * fps < 0.01).all())


def _frames(demux: Demux, span: VideoSpan, length: int, fps: float) -> tuple[np.ndarray, list[bytes]]:
    """Presentation times of a span's frames from its start [s], and their digests."""
    times, digests = demux(span.path)
    first, stop = np.searchsorted(times, span.start + (np.array([0, length]) - 0.5) / fps)
    return times[first:stop] - span.start, digests[first:stop]
