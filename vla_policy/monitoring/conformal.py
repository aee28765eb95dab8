"""Conformal thresholds from few episodes, and their guarantees.

With n exchangeable calibration scores the ceil((n + 1)(1 - alpha))-th smallest is exceeded by a new one with
probability at most alpha (Vovk et al. 2005). Given one calibration, the realised rate is Beta(l, n + 1 - l) distributed
with l = floor((n + 1) alpha), so that false alarms among m new episodes are beta-binomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from vla_policy.interfaces import InputError

_ROUNDING = 1e-9  # tolerance for (n + 1) * alpha that should be an integer


class CalibrationError(InputError):
    """Scores from which no threshold can be found: too few of them, or some that are no finite numbers."""


def least_episodes(alpha: float) -> int:
    """Number of calibration episodes that a threshold at level `alpha` needs."""
    check_alpha(alpha)
    return math.ceil(1 / alpha - _ROUNDING) - 1


def conformal_threshold(scores: Sequence[float] | np.ndarray, alpha: float) -> float:
    """The threshold that a new episode's score exceeds with probability at most `alpha`.

    `CalibrationError` says how many more episodes are needed if there are too few, and which score is not a number.
    """
    scores = np.sort(np.asarray(scores, float))
    if not np.isfinite(scores).all():
        raise CalibrationError(f"calibration: expected finite scores, found {scores[~np.isfinite(scores)].tolist()}")
    n, least = len(scores), least_episodes(alpha)
    if n < least:
        raise CalibrationError(
            f"calibration: expected at least {least} successful episodes for alpha {alpha:g}, found {n}; "
            f"{least - n} more are needed"
        )
    return float(scores[math.ceil((n + 1) * (1 - alpha) - _ROUNDING) - 1])


def grouped_threshold(groups: Sequence[Sequence[float] | np.ndarray], alpha: float) -> float:
    """The threshold that a score of a new group exceeds with probability at most `alpha`.

    Scores of one group are alike, so that only the groups count as independent (Lee, Barber and Willett 2023, arXiv
    2306.06342): each has the same weight, and a new group's own is infinity's. The threshold is infinite where more
    scores are than `alpha` allows; `CalibrationError` for too few groups or a score that is not a number.
    """
    least = least_episodes(alpha)
    if len(groups) < least or any(len(group) == 0 for group in groups):
        raise CalibrationError(
            f"calibration: expected at least {least} groups of scores for alpha {alpha:g}, none of them empty, found "
            f"{[len(group) for group in groups]}"
        )
    scores = np.concatenate([np.asarray(group, float) for group in groups])
    if np.isnan(scores).any():
        raise CalibrationError("calibration: expected scores that are numbers, found NaN")
    weights = np.concatenate([np.full(len(group), 1 / (len(groups) + 1) / len(group)) for group in groups])
    order = np.argsort(scores)
    return float(scores[order][np.searchsorted(np.cumsum(weights[order]), 1 - alpha - _ROUNDING)])


def exceeding_rank(n: int, alpha: float) -> int:
    """l = floor((n + 1) alpha): how many of n + 1 scores may lie above the threshold."""
    return math.floor((n + 1) * alpha + _ROUNDING)


def false_alarm_spread(n: int, alpha: float, probability: float = 0.9) -> tuple[float, float]:
    """Expected false-alarm rate of a calibration with n episodes, and the rate `probability` of them stay below."""
    rank = exceeding_rank(n, alpha)
    return rank / (n + 1), float(stats.beta.ppf(probability, rank, n + 1 - rank))


def false_alarm_counts(n: int, alpha: float, episodes: int, confidence: float = 0.95) -> tuple[int, int]:
    """The central interval of the number of false alarms among `episodes` new ones, before the calibration is drawn."""
    rank = exceeding_rank(n, alpha)
    low, high = stats.betabinom.interval(confidence, episodes, rank, n + 1 - rank)
    return int(low), int(high)


def check_alpha(alpha: float) -> None:
    """`InputError` unless `alpha` is a probability between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected a probability between 0 and 1, found {alpha}")
