"""Verification of episodes' spans in shared videos against the episodes' lengths.

In valid files an episode begins where its predecessor's frames end, to 1e-11 s. Otherwise a reader would silently show
images of a neighbouring episode, so such spans are corrected if the file determines them uniquely, and refused if not.
Spans that are consistent, but not in the order of the episodes' indices, are used with a warning.
Only headers of shared files are read, nothing is decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vla_policy.data.format.findings import Finding, listed
from vla_policy.data.format.layout import EpisodeRecord, VideoSpan
from vla_policy.data.format.video import Header, read_header
from vla_policy.interfaces import InputError

SECONDS = 1e-4  # LeRobot's own tolerance for the time of a frame
RATE = 2e-6  # relative; 30000/1001 is often declared as 29.97
FRAMES = 0.01  # tolerance of a whole number of frames


def locate(records: Sequence[EpisodeRecord], fps: float) -> tuple[list[EpisodeRecord], list[Finding]]:
    """The records with verified spans, and findings on those that were corrected, refused, or are in an unusual order.

    Unreliable spans have a `VideoSpan.problem`. Files that cannot be opened fail when they are read.
    """
    files = defaultdict(list)
    for place, record in enumerate(records):
        for key, span in record.videos.items():
            files[key, span.path].append(place)
    videos = [dict(record.videos) for record in records]
    findings = []
    for (key, path), places in files.items():
        spans = [videos[place][key] for place in places]
        if len(spans) == 1 and spans[0].start == 0.0:
            continue
        try:
            header = read_header(path)
        except InputError:
            continue
        video = _SharedVideo([records[place] for place in places], spans, header, key, fps)
        located, finding = video.locate()
        finding = finding or video.order_finding()
        findings += [finding] if finding else []
        for place, span in zip(places, located, strict=True):
            videos[place][key] = span
    return [replace(record, videos=spans) for record, spans in zip(records, videos, strict=True)], findings


class _SharedVideo:
    """One video of camera `key` and its episodes, ordered by index."""

    def __init__(
        self, records: Sequence[EpisodeRecord], spans: Sequence[VideoSpan], header: Header, key: str, fps: float
    ) -> None:
        self.records, self.spans, self.header, self.key, self.fps = records, spans, header, key, fps
        self.lengths = np.array([record.length for record in records])
        self.total = int(self.lengths.sum())
        self.starts = np.array([span.start for span in spans])
        self.frames = np.array([(span.stop - span.start) * fps for span in spans])  # frames by the spans
        self.order = np.argsort(self.starts, kind="stable")  # the order in the file may differ
        self.before = np.cumsum(self.lengths) - self.lengths

    def locate(self) -> tuple[list[VideoSpan], Finding | None]:
        header, starts, lengths = self.header, self.starts[self.order], self.lengths[self.order]
        before = np.cumsum(lengths) - lengths
        if abs(header.start) * self.fps < 0.5 and _near(starts, before / self.fps).all():
            if max(header.frames, header.duration * self.fps) > self.total - 0.5:
                return list(self.spans), None
            return self._refused()
        exact = 0 < header.frames == self.total
        if exact and _near(starts, header.start + before * header.duration / header.frames).all():
            return list(self.spans), None
        steady = abs(header.duration * self.fps - header.frames) < 0.25
        if exact and steady and (np.diff(self.starts) >= 0).all():
            return self._from_lengths()
        if steady and not exact and self._lie_apart():
            return self._with_gaps()
        return self._refused()

    def order_finding(self) -> Finding | None:
        """A warning if the spans are not in the order of the episodes' indices: they may have been swapped."""
        inversions = np.flatnonzero(np.diff(self.order) < 0)
        if not len(inversions):
            return None
        moved = np.flatnonzero(self.order != np.arange(len(self.order)))
        indices = listed([self.records[place].index for place in moved.tolist()])
        first, second = (self.records[self.order[place]].index for place in (inversions[0], inversions[0] + 1))
        return Finding(
            first,
            self.key,
            f"{self.spans[0].path}: expected episodes in the order of their indices, found episode {first} before "
            f"episode {second} by from_timestamp (out of order: {indices}), read as declared",
        )

    def _from_lengths(self) -> tuple[list[VideoSpan], Finding]:
        """Spans from the lengths: the file has exactly its episodes' frames."""
        starts = self.header.start + self.before / self.fps
        stops = starts + self.lengths / self.fps
        spans = [
            replace(span, start=start, stop=stop)
            for span, start, stop in zip(self.spans, starts.tolist(), stops.tolist(), strict=True)
        ]
        return spans, self._finding(f"the lengths are used: the file has exactly the frames of {self._episodes()}")

    def _lie_apart(self) -> bool:
        """Whether the spans are disjoint intervals of whole frames of the file."""
        first = (self.starts - self.header.start) * self.fps
        whole = all((np.abs(values - values.round()) < FRAMES).all() for values in (first, self.frames))
        edges = np.stack([first, first + self.frames], 1)[self.order].ravel()
        edges = np.concatenate([[0.0], edges, [self.header.frames]])
        return bool(whole and (np.diff(edges) > -FRAMES).all())

    def _with_gaps(self) -> tuple[list[VideoSpan], Finding]:
        """Spans as declared: the file has extra or missing frames, and the spans are disjoint."""
        spans = []
        for record, span, frames in zip(self.records, self.spans, self.frames, strict=True):
            lacks = f"{span.path}: expected {record.length} frames of episode {record.index}, found {frames:.0f}"
            spans.append(replace(span, problem=lacks if frames < record.length - 0.5 else ""))
        return spans, self._finding("from_timestamp and to_timestamp are used: they divide the file without overlap")

    def _refused(self) -> tuple[list[VideoSpan], Finding]:
        finding = self._finding("the positions of the episodes in the file are ambiguous")
        return [replace(span, problem=finding.message) for span in self.spans], finding

    def _finding(self, conclusion: str) -> Finding:
        """The first wrong span of the file, or its number of frames."""
        expected = self.header.start + self.before / self.fps
        off = np.flatnonzero(~_near(self.starts, expected))
        wrong = int(off[0]) if len(off) else 0
        index, path = self.records[wrong].index, self.spans[wrong].path
        if len(off):
            what = (
                f"expected from_timestamp {expected[wrong]:.4f} of episode {index}, where the frames before it end, "
                f"found {self.starts[wrong]:.4f}"
            )
        else:
            what = f"expected {self.total} frames of {self._episodes()}, found {self.header.frames}"
        return Finding(index, self.key, f"{path}: {what}; {conclusion}")

    def _episodes(self) -> str:
        indices = [record.index for record in self.records]
        return f"episodes {indices[0]} to {indices[-1]}" if len(indices) > 1 else f"episode {indices[0]}"


def _near(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    near: np.ndarray = np.isclose(found, expected, rtol=RATE, atol=SECONDS)
    return near
