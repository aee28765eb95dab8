"""Rates, percentages and intervals, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vla_policy.evaluation.statistics import success_interval


def success_rate(successes: Sequence[bool]) -> dict[str, Any]:
    """Number, rate and exact interval of the successes."""
    n, n_success = len(successes), sum(successes)
    ci95 = success_interval(n_success, n)
    return {"n": n, "n_success": n_success, "success_rate": n_success / n, "success_ci95": ci95}


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def interval(low_high: Sequence[float | None], scale: float = 1.0, digits: int = 3) -> str:
    low, high = low_high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
