"""The row of a chunk that is due now."""

from __future__ import annotations

import math

import numpy as np

from vla_policy.interfaces import ActionChunk

# Tolerance of rounding errors in t_obs + k dt, as a fraction of a step. Seconds since 1970 are rounded to 0.24 us,
# which is 1e-5 of a step at 42 Hz.
STEP_ROUNDING = 1e-4


class Timeline:
    """The chunk being executed, indexed by time: its row k is due from `t_obs + k dt` until the next row is.

    Times are in seconds. A late chunk is entered at the row that is due, not at its first.
    """

    def __init__(self) -> None:
        self.chunk: ActionChunk | None = None

    def clear(self) -> None:
        self.chunk = None

    def offer(self, chunk: ActionChunk, now: float) -> bool:
        """Execute `chunk` from now on; False, without an effect, if it is stale.

        A chunk is stale if its observation is older than that of the current one, or if its last row is over.
        """
        outdated = self.chunk is not None and chunk.t_obs < self.chunk.t_obs
        if outdated or row_at(chunk, now) >= len(chunk.actions):
            return False
        self.chunk = chunk
        return True

    def index(self, now: float) -> int | None:
        """The row due now; None before the first, after the last, and without a chunk."""
        if self.chunk is None:
            return None
        k = row_at(self.chunk, now)
        return k if 0 <= k < len(self.chunk.actions) else None

    def due(self, now: float) -> np.ndarray | None:
        """The action (D,) due now; None if there is none."""
        k = self.index(now)
        return None if k is None or self.chunk is None else self.chunk.actions[k]

    def ends(self, now: float) -> float | None:
        """The time at which the next row replaces the one due now; None if none is due."""
        k = self.index(now)
        return None if k is None or self.chunk is None else self.chunk.t_obs + (k + 1) * self.chunk.dt

    def ahead(self, now: float) -> np.ndarray:
        """What is reached one, two, ... steps after `now`, to the chunk's end, if nothing replaces it (n, D).

        A row is reached when its step ends; where `now` lies within a step, two rows are interpolated.
        """
        k = self.index(now)
        if k is None or self.chunk is None:
            return np.empty((0, 0))
        rows, part = self.chunk.actions[k:], (now - self.chunk.t_obs) / self.chunk.dt - k
        return rows if part <= STEP_ROUNDING else (1 - part) * rows[:-1] + part * rows[1:]


def row_at(chunk: ActionChunk, now: float) -> int:
    """Which row is due: below 0 before the first, beyond the chunk's length after the last."""
    return math.floor((now - chunk.t_obs) / chunk.dt + STEP_ROUNDING)
