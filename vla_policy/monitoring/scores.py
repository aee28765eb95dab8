"""Surprise scores, one value per control period: the world model's prediction error, and baselines.

A score is updated once per control period with the newest observation, the command executed during the period that
ended with it, and the policy's newest chunk. It is None while its history is too short. Higher is more surprising.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from vla_policy.interfaces import ActionChunk, InputError, Observation

STILL = 20  # observations, two seconds of PushT: successful policies rest for shorter times


class LatentModel(Protocol):
    """The world model interface of scores; a step of the model is `frame_skip` control periods."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys of the cameras that it uses."""

    @property
    def history(self) -> int:
        """Latents that a prediction is made from."""

    @property
    def frame_skip(self) -> int:
        """Control periods between them."""

    def encode(self, observation: Observation) -> np.ndarray:
        """The latent (D,) of an observation's images, computed once per observation."""
        ...

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """The next latent (D,) after latents (T, D), one step apart, oldest first, and the commands (T, frame_skip, A)
        that follow each of them; T up to `history`.
        """
        ...


class Score(Protocol):
    """Surprise as one number for each observation, given those before it in the episode."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys of the cameras that it uses."""

    def reset(self) -> None:
        """Clear the history, at the start of an episode."""

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        """The current score; `command` (A,) is None at a start and after a gap, `chunk` without a policy's chunk."""
        ...


class PredictionError:
    """Mean squared error of the current latent's prediction, made one model step ago from the commands since; with a
    whitening, of the whitened error (`fit_whitening`): the squared Mahalanobis distance over D.

    A prediction is made every control period, from frames `frame_skip` periods apart, so that an event is detected in
    the first observation that it changes. The score stays high for `history * frame_skip` periods, while the history
    contains frames before the event. Early in an episode the history is shorter.
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
        latent = self.model.encode(observation)  # first, so that an invalid image leaves the state unchanged
        if command is None:  # a start or a gap
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
    """Stillness of the latent over `window` observations: minus its mean squared distance from their mean.

    A latent that hardly changes for long is no prediction error but a stuck policy: this score predicts failures of the
    policy in a nominal world.
    """

    def __init__(self, model: LatentModel, window: int = STILL) -> None:
        self.model, self.cameras, self.window = model, model.cameras, window
        self.reset()

    def reset(self) -> None:
        self._latents: deque[np.ndarray] = deque(maxlen=self.window)

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        latent = self.model.encode(observation)
        if command is None:  # a start or a gap
            self.reset()
        self._latents.append(latent)
        return None if len(self._latents) < self.window else -float(np.var(self._latents, axis=0).mean())


class PixelDifference:
    """Mean squared difference of successive images, over all cameras."""

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
    """Mean squared distance of a new chunk from its predecessor over rows for the same times.

    A simplification of STAC (Agia et al. 2024, arXiv 2410.04640), which compares batches of sampled chunks. Between
    chunks the last value is repeated.
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


class ImaginedStates:
    """Mean squared error of the state that a planner had imagined for now, when it played the chunk before, in units of
    how far states usually move until then.

    It is compared with what the planner now takes the state to be, so it needs a planner's chunks, and nothing else.
    Between chunks the last value is repeated.
    """

    cameras: Sequence[str] = ()

    def __init__(self, spread: Mapping[str, np.ndarray]) -> None:
        """`spread` (F, D) by key, of the movement until each imagined step."""
        self._spread = dict(spread)
        self.reset()

    def reset(self) -> None:
        self._chunk: ActionChunk | None = None
        self._value: float | None = None

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> float | None:
        if chunk is not None and chunk is not self._chunk and chunk.imagined:
            if self._chunk is not None:
                self._value = self._error(self._chunk, chunk)
            self._chunk = chunk
        return self._value

    def _error(self, old: ActionChunk, new: ActionChunk) -> float | None:
        steps = round((new.t_obs - old.t_obs) / new.dt)
        if not all(1 <= steps <= len(spread) for spread in self._spread.values()):
            return self._value
        errors = [
            (new.imagined[key][0] - old.imagined[key][steps]) / spread[steps - 1]
            for key, spread in self._spread.items()
        ]
        return float(np.mean(np.concatenate(errors) ** 2))


def _disagreement(old: ActionChunk, new: ActionChunk, otherwise: float | None) -> float | None:
    shift = round((new.t_obs - old.t_obs) / new.dt)
    common = min(len(old.actions) - shift, len(new.actions))
    if shift < 0 or common < 1:
        return otherwise
    return float(np.mean((old.actions[shift : shift + common] - new.actions[:common]) ** 2))
