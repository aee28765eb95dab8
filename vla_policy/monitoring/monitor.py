"""The streaming monitor: compares observations with the world model's predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_policy.interfaces import ActionChunk, DataError, Observation
from vla_policy.monitoring.calibration import Calibration
from vla_policy.monitoring.scores import Score


@dataclass(frozen=True)
class Surprise:
    """`score` is standardised by the calibration; `since` is the time stamp (seconds) at which the current alarm began,
    None without one. `reason` is "" unless the alarm has another cause than a high score.
    """

    score: float
    threshold: float
    is_surprised: bool
    since: float | None
    reason: str = ""


class Monitor:
    """One arm's monitor. Call `update` once a control period, `reset` at the start of an episode.

    Missing or malformed images, commands that are not finite or change their length, and a NaN score raise an alarm
    themselves and reset the score, since frames before and after are no longer one period apart. Constant memory.
    """

    def __init__(self, score: Score, calibration: Calibration) -> None:
        self.score, self.calibration = score, calibration
        self.reset()

    def reset(self) -> None:
        self.score.reset()
        self._since: float | None = None
        self._channels: int | None = None

    def update(
        self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None = None
    ) -> Surprise:
        """The decision for the newest observation.

        `command` (A,) was executed during the control period that ended with it; None at a start or after a gap.
        """
        reason = self._fault(observation, command)
        value: float | None = None
        if not reason:
            try:
                value = self.score.update(observation, command, chunk)
            except DataError as error:
                reason = str(error)
        if value is not None and not np.isfinite(value):
            reason = f"the score is {value}"
        if reason:
            self.score.reset()
            return self._decide(np.inf, observation.t, reason)
        return self._decide(-np.inf if value is None else self.calibration.standardise(value), observation.t, "")

    def _fault(self, observation: Observation, command: np.ndarray | None) -> str:
        for key in self.score.cameras:
            image = observation.values.get(key)
            if image is None:
                return f"no image of {key}"
            if np.asarray(image).dtype != np.uint8:
                return f"{key}: expected uint8 pixels, found {np.asarray(image).dtype}"
        if command is not None:
            self._channels = self._channels or len(command)
            if len(command) != self._channels:
                return f"the command has {len(command)} channels, the ones before had {self._channels}"
            if not np.isfinite(command).all():
                return f"the command is not finite: {np.asarray(command).tolist()}"
        return ""

    def _decide(self, score: float, t: float, reason: str) -> Surprise:
        surprised = score > self.calibration.threshold
        if not surprised:
            self._since = None
        elif self._since is None:
            self._since = t
        return Surprise(score, self.calibration.threshold, surprised, self._since, reason)
