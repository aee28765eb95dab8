"""Observers of running episodes: they record the inputs of monitors, or let a monitor halt the arm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_policy.interfaces import ActionChunk, Observation
from vla_policy.rollouts.results import Start


@dataclass(frozen=True)
class WatchedStep:
    """An observation (only the watcher's keys), the command (D,) that preceded it (None: the episode's first one), and
    the chunk whose execution began since the previous observation (None: none did).
    """

    observation: Observation
    command: np.ndarray | None
    chunk: ActionChunk | None


class Watcher(Protocol):
    """Observes all episodes of a rollout in the process that has the models; simulation workers send the steps."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it needs."""

    @property
    def may_halt(self) -> bool:
        """Whether it may halt an arm. It then gets every step before the next command, else all of a chunk's steps
        together.
        """
        ...

    def update(self, steps: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        """The episodes whose arm must hold from now on, given the new steps of some of them, oldest first."""
        ...

    def record(self, start: Start) -> dict[str, np.ndarray]:
        """Remove an episode that has ended; the arrays to keep of it, by name."""
        ...
