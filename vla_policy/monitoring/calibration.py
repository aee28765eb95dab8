"""A calibrated threshold, bound to the models and the interface that it is valid for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vla_policy.interfaces import InputError, within
from vla_policy.monitoring.conformal import CalibrationError, check_alpha, conformal_threshold, least_episodes
from vla_policy.utils.files import read_json, write_json

FILE = "calibration.json"
SMALLEST_SCALE = 1e-12
SCALE_SHARE = 5  # one episode in five is used for mean, scale and whitening, with all its steps

T = TypeVar("T")


@dataclass(frozen=True)
class Calibration:
    """The standardised score (score - mean) / scale of a nominal successful episode exceeds `threshold` at some time
    with probability at most `alpha`.

    `episodes` successful ones gave the threshold, `episodes_scale` others mean and scale. `bound_to` has digests of
    what it is valid for (policy, world model, cameras and action space, control rate) by name.
    """

    detector: str
    alpha: float
    mean: float
    scale: float
    threshold: float
    episodes: int
    episodes_scale: int
    bound_to: Mapping[str, str]

    def standardise(self, score: float) -> float:
        return (score - self.mean) / self.scale

    def require(self, present: Mapping[str, str]) -> None:
        """`InputError` naming the first difference of `present` from `bound_to`."""
        for name, made_for in self.bound_to.items():
            if present.get(name) != made_for:
                raise InputError(
                    f"calibration: made for the {name} {made_for}, found {present.get(name)}; calibrate anew "
                    "(vla-calibrate)"
                )

    def save(self, folder: Path, **more: Any) -> None:
        """Write calibration.json into `folder`; `more` is stored beside it for information."""
        write_json(folder / FILE, {**asdict(self), **more})

    @classmethod
    def load(cls, folder: Path) -> tuple[Calibration, dict[str, Any]]:
        """The calibration in `folder` and its additional information; `InputError` names an invalid file."""
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder}: expected a folder with {FILE}, as vla-calibrate writes it, found none")
        stored = read_json(path)
        missing = [name for name in cls.__dataclass_fields__ if not isinstance(stored, dict) or name not in stored]
        if missing:
            raise InputError(f"{path}: expected a calibration, found a file without {missing}")
        fields = {name: stored.pop(name) for name in cls.__dataclass_fields__}
        with within(path):
            _check(fields)
        return cls(**fields), stored


def _check(fields: Mapping[str, Any]) -> None:
    numbers = [fields[name] for name in ("alpha", "mean", "scale", "threshold", "episodes", "episodes_scale")]
    if not all(isinstance(value, int | float) and abs(value) < math.inf for value in numbers) or not numbers[2] > 0:
        raise InputError(f"expected finite numbers and a scale above 0, found {fields}")
    check_alpha(fields["alpha"])
    if not isinstance(fields["detector"], str):
        raise InputError(f"detector: expected a word, found {fields['detector']!r}")
    if not isinstance(fields["bound_to"], dict):
        raise InputError(f"bound_to: expected digests by name, found {fields['bound_to']!r}")


def least_successes(alpha: float) -> int:
    """Number of successful episodes that a calibration needs, including those for mean and scale."""
    return math.ceil(least_episodes(alpha) * SCALE_SHARE / (SCALE_SHARE - 1))


def scale_episodes(episodes: Sequence[T]) -> Sequence[T]:
    """The episodes that `calibrate` does not use for the threshold: a score may be fitted on them."""
    return episodes[::SCALE_SHARE]


def calibrate(
    traces: Sequence[Sequence[float] | np.ndarray], alpha: float, detector: str, bound_to: Mapping[str, str]
) -> Calibration:
    """Calibrate on the scores over time of successful nominal episodes, one sequence each.

    One in five gives mean and scale of all its scores, the others the threshold of their highest standardised score:
    thresholds of single steps would not control the alarms of whole episodes. `CalibrationError` if there are too few
    episodes, or one without a score.
    """
    least = least_successes(alpha)
    if len(traces) < least:
        raise CalibrationError(
            f"calibration of {detector}: expected at least {least} successful episodes for alpha {alpha:g}, found "
            f"{len(traces)}; {least - len(traces)} more are needed"
        )
    clean = [np.asarray(trace, float) for trace in traces]
    for index, trace in enumerate(clean):
        if not len(trace) or not np.isfinite(trace).all():
            raise CalibrationError(
                f"calibration of {detector}: expected finite scores in every episode, found {trace} in episode {index}"
            )
    for_scale = scale_episodes(clean)
    for_threshold = [trace for index, trace in enumerate(clean) if index % SCALE_SHARE]
    pooled = np.concatenate(for_scale)
    mean, scale = float(pooled.mean()), max(float(pooled.std()), SMALLEST_SCALE)
    threshold = conformal_threshold([(trace.max() - mean) / scale for trace in for_threshold], alpha)
    return Calibration(detector, alpha, mean, scale, threshold, len(for_threshold), len(for_scale), dict(bound_to))
