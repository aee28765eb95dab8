"""Looking on while an episode is played: recording what monitors would see, or letting one hold the arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vla_policy.interfaces import ActionChunk, Observation

if TYPE_CHECKING:
    pass


class Watch(Protocol):
    """Looks on while an episode is played, and says whether the arm has to hold."""

    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it looks at."""

    def reset(self) -> None:
        """At the start of an episode."""

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        """Whether the arm has to hold from now on; the arguments are those of `monitoring.Monitor.update`."""
        ...

    def record(self) -> dict[str, np.ndarray]:
        """What was seen at each observation of the episode so far, by name."""
        ...


WatchFactory = Callable[[], Watch]
