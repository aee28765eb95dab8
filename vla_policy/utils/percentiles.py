"""Percentiles of measured values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def percentiles(values: ArrayLike) -> dict[str, Any]:
    """The number `n` of values (N,), their `p50`, `p95`, `p99` and `max` in the same unit; these are None for N = 0."""
    found = np.asarray(values, float)
    numbers = np.percentile(found, [50, 95, 99, 100]).tolist() if len(found) else [None] * 4
    return {"n": len(found), **dict(zip(("p50", "p95", "p99", "max"), numbers, strict=True))}
