"""Frames decoded on demand: slower than a frame cache, but without disk space."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.encoded_images import ImageCache
from vla_policy.data.format.video import naming
from vla_policy.interfaces import InputError

OPEN_VIDEOS = 16  # per camera, kept open between batches
NEAR = 8  # frames ahead up to which decoding on is preferred to seeking


class VideoFrames:
    """All frames of camera `key` in order, indexed by rows like the array (N, H, W, 3) uint8 of a `FrameCache`.

    `InputError` naming the file when a frame cannot be decoded.
    """

    def __init__(self, dataset: LeRobotDataset, key: str) -> None:
        self.shape = (dataset.num_frames, *dataset.image_shape(key))
        self._fps = dataset.fps
        self._key, self._records = key, list(dataset.records.values())
        self._starts = np.array([dataset.rows(index).start for index in dataset.episodes], np.int64)
        self._encoded = ImageCache(key, self.shape[1:]) if dataset.in_parquet(key) else None
        self._open: OrderedDict[Path, _Video] = OrderedDict()
        self._process = os.getpid()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Frames (*rows.shape, H, W, 3); each is decoded once, in the order of the videos."""
        wanted, places = np.unique(rows, return_inverse=True)
        frames = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for frame, row in zip(frames, wanted.tolist(), strict=True):
            frame[...] = self._frame(row)
        return frames[places.reshape(np.shape(rows))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _frame(self, row: int) -> np.ndarray:
        episode = int(np.searchsorted(self._starts, row, side="right")) - 1
        record, number = self._records[episode], row - int(self._starts[episode])
        if self._encoded is not None:
            return self._encoded.frame(record, number)
        span = record.span(self._key)
        frame = self._video(span.path).frame(span.start + number / self._fps)
        if frame.shape != self.shape[1:]:
            raise InputError(f"{span.path}: expected frames of shape {self.shape[1:]}, found {frame.shape}")
        return frame

    def _video(self, path: Path) -> _Video:
        if self._process != os.getpid():  # a forked loader must not share file positions with its parent
            self._open, self._process = OrderedDict(), os.getpid()
        if path not in self._open:
            if len(self._open) == OPEN_VIDEOS:
                self._open.popitem(last=False)
            self._open[path] = _Video(path, self._fps)
        self._open.move_to_end(path)
        return self._open[path]


class _Video:
    """An open video with its decoding position."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        with naming(path):
            self.container = av.open(str(path))
            self.stream = self.container.streams.video[0]
            self.stream.codec_context.thread_count = 1  # few frames per call; threads do not survive a fork
            self.decoded = self.container.decode(self.stream)
        self.shown = -np.inf  # time of the last returned frame, seconds

    def frame(self, time: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 RGB within half a period of `time` seconds."""
        with naming(self.path):
            if not 0.0 < time - self.shown < NEAR / self.fps:
                self._seek(time)
            found = self._next(time)
            if found is None or self._late(found, time):  # the key frame precedes `time` in storage but not in display
                self._seek(0.0)
                found = self._next(time)
            if found is None or self._late(found, time):
                seen = "the video's end" if found is None else f"one at {found.time:.4f} s"
                raise InputError(f"{self.path}: expected a frame at {time:.4f} s, found {seen}")
            self.shown = time
            return found.to_ndarray(format="rgb24", threads=1)

    def _seek(self, time: float) -> None:
        """Seek to the key frame at or before `time`."""
        assert self.stream.time_base is not None
        self.container.seek(int((time + 0.25 / self.fps) / self.stream.time_base), stream=self.stream)
        self.decoded = self.container.decode(self.stream)

    def _next(self, time: float) -> VideoFrame | None:
        """The next frame at `time` or later."""
        early = time - 0.5 / self.fps
        return next((frame for frame in self.decoded if frame.time is not None and frame.time >= early), None)

    def _late(self, frame: VideoFrame, time: float) -> bool:
        return frame.time is None or frame.time > time + 0.5 / self.fps
