"""How well scores detect events: true and false positive rates with exact intervals, AUROC, delays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from vla_policy.evaluation.statistics import auroc_interval, balanced_interval, success_interval
from vla_policy.evaluation.surprise.traces import Trace
from vla_policy.monitoring import Calibration
from vla_policy.utils.percentiles import percentiles


@dataclass(frozen=True)
class Scored:
    """A trace and one detector's standardised score at each observation; -inf where it is undefined."""

    trace: Trace
    scores: np.ndarray

    def first_alarm(self, threshold: float, begin: int = 0, end: int | None = None) -> int | None:
        """The first observation from `begin` to before `end` whose score is above the threshold."""
        above = np.flatnonzero(self.scores[begin:end] > threshold)
        return begin + int(above[0]) if len(above) else None


def standardised(trace: Trace, scores: np.ndarray, calibration: Calibration) -> Scored:
    values = (scores - calibration.mean) / calibration.scale
    return Scored(trace, np.where(np.isnan(values), -np.inf, values))


def without_nan(scores: np.ndarray) -> np.ndarray:
    """An episode's scores, without undefined ones."""
    return scores[~np.isnan(scores)]


def false_alarms(nominal: Sequence[Scored], threshold: float) -> dict[str, Any]:
    """Successful nominal episodes with an alarm at any time."""
    successes = [s for s in nominal if s.trace.success]
    count = sum(s.first_alarm(threshold) is not None for s in successes)
    return {"n": len(successes), "false_alarms": count, "ci95": success_interval(count, len(successes))}


def event_detection(
    disturbed: Sequence[Scored], nominal: Sequence[Scored], threshold: float, window: int
) -> dict[str, Any]:
    """Detection within `window` observations from the first one that the event changed.

    An earlier alarm is no detection. A delay of 1 is an alarm at the first changed observation, one control step after
    the event began. For the AUROC each disturbed episode is paired with the nominal one of the same seed: the
    highest scores over the same observations, as many as both have.
    """
    happened = [s for s in disturbed if s.trace.event_step is not None]
    delays = [delay for s in happened if (delay := _delay(s, threshold, window)) is not None]
    nominal_by_seed = {s.trace.seed: s for s in nominal}
    pairs = [_highest(s, nominal_by_seed[s.trace.seed], window) for s in happened if s.trace.seed in nominal_by_seed]
    found = [pair for pair in pairs if pair is not None]
    delay_steps = percentiles(delays)
    n, area = len(happened), auroc([a for a, _ in found], [b for _, b in found])
    return {
        "n": n,
        "detected": len(delays),
        "tpr": len(delays) / n if n else None,
        "tpr_ci95": success_interval(len(delays), n) if n else (None, None),
        "alarms_before": sum(s.first_alarm(threshold, 0, _begin(s)) is not None for s in happened),
        "auroc": area,
        "auroc_ci95": (None, None) if area is None else auroc_interval(area, len(found), len(found)),
        "auroc_pairs": len(found),
        "delay_steps_p50": delay_steps["p50"],
        "delay_steps_p95": delay_steps["p95"],
        "within_2_steps": sum(delay <= 2 for delay in delays),
    }


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Probability that a positive score is above a negative one, ties counting half."""
    if not len(positive) or not len(negative):
        return None
    wins = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(wins / (len(positive) * len(negative)))


def failure_prediction(nominal: Sequence[Scored], threshold: float) -> dict[str, Any]:
    """An alarm at any time predicts that the undisturbed policy will fail.

    Failures last longer than successes, so that even noise scores above one half here. `balanced_accuracy` is the mean
    of the share of failures with an alarm and of successes without one; `time_weighted_accuracy` weights an alarm in a
    failure by 1 - its time / the episode's length (FIPER).
    """
    failures = [s for s in nominal if not s.trace.success]
    successes = [s for s in nominal if s.trace.success]
    alarms = [s.first_alarm(threshold) for s in failures]
    quiet = [s.first_alarm(threshold) is None for s in successes]
    if not failures or not successes:
        return {"failures": len(failures), "successes": len(successes), "balanced_accuracy": None}
    early = [0.0 if a is None else 1 - a / s.trace.steps for a, s in zip(alarms, failures, strict=True)]
    predicted = [a is not None for a in alarms]
    tpr, tnr = float(np.mean(predicted)), float(np.mean(quiet))
    return {
        "failures": len(failures),
        "successes": len(successes),
        "tpr": tpr,
        "tnr": tnr,
        "balanced_accuracy": (tpr + tnr) / 2,
        "balanced_accuracy_ci95": balanced_interval(predicted, quiet),
        "time_weighted_accuracy": (float(np.mean(early)) + tnr) / 2,
        "time_weighted_accuracy_ci95": balanced_interval(early, quiet),
    }


def _begin(scored: Scored) -> int:
    assert scored.trace.event_step is not None
    return scored.trace.event_step + 1


def _delay(scored: Scored, threshold: float, window: int) -> int | None:
    begin = _begin(scored)
    if scored.first_alarm(threshold, 0, begin) is not None:
        return None
    alarm = scored.first_alarm(threshold, begin, begin + window)
    return None if alarm is None else alarm - begin + 1


def _highest(disturbed: Scored, nominal: Scored, window: int) -> tuple[float, float] | None:
    begin = _begin(disturbed)
    end = min(begin + window, len(disturbed.scores), len(nominal.scores))
    if end <= begin:
        return None
    return float(disturbed.scores[begin:end].max()), float(nominal.scores[begin:end].max())
