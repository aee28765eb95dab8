"""The videos of an edited dataset: whole files are copied, parts of files cut where that is exact, else encoded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from vla_policy.data.editing.plan import Part, Plan
from vla_policy.data.format import layout, video
from vla_policy.data.format.findings import listed
from vla_policy.data.format.layout import VideoSpan
from vla_policy.data.format.video import Span
from vla_policy.data.writing.replace import file_place, free_numbers
from vla_policy.interfaces import InputError
from vla_policy.utils.files import write_whole

COPIED, CUT, ENCODED = "copied", "cut", "encoded"


@dataclass(frozen=True)
class Clip:
    """Where a new episode's video is, in file number `file`, and how it came there."""

    file: int
    span: VideoSpan
    how: str


def write_videos(
    plan: Plan, key: str, out: Path, copy: Callable[[Path, Path], object], say: Callable[[str], None]
) -> list[Clip]:
    """Write the videos of the feature `key` to the folder `out`; the clip of each new episode.

    `copy` copies a file. What has to be encoded although nobody asked for it is told to `say`.
    """
    episodes: dict[Path, list[int]] = defaultdict(list)  # their numbers, by the video that has them
    for number, part in enumerate(plan.parts):
        episodes[_span(part, key).path].append(number)
    records = (record for dataset in plan.datasets for record in dataset.records.values() if key in record.videos)
    everything = Counter(record.videos[key].path for record in records)
    clips: dict[int, Clip] = {}
    files = free_numbers(out, layout.VIDEO_PATH, plan.videos[key])
    for file, (source, numbers) in zip(files, episodes.items(), strict=False):
        path = out / layout.VIDEO_PATH.format(video_key=plan.videos[key], **file_place(file))
        if not plan.is_encoded(key) and len(numbers) == everything[source]:
            copy(source.resolve(), path)
            clips |= {number: Clip(file, _at(path, _span(plan.parts[number], key)), COPIED) for number in numbers}
        else:
            clips |= _write_some(plan, key, path, file, numbers, say)
    return [clips[number] for number in range(len(plan.parts))]


def _span(part: Part, key: str) -> VideoSpan:
    return part.dataset.records[part.index].span(key)


def _at(path: Path, span: VideoSpan) -> VideoSpan:
    return VideoSpan(path, span.start, span.stop)


def _write_some(
    plan: Plan, key: str, path: Path, file: int, numbers: Sequence[int], say: Callable[[str], None]
) -> dict[int, Clip]:
    """Write the frames of some episodes of a video, in its own order, one behind the other."""
    ordered = sorted(numbers, key=lambda number: _span(plan.parts[number], key).start)
    parts = [plan.parts[number] for number in ordered]
    spans = [Span(_span(part, key).start, part.dataset.length(part.index)) for part in parts]
    source, fps = _span(parts[0], key).path, parts[0].dataset.fps
    obstacle = "" if plan.is_encoded(key) else video.obstacle(source, spans, fps)
    if plan.is_encoded(key) or obstacle:
        if obstacle:
            indices = listed([part.index for part in parts])
            say(f"{source}: the frames of episodes {indices} are encoded anew, because of: {obstacle}")
        _encode(plan, key, path, parts)
        how = ENCODED
    else:
        write_whole(path, lambda temporary: video.cut(temporary, source, spans, fps))
        how = CUT
    lengths = np.array([span.length for span in spans])
    starts, stops = (np.cumsum(lengths) - lengths) / fps, np.cumsum(lengths) / fps
    return {
        number: Clip(file, VideoSpan(path, start, stop), how)
        for number, start, stop in zip(ordered, starts.tolist(), stops.tolist(), strict=True)
    }


def _encode(plan: Plan, key: str, path: Path, parts: Sequence[Part]) -> None:
    dataset = parts[0].dataset
    declared = dataset.features[key].get("info") or {}
    codec = plan.codec or declared.get("video.codec", "h264")
    if codec not in video.ENCODERS:
        known = sorted(video.ENCODERS)
        raise InputError(
            f"{dataset.root}: {key!r}: expected a codec out of {known}, to encode a part of a video that cannot be "
            f"cut, found {codec!r}; vla-dataset reencode changes it"
        )
    shape, fps = dataset.image_shape(key), dataset.fps
    if shape[0] % 2 or shape[1] % 2 or fps != int(fps):
        found = f"{shape[0]} x {shape[1]} at {fps:g} Hz"
        raise InputError(f"{dataset.root}: {key!r}: expected an even size and a whole rate to encode, found {found}")

    def frames() -> Iterator[np.ndarray]:
        return chain.from_iterable(dataset.iter_frames(part.index, key) for part in parts)

    write_whole(path, lambda temporary: video.encode(temporary, frames(), shape, int(fps), codec))
