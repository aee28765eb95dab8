"""Intervals and tests for success rates and means; all intervals are two-sided, 95 % by default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

Interval = tuple[float, float]


def success_interval(n_success: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact (Clopper-Pearson) interval of a success rate."""
    interval = stats.binomtest(n_success, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The bootstrap (BCa, 9999 resamples) interval of a mean; (nan, nan) for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:  # nothing to resample; BCa would divide by zero
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(seed), batch=1000
    ).confidence_interval
    return float(interval.low), float(interval.high)


def balanced_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """The bootstrap (percentile, 9999 resamples of each group) interval of the mean of two groups' means."""
    rng = np.random.default_rng(seed)
    means = [rng.choice(np.asarray(group, float), (9999, len(group))).mean(axis=1) for group in (a, b)]
    low, high = np.quantile((means[0] + means[1]) / 2, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def auroc_interval(auroc: float, n_positive: int, n_negative: int, confidence: float = 0.95) -> Interval:
    """The interval of an AUROC that also holds at 0 and 1, where a bootstrap has no width.

    Newcombe (Stat. Med. 25:559, 2006, method 5): the score interval with Hanley and McNeil's variance. It assumes that
    positives and negatives are independent.
    """
    z, n = stats.norm.ppf(0.5 + confidence / 2), (n_positive + n_negative) / 2

    def too_far(value: float) -> float:
        """Negative while `value` is compatible with the observed AUROC."""
        spread = 1 + (n - 1) * ((1 - value) / (2 - value) + value / (1 + value))
        return (auroc - value) ** 2 - z**2 * value * (1 - value) * spread / (n_positive * n_negative)

    low = 0.0 if auroc == 0 else optimize.brentq(too_far, 0.0, min(auroc, 1 - 1e-9))  # the end is a root, too
    high = 1.0 if auroc == 1 else optimize.brentq(too_far, max(auroc, 1e-9), 1.0)
    return float(low), float(high)


@dataclass(frozen=True)
class PairedComparison:
    """Successes of A and B on the same n starts. `difference` is B's success rate minus A's."""

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    ci95: Interval
    p_value: float  # exact McNemar test of equal success rates


def compare_paired(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> PairedComparison:
    """Compare two runs over the same starts, in the same order."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    both, only_a = int((a & b).sum()), int((a & ~b).sum())
    only_b, neither = int((~a & b).sum()), int((~a & ~b).sum())
    discordant = only_a + only_b
    p_value = float(stats.binomtest(only_b, discordant).pvalue) if discordant else 1.0
    low, high = paired_difference_interval(both, only_b, only_a, neither)
    return PairedComparison(len(a), both, only_a, only_b, neither, (only_b - only_a) / len(a), (low, high), p_value)


def paired_difference_interval(both: int, first: int, second: int, neither: int, confidence: float = 0.95) -> Interval:
    """Newcombe's square-and-add interval of p_first - p_second for paired counts (Stat. Med. 17:2635, method 10).

    `first` counts the pairs in which only the first one succeeded, `second` those in which only the second one did.
    """
    n = both + first + second + neither
    n_first, n_second = both + first, both + second
    difference = (first - second) / n
    low1, high1 = _wilson(n_first, n, confidence)
    low2, high2 = _wilson(n_second, n, confidence)
    p1, p2 = n_first / n, n_second / n
    # phi, the correlation of the two outcomes; positive ones are corrected for continuity
    numerator = float(both * neither - first * second)
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    denominator = n_first * (n - n_first) * n_second * (n - n_second)
    phi = numerator / math.sqrt(denominator) if denominator else 0.0
    below = (p1 - low1) ** 2 - 2 * phi * (p1 - low1) * (high2 - p2) + (high2 - p2) ** 2
    above = (p2 - low2) ** 2 - 2 * phi * (p2 - low2) * (high1 - p1) + (high1 - p1) ** 2
    return difference - math.sqrt(max(below, 0.0)), difference + math.sqrt(max(above, 0.0))


def _wilson(n_success: int, n: int, confidence: float) -> Interval:
    interval = stats.binomtest(n_success, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
