"""The percentiles of what was measured lately."""

from __future__ import annotations

from collections import deque

import numpy as np


class Timing:
    """The last `size` durations in seconds, summarised in milliseconds."""

    def __init__(self, size: int = 1000) -> None:
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def summary(self) -> dict[str, float]:
        """p50, p95, p99 and the largest in milliseconds, and n; only n if nothing was measured."""
        found: dict[str, float] = {"n": len(self._seconds)}
        if self._seconds:
            p50, p95, p99, most = (1e3 * np.percentile(self._seconds, [50, 95, 99, 100])).tolist()
            found |= {"p50": p50, "p95": p95, "p99": p99, "max": most}
        return found
