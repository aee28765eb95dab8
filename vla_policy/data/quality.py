"""Checks of readable but suspicious recordings: black and frozen images, constant channels, irregular times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_policy.data.format.findings import Finding
from vla_policy.data.format.layout import BOOKKEEPING

GRID = 16  # blocks along each side of a thumbnail
BLACK = 8.0  # upper bound of the block brightness (0 to 255) of a black frame
STILL = 2.0  # upper bound of the change in block brightness (0 to 255) between equal frames, for codec noise
FROZEN_SECONDS = 2.0
IRREGULAR = 1e-3  # seconds


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Mean brightness of the blocks of a frame (H, W, 3) uint8: (GRID, GRID) float32 in 0..255."""
    step = max(1, min(frame.shape[:2]) // 256)
    grey = frame[::step, ::step, 1].astype(np.float32) if min(frame.shape[:2]) >= GRID else np.zeros((GRID, GRID))
    height, width = grey.shape[0] // GRID, grey.shape[1] // GRID
    blocks = grey[: height * GRID, : width * GRID].reshape(GRID, height, GRID, width)
    means: np.ndarray = blocks.mean((1, 3), dtype=np.float32)
    return means


def camera_findings(
    episode: int, key: str, thumbnails: Sequence[np.ndarray], fps: float, motion: np.ndarray
) -> list[Finding]:
    """Black and frozen intervals of a camera; `motion` (T, D) are values that change when the image should."""
    brightness = np.asarray(thumbnails)
    found = []
    black = brightness.max((1, 2)) < BLACK
    if black.any():
        found.append(Finding(episode, key, f"black in {int(black.sum())} of {len(black)} frames"))
    still = np.abs(np.diff(brightness, axis=0)).max((1, 2)) < STILL
    still[1:-1] |= still[:-2] & still[2:]  # ignore single changes, which codecs introduce
    start, stop = _longest_run(still)
    middle = (start + stop) // 2
    still_there = np.abs(brightness[[middle, stop]] - brightness[start]).max() < 3 * STILL  # excludes slow motion
    moved = np.ptp(motion[start : stop + 1], axis=0) > 0.1 * np.maximum(np.ptp(motion, axis=0), 1e-6)
    long = stop - start >= FROZEN_SECONDS * fps and bool(moved.any())
    if not black.all() and len(still) and still_there and (long or stop - start == len(still)):
        found.append(Finding(episode, key, f"frozen from frame {start} to {stop} of {len(black)}"))
    return found


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Start and stop (exclusive) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if len(starts) == 0:
        return 0, 0
    longest = int((stops - starts).argmax())
    return int(starts[longest]), int(stops[longest])


@dataclass
class ColumnCheck:
    """Collects warnings about the vectors of successive episodes."""

    fps: float
    episodes: int = 0
    found: list[Finding] = field(default_factory=list)
    _constant: dict[tuple[str, int], list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, index: int, columns: dict[str, np.ndarray] | Any) -> None:
        """Check the columns {key: (T, D) or (T,)} of one episode."""
        self.episodes += 1
        self.found += [Finding(index, "timestamp", message) for message in _timestamps(columns, self.fps)]
        for key, values in columns.items():
            if key in BOOKKEEPING or len(values) < 2:
                continue
            flat = values.reshape(len(values), -1)
            if not flat.any():
                self.found.append(Finding(index, key, "all zero"))
            else:
                for channel in np.flatnonzero((flat == flat[0]).all(0)):
                    self._constant[key, int(channel)].append((index, float(flat[0, channel])))

    def findings(self) -> list[Finding]:
        """All warnings; a channel with one constant in all episodes gives a single one."""
        found = list(self.found)
        for (key, channel), where in self._constant.items():
            if len(where) == self.episodes > 1 and len({value for _, value in where}) == 1:
                found.append(Finding(None, key, f"channel {channel} is always {where[0][1]:g}"))
            else:
                found += [Finding(i, key, f"channel {channel} is constant at {value:g}") for i, value in where]
        return found


def _timestamps(columns: dict[str, np.ndarray], fps: float) -> Iterable[str]:
    steps = np.diff(np.asarray(columns["timestamp"], np.float64))
    odd = np.flatnonzero(np.abs(steps - 1 / fps) > IRREGULAR)
    if len(odd):
        yield (
            f"{len(odd)} of {len(steps)} steps are not {1000 / fps:.1f} ms (median {1000 * np.median(steps):.1f} ms, "
            f"largest {1000 * steps.max():.1f} ms, first at frame {odd[0]})"
        )
    if not np.array_equal(columns["frame_index"], np.arange(len(columns["frame_index"]))):
        yield "frame_index does not count 0, 1, 2, ..."
