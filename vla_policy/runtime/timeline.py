"""Which step of which chunk is due now."""

from __future__ import annotations

import math

import numpy as np

from vla_policy.interfaces import ActionChunk

# Step k counts from t_obs + k dt; sums of floats may fall short of it by some rounding errors (a fraction of a step).
# Seconds since 1970 are rounded to 0.24 us, which is 1e-5 of a step at 42 Hz.
_ROUNDING = 1e-4


class Timeline:
    """The chunk being played, indexed by time: its row k is due from `t_obs + k dt` until the next row is.

    Times are in seconds. A chunk that was computed late is entered at the row that is due, not at its first.
    """

    def __init__(self) -> None:
        self.chunk: ActionChunk | None = None

    def clear(self) -> None:
        self.chunk = None

    def offer(self, chunk: ActionChunk, now: float) -> bool:
        """Play `chunk` from now on. A stale one changes nothing and returns False.

        Stale is a chunk made from an older observation than the one being played, or one that is over already.
        """
        outdated = self.chunk is not None and chunk.t_obs < self.chunk.t_obs
        if outdated or _index(chunk, now) >= len(chunk.actions):
            return False
        self.chunk = chunk
        return True

    def index(self, now: float) -> int | None:
        """The row due now; None before the first, after the last, and without a chunk."""
        if self.chunk is None:
            return None
        k = _index(self.chunk, now)
        return k if 0 <= k < len(self.chunk.actions) else None

    def due(self, now: float) -> np.ndarray | None:
        """The action (D,) due now, or None when there is none to play."""
        k = self.index(now)
        return None if k is None or self.chunk is None else self.chunk.actions[k]

    def ends(self, now: float) -> float | None:
        """When the row due now gives way to the next one; None when there is none to play."""
        k = self.index(now)
        return None if k is None or self.chunk is None else self.chunk.t_obs + (k + 1) * self.chunk.dt


def _index(chunk: ActionChunk, now: float) -> int:
    return math.floor((now - chunk.t_obs) / chunk.dt + _ROUNDING)
