"""Rolling latency percentiles."""

from __future__ import annotations

from collections import deque

import numpy as np

from vla_policy.utils.percentiles import percentiles


class Timing:
    """The latest `size` durations in seconds, summarised in milliseconds."""

    def __init__(self, size: int = 1000) -> None:
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def summary(self) -> dict[str, float]:
        """`percentiles` in milliseconds; only n without measurements."""
        found = percentiles(1e3 * np.array(self._seconds))
        return {name: value for name, value in found.items() if value is not None}
