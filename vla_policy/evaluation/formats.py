"""Numbers as text and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data import files
from vla_policy.evaluation.statistics import success_interval


def success_rate(successes: Sequence[bool]) -> dict[str, Any]:
    """Number, rate and exact interval of the successes."""
    n, n_success = len(successes), sum(successes)
    ci95 = success_interval(n_success, n)
    return {"n": n, "n_success": n_success, "success_rate": n_success / n, "success_ci95": ci95}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; numbers that are not finite become null."""
    files.write_json(path, _finite(data))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def interval(low_high: Sequence[float | None], scale: float = 1.0, digits: int = 3) -> str:
    low, high = low_high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
