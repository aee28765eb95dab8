"""Encoding and decoding of mp4 with PyAV, which bundles ffmpeg.

yuv420p, a key frame every second frame, no B-frames and exact presentation times, as LeRobot does: random access
decodes at most two frames.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vla_policy.interfaces import InputError
from vla_policy.utils.files import broken

# Quality at which the coding error is about that of 4:2:0 chroma subsampling.
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "20", "preset": "8", "g": "2", "svtav1-params": "pred-struct=1"}),
}


def encode(path: Path, frames: Iterable[np.ndarray], shape: tuple[int, ...], fps: int, codec: str) -> int:
    """Write uint8 RGB frames of `shape` (H, W, 3) as an mp4 and return how many there were.

    `InputError` for a frame of another shape or dtype; the caller then removes the unfinished file.
    """
    encoder, options = ENCODERS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes its settings to stderr otherwise
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream(encoder, rate=fps, options=options))
        stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for frame in frames:
            frame = np.asarray(frame)
            if frame.shape != tuple(shape) or frame.dtype != np.uint8:
                raise InputError(f"frame {count}: expected uint8 {tuple(shape)}, found {frame.dtype} {frame.shape}")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = count, Fraction(1, fps)
            container.mux(stream.encode(picture.reformat(format="yuv420p", threads=1)))
            count += 1
        container.mux(stream.encode(None))
    return count


def decode(path: Path, start: float, length: int, fps: float) -> Iterator[np.ndarray]:
    """Yield the `length` frames (H, W, 3) uint8 RGB from `start` seconds on.

    `InputError` naming the file if it cannot be read, ends early, or a frame is more than half a period off its time.
    """
    count = 0
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start > 0 and stream.time_base:
            container.seek(int((start - 0.5 / fps) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is None:
                raise InputError(f"{path}: expected a time for every frame, found none for one after frame {count}")
            late = (frame.time - start) * fps - count
            if late < -0.5 and count == 0:
                continue  # from the preceding key frame to `start`
            if abs(late) > 0.5:
                at = start + count / fps
                raise InputError(f"{path}: expected frame {count} at {at:.4f} s, found one at {frame.time:.4f} s")
            yield frame.to_ndarray(format="rgb24", threads=1)
            count += 1
            if count == length:
                return
    if count < length:
        raise InputError(f"{path}: expected {length} frames from {start:g} s on, found {count}")


def merge_signature(path: Path) -> str:
    """A signature; videos with equal ones can be concatenated without re-encoding."""
    with _open(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        same = (codec.name, codec.width, codec.height, codec.pix_fmt, codec.extradata)
        alone = codec.has_b_frames or len(container.streams) > 1  # remux would drop the other streams
        return str((*same, path) if alone else same)


def packets(path: Path) -> tuple[np.ndarray, list[bytes]]:
    """Presentation times [s] of the encoded frames, sorted, and digests of their bytes."""
    with _open(path) as container:
        stream = container.streams.video[0]
        found = [
            (float(packet.pts * packet.time_base), hashlib.blake2b(bytes(packet), digest_size=16).digest())
            for packet in container.demux(stream)
            if packet.pts is not None and packet.time_base is not None
        ]
    found.sort()
    return np.array([time for time, _ in found]), [digest for _, digest in found]


def remux(path: Path, sources: Sequence[Path], fps: float) -> list[int]:
    """Concatenate the encoded frames of `sources`; returns the number of frames of each."""
    lengths: list[int] = []
    with av.open(str(path), "w", format="mp4") as out:
        merged: VideoStream | None = None
        for source in sources:
            with _open(source) as container:
                stream = container.streams.video[0]
                merged = merged or out.add_stream_from_template(stream, opaque=True)
                offset = Fraction(sum(lengths)) / Fraction(fps)
                lengths.append(0)
                for packet in container.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue  # the empty packet at the end
                    shift = round(offset / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, merged
                    out.mux(packet)
                    lengths[-1] += 1
    return lengths


class Span(NamedTuple):
    """`length` frames of a video from `start` seconds on."""

    start: float
    length: int


def obstacle(path: Path, spans: Sequence[Span], fps: float) -> str:
    """Why the frames of `spans`, in the order of the file, cannot be copied as they are encoded; "" if they can.

    They can where frames are stored in the order of their times, and each span that does not continue the one before
    it begins with a key frame. `InputError` if a span has another number of frames.
    """
    with _open(path) as container:
        stored = [
            (float(packet.pts * packet.time_base), packet.is_keyframe)
            for packet in container.demux(container.streams.video[0])
            if packet.pts is not None and packet.time_base is not None
        ]
    times = np.array([time for time, _ in stored])
    if (np.diff(times) <= 0).any():
        return "frames are not stored in the order of their times"
    last = 0
    for start, length in spans:
        first, end = np.searchsorted(times, start + (np.array([0, length]) - 0.5) / fps)
        if end - first != length:
            raise InputError(f"{path}: expected {length} frames from {start:g} s on, found {end - first}")
        if first != last and not stored[first][1]:
            return f"no key frame at {start:.4f} s"
        last = end
    return ""


def cut(path: Path, source: Path, spans: Sequence[Span], fps: float) -> None:
    """Copy the encoded frames of `spans`, one span behind the other; see `obstacle` for when that is exact."""
    starts, lengths = np.array([span.start for span in spans]), np.array([span.length for span in spans])
    moved = (np.cumsum(lengths) - lengths) / fps - starts
    first, end = starts - 0.5 / fps, starts + (lengths - 0.5) / fps
    with av.open(str(path), "w", format="mp4") as out, _open(source) as container:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream, opaque=True)
        for packet in container.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue  # the empty packet at the end
            time = float(packet.pts * packet.time_base)
            span = int(np.searchsorted(first, time, side="right")) - 1
            if span >= 0 and time < end[span]:
                shift = round(Fraction(moved[span]) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copied
                out.mux(packet)


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    """A video for reading; `InputError` naming the file if it is none."""
    with naming(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError(f"{path}: expected a video stream, found none")
        yield container


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Convert errors of reading a video to an `InputError` naming the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: expected a video, found none") from None
    except av.FFmpegError as error:
        raise InputError(f"{path}: expected a readable video, found {broken(path, error.strerror)}") from None


@dataclass(frozen=True)
class Header:
    """A video's number of `frames`, the first one's time `start` [s], and the total `duration` [s]."""

    frames: int
    start: float
    duration: float


def read_header(path: Path) -> Header:
    """Read without decoding; only files that do not declare their number of frames are read to the end."""
    with _open(path) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 0)
        duration = (container.duration or 0) / av.time_base if stream.duration is None else stream.duration * base
        frames = stream.frames or sum(packet.pts is not None for packet in container.demux(stream))
        return Header(frames, (stream.start_time or 0) * base, duration)
