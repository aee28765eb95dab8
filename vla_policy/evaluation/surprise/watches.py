"""Watches of an episode that need a world model: recording latents and scores, or a monitor that holds the arm."""

from __future__ import annotations

from multiprocessing import parent_process
from typing import TYPE_CHECKING

import numpy as np
import torch

from vla_policy.interfaces import ActionChunk, Interface, Observation
from vla_policy.monitoring import ChunkInconsistency, LatentModel, Monitor, PixelDifference, Score
from vla_policy.world_model import load_monitor

if TYPE_CHECKING:
    pass


class Recorder:
    """Records what every score can be computed from afterwards: latents, pixel differences, chunk inconsistencies.

    Latents come from the model given; scores are NaN while there is nothing to say.
    """

    def __init__(self, model: LatentModel) -> None:
        self.model, self.cameras = model, list(model.cameras)
        self._scores: dict[str, Score] = {"pixel": PixelDifference(model.cameras), "chunk": ChunkInconsistency()}
        self.reset()

    def reset(self) -> None:
        self._latents: list[np.ndarray] = []
        self._values: dict[str, list[float]] = {name: [] for name in self._scores}
        for score in self._scores.values():
            score.reset()

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        self._latents.append(self.model.encode(observation))
        for name, score in self._scores.items():
            value = score.update(observation, command, chunk)
            self._values[name].append(np.nan if value is None else value)
        return False

    def record(self) -> dict[str, np.ndarray]:
        return {"latent": np.stack(self._latents), **{name: np.array(v) for name, v in self._values.items()}}


class Guard:
    """A monitor that may hold the arm."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.cameras = monitor, list(monitor.score.cameras)
        self.reset()

    def reset(self) -> None:
        self.monitor.reset()
        self._scores: list[float] = []

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        surprise = self.monitor.update(observation, command, chunk)
        self._scores.append(surprise.score)
        return surprise.is_surprised

    def record(self) -> dict[str, np.ndarray]:
        return {"surprise": np.array(self._scores), "threshold": np.array(self.monitor.calibration.threshold)}


def one_thread_in_workers() -> None:
    """Simulating workers are as many as there are cores: more threads of torch would only slow each other down."""
    if parent_process() is not None:
        torch.set_num_threads(1)


def guard(monitor: str, policy_folder: str, interface: Interface) -> Guard:
    """The calibrated monitor in a folder, for a worker process."""
    one_thread_in_workers()
    return Guard(load_monitor(monitor, policy_folder, interface))
