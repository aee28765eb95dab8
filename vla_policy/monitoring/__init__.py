"""Anomaly detection: surprise scores, their calibration, and the streaming `Monitor`.

No torch: the world model is passed in (`LatentModel`). One `update` per control period, constant memory.
"""

from vla_policy.monitoring.calibration import Calibration, calibrate, least_successes, scale_episodes
from vla_policy.monitoring.conformal import (
    CalibrationError,
    conformal_threshold,
    false_alarm_counts,
    false_alarm_spread,
    grouped_threshold,
)
from vla_policy.monitoring.monitor import Monitor, Surprise
from vla_policy.monitoring.scores import (
    ChunkInconsistency,
    ImaginedStates,
    LatentModel,
    PixelDifference,
    PredictionError,
    Score,
    Stillness,
)
from vla_policy.monitoring.whitening import fit_whitening

__all__ = [
    "Calibration",
    "CalibrationError",
    "ChunkInconsistency",
    "ImaginedStates",
    "LatentModel",
    "Monitor",
    "PixelDifference",
    "PredictionError",
    "Score",
    "Stillness",
    "Surprise",
    "calibrate",
    "conformal_threshold",
    "false_alarm_counts",
    "false_alarm_spread",
    "fit_whitening",
    "grouped_threshold",
    "least_successes",
    "scale_episodes",
]
