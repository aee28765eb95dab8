"""Percentiles of measured values."""

from __future__ import annotations

import numpy as np

from vla_policy.utils.percentiles import percentiles


def test_percentiles_of_values_and_of_none() -> None:
    assert percentiles(np.arange(101.0)) == {"n": 101, "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert percentiles([3, 1]) == {"n": 2, "p50": 2.0, "p95": 2.9, "p99": 2.98, "max": 3.0}
    assert percentiles([]) == {"n": 0, "p50": None, "p95": None, "p99": None, "max": None}
