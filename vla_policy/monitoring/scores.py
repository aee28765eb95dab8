"""Scores of surprise, one number a control period: the world model's prediction error, and what it has to beat.

A score sees, once a control period, the newest observation, the command that left the limits during the period that
ended with it, and the policy's newest chunk. It says None while it has not seen enough. Higher is more surprising.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vla_policy.interfaces import ActionChunk, InputError, Observation

STILL = 20  # observations, two seconds of PushT: successful policies rest for shorter times


class LatentModel(Protocol):
    """What a score needs of a world model; a step of the model is `frame_skip` control periods."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it looks at."""

    @property
    def history(self) -> int:
        """Latents that a prediction is made from."""

    @property
    def frame_skip(self) -> int:
        """Control periods between them."""

    def encode(self, observation: Observation) -> np.ndarray:
        """The latent (D,) of what the cameras show; asked twice about one observation, it computes once."""
        ...

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """The latent (D,) after latents (T, D) one step apart, oldest first, and the commands (T, frame_skip, A) given
        from each of them on; T up to `history`.
        """
        ...


class Score(Protocol):
    """Surprise as one number for each observation, of what came before it in the episode."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it looks at."""

    def reset(self) -> None:
        """Forget everything, at the start of an episode."""

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        """The score now; `command` (A,) is None at a beginning and after a gap, `chunk` where there is none."""
        ...


class PredictionError:
    """Mean squared error of the latent that was predicted for now, one model step ago, from the commands since; with a
    whitening, of the whitened error (`fit_whitening`): its squared Mahalanobis distance over D.

    The prediction is made anew every control period, from frames `frame_skip` periods apart, so that an event is seen
    at the first observation that it changes. It echoes: until `history * frame_skip` periods later predictions are
    still made from a history that lies partly before it. Early in an episode the history is shorter.
    """

    def __init__(self, model: LatentModel, whitening: np.ndarray | None = None) -> None:
        """`whitening` (history, D, D), one for each number of latents that a prediction may be made from."""
        self.model, self.cameras, self._whitening = model, model.cameras, whitening
        self._length = model.history * model.frame_skip
        self.reset()

    def reset(self) -> None:
        self._latents: deque[np.ndarray] = deque(maxlen=self._length + 1)
        self._commands: deque[np.ndarray] = deque(maxlen=self._length)

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        latent = self.model.encode(observation)  # first: a picture that it refuses must leave nothing behind
        if command is None:  # what was done in between is unknown: a beginning
            self.reset()
        elif self._latents:
            self._commands.append(np.asarray(command, float))
        self._latents.append(latent)
        skip = self.model.frame_skip
        steps = len(self._commands) // skip
        if steps == 0:
            return None
        past = np.stack([self._latents[-1 - k * skip] for k in range(steps, 0, -1)])
        commands = np.stack(list(self._commands)[-steps * skip :]).reshape(steps, skip, -1)
        error = self.model.predict(past, commands) - self._latents[-1]
        return float(np.mean((error if self._whitening is None else self._whitening[steps - 1] @ error) ** 2))


class Stillness:
    """How little the latent has changed for `window` observations: minus its mean squared distance from their mean.

    What hardly moves for long is no error of the world model's, but a policy that is stuck: it finds out when a policy
    is about to fail in a world that is as it should be.
    """

    def __init__(self, model: LatentModel, window: int = STILL) -> None:
        self.model, self.cameras, self.window = model, model.cameras, window
        self.reset()

    def reset(self) -> None:
        self._latents: deque[np.ndarray] = deque(maxlen=self.window)

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        latent = self.model.encode(observation)
        if command is None:  # what happened in between is unknown: a beginning
            self.reset()
        self._latents.append(latent)
        return None if len(self._latents) < self.window else -float(np.var(self._latents, axis=0).mean())


class PixelDifference:
    """Mean squared difference of successive pictures, of all cameras."""

    def __init__(self, cameras: Sequence[str]) -> None:
        if not cameras:
            raise InputError("pixel difference: expected at least one camera, found none")
        self.cameras = list(cameras)
        self.reset()

    def reset(self) -> None:
        self._last: list[np.ndarray] | None = None

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        now = [np.asarray(observation.values[key], np.float32) for key in self.cameras]
        last, self._last = self._last, now
        if last is None:
            return None
        return float(np.mean([np.mean((a - b) ** 2) for a, b in zip(now, last, strict=True)]))


class ChunkInconsistency:
    """Mean squared distance of a new chunk from the one before it, over the rows that both have for the same times.

    In the spirit of STAC (Agia et al. 2024, arXiv 2410.04640), which compares batches of sampled chunks. Between
    chunks the last value stands.
    """

    cameras: Sequence[str] = ()

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._chunk: ActionChunk | None = None
        self._value: float | None = None

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        if chunk is not None and chunk is not self._chunk:
            if self._chunk is not None:
                self._value = _disagreement(self._chunk, chunk, self._value)
            self._chunk = chunk
        return self._value


def _disagreement(old: ActionChunk, new: ActionChunk, otherwise: float | None) -> float | None:
    shift = round((new.t_obs - old.t_obs) / new.dt)
    common = min(len(old.actions) - shift, len(new.actions))
    if shift < 0 or common < 1:
        return otherwise
    return float(np.mean((old.actions[shift : shift + common] - new.actions[:common]) ** 2))
