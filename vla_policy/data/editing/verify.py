"""Comparison of an edited dataset with its plan, before it takes a place."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.editing.build import Built, Progress
from vla_policy.data.editing.plan import Part, Plan
from vla_policy.data.editing.videos import COPIED, ENCODED
from vla_policy.data.format import video
from vla_policy.data.format.layout import VideoSpan
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.video import packets
from vla_policy.data.writing.compare import OPEN_FILES, Demux, rows_of, same_frames, same_rows
from vla_policy.interfaces import Failure

CLOSE = 16.0  # mean difference of pixels (0 to 255) of a frame and what a codec makes of it, at most
COUNTED = ("episode_index", "index", "task_index")  # columns that are made anew


def require_planned(plan: Plan, built: Built, new: LeRobotDataset, progress: Progress) -> None:
    """`Failure` naming the first new episode that is not what the plan says: other values or sentences, other frames.

    Frames that were not encoded anew are compared byte for byte, those behind a cut also decoded.
    """
    if new.episodes != list(range(len(plan.parts))):
        raise Failure(f"{new.root}: expected {len(plan.parts)} episodes, found {new.num_episodes}")
    read, demux = lru_cache(OPEN_FILES)(read_parquet), lru_cache(OPEN_FILES)(packets)
    for number, name in enumerate(progress([f"episode {number}" for number in range(len(plan.parts))])):
        part, path = plan.parts[number], new.records[number].data
        if list(new.episode(number, finite=False).tasks) != built.sentences[number]:
            raise Failure(f"{path}: expected the sentences of the plan in {name}, found others")
        old = part.dataset.records[part.index].data
        before, after = rows_of(read(old), part.index), rows_of(read(path), number)
        if odd := _other_column(plan, part, new, number, before, after):
            raise Failure(f"{path}: expected {odd!r} of {name} as in {old}, found other values")
        for key, clips in built.clips.items():
            spans = part.dataset.records[part.index].span(key), new.records[number].span(plan.videos[key])
            if not _is_same_video(demux, *spans, part, clips[number].how):
                raise Failure(f"{spans[1].path}: expected the frames of {name} in {spans[0].path}, found others")


def _other_column(plan: Plan, part: Part, new: LeRobotDataset, number: int, before: pa.Table, after: pa.Table) -> str:
    """The first column of an episode that is not as it was, "" if there is none."""
    old, now = (one.episode(i, finite=False).columns for one, i in ((part.dataset, part.index), (new, number)))
    for key in before.column_names:
        name = plan.name(key)
        if name is None or key in COUNTED:
            continue
        if key not in old:  # nothing that this package reads
            same = same_rows(before.select([key]).rename_columns([name]), after.select([name]))
        else:
            same = name in now and np.array_equal(old[key], now[name], equal_nan=old[key].dtype.kind == "f")
        if not same:
            return name
    return ""


def _is_same_video(demux: Demux, one: VideoSpan, two: VideoSpan, part: Part, how: str) -> bool:
    length, fps = part.dataset.length(part.index), part.dataset.fps
    if how == COPIED and one.path.samefile(two.path):  # a link
        return (one.start, one.stop) == (two.start, two.stop)
    if how != ENCODED and not same_frames(demux, one, two, length, fps):
        return False
    for frame in () if how == COPIED else (0, length - 1):
        old, now = (next(video.decode(span.path, span.start + frame / fps, 1, fps)) for span in (one, two))
        off = np.abs(old.astype(int) - now)
        if off.mean() > CLOSE if how == ENCODED else off.any():
            return False
    return True
