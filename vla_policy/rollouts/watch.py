"""Looking on while episodes are played: recording what monitors would see, or letting one hold the arm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_policy.interfaces import ActionChunk, Observation
from vla_policy.rollouts.results import Start


@dataclass(frozen=True)
class Seen:
    """One observation (the watcher's keys alone), the command (D,) that led to it (None: the episode's first one), and
    the chunk whose execution began since the observation before (None: none did).
    """

    observation: Observation
    command: np.ndarray | None
    chunk: ActionChunk | None


class Watcher(Protocol):
    """Watches all episodes of a rollout from the process that has the models; simulation workers send what is seen."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it looks at."""

    @property
    def may_halt(self) -> bool:
        """Whether it may halt an arm. It is then shown every observation before the next command, else all of a chunk's
        together.
        """
        ...

    def update(self, seen: Mapping[Start, Sequence[Seen]]) -> Collection[Start]:
        """The episodes whose arm has to hold from now on, given what was newly seen in some of them, oldest first."""
        ...

    def record(self, start: Start) -> dict[str, np.ndarray]:
        """What to keep of an episode that has ended, by name; it is forgotten here."""
        ...
