"""The videos of an edited dataset: whole files are copied, parts of files cut where that is exact, else encoded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    plan: Plan, key: str, out: Path, first: int, copy: Callable[[Path, Path], object], say: Callable[[str], None]
) -> list[Clip]:
    """Write the videos of the feature `key` to `out`, in files numbered from `first` on; the clip of each new episode.

    `copy` copies a file. What has to be encoded although nobody asked for it is told to `say`.
    """
    episodes: dict[Path, list[int]] = defaultdict(list)  # their numbers, by the video that has them
    for number, part in enumerate(plan.parts):
        episodes[_span(part, key).path].append(number)
    records = (record for dataset in plan.datasets for record in dataset.records.values() if key in record.videos)
    everything = Counter(record.videos[key].path for record in records)
    clips: dict[int, Clip] = {}
    files = _files(out, plan.videos[key], first)
    for source, numbers in episodes.items():
        whole = len(numbers) == everything[source]
        obstacle = "" if whole or plan.is_encoded(key) else _obstacle(plan, key, numbers)
        if obstacle:
            indices = listed([plan.parts[number].index for number in numbers])
            say(f"{source}: the frames of episodes {indices} are encoded anew, because of: {obstacle}")
        if obstacle or plan.is_encoded(key):
            for number in numbers:
                clips[number] = _encode(plan, key, plan.parts[number], *next(files))
        elif whole:
            file, path = next(files)
            copy(source.resolve(), path)
            clips |= {number: Clip(file, _at(path, _span(plan.parts[number], key)), COPIED) for number in numbers}
        else:
            clips |= _cut(plan, key, numbers, *next(files))
    return [clips[number] for number in range(len(plan.parts))]


def _files(out: Path, name: str, first: int) -> Iterator[tuple[int, Path]]:
    """Unused numbers of video files, and their paths."""
    for file in free_numbers(out, layout.VIDEO_PATH, name, first):
        yield file, out / layout.VIDEO_PATH.format(video_key=name, **file_place(file))


def _span(part: Part, key: str) -> VideoSpan:
    return part.dataset.records[part.index].span(key)


def _at(path: Path, span: VideoSpan) -> VideoSpan:
    return VideoSpan(path, span.start, span.stop)


def _frames(plan: Plan, key: str, numbers: Sequence[int]) -> dict[int, Span]:
    """Where the frames of new episodes are in the video that has them, in its order."""
    spans = {number: _span(plan.parts[number], key) for number in numbers}
    ordered = sorted(numbers, key=lambda number: spans[number].start)
    return {n: Span(spans[n].start, plan.parts[n].dataset.length(plan.parts[n].index)) for n in ordered}


def _obstacle(plan: Plan, key: str, numbers: Sequence[int]) -> str:
    """Why the frames of new episodes cannot be cut out of the video that has them, "" if they can."""
    part = plan.parts[numbers[0]]
    return video.obstacle(_span(part, key).path, list(_frames(plan, key, numbers).values()), part.dataset.fps)


def _cut(plan: Plan, key: str, numbers: Sequence[int], file: int, path: Path) -> dict[int, Clip]:
    """Write the encoded frames of some episodes of a video, one behind the other."""
    spans, part = _frames(plan, key, numbers), plan.parts[numbers[0]]
    source, fps = _span(part, key).path, part.dataset.fps
    write_whole(path, lambda temporary: video.cut(temporary, source, list(spans.values()), fps))
    ends = np.cumsum([span.length for span in spans.values()])
    return {
        number: Clip(file, VideoSpan(path, (end - span.length) / fps, end / fps), CUT)
        for (number, span), end in zip(spans.items(), ends.tolist(), strict=True)
    }


def _encode(plan: Plan, key: str, part: Part, file: int, path: Path) -> Clip:
    """Write the frames of an episode to a video of its own, which thus begins with a key frame."""
    dataset, length = part.dataset, part.dataset.length(part.index)
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
    frames = dataset.iter_frames(part.index, key)
    write_whole(path, lambda temporary: video.encode(temporary, frames, shape, int(fps), codec))
    return Clip(file, VideoSpan(path, 0.0, length / fps), ENCODED)
