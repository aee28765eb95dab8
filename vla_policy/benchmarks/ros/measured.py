"""Results of measurements of the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

MONITOR = "surprise_monitor/stop says stop"


@dataclass(frozen=True)
class Fault(Generic[P, R]):
    """What `inject` does to the graph or to a part of it; the gate's reason to hold has to contain one of `reasons`."""

    inject: Callable[P, R]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Hold:
    """The hold after one fault: seconds to it (None: the arm was not held), the gate's reason, and the longest time
    that the witness was not scheduled meanwhile. `discarded` attempts measured nothing: the arm was held before.
    """

    seconds: float | None
    reason: str
    stood_still: float
    discarded: int = 0


@dataclass(frozen=True)
class Storm:
    """One storm: receive times of commands (n,) in seconds since it began, its duration in `seconds`, the number of
    messages `sent`, why the arm was `held` ("": it was not), the number of commands `off_path`.
    """

    times: np.ndarray
    seconds: float
    sent: int
    held: str
    off_path: int

    @property
    def intervals(self) -> np.ndarray:
        """Seconds between commands (n - 1,)."""
        return np.diff(self.times)

    @property
    def longest(self) -> float:
        """The longest time in seconds without a command, up to the storm's end."""
        return float(np.diff([0.0, *self.times, self.seconds]).max())


@dataclass(frozen=True)
class MeasuredEpisode:
    """An episode through the graph, measured on the robot's side.

    `stops` has the gate's reason for every stop; after `rearmed` of them it was armed again. `intervals` are the
    milliseconds between commands while the gate was enabled, `held` those in which it held, `stalled` those in which
    the witness was not scheduled either, `stolen` the CPU steal time in milliseconds, summed over processors. `memory`
    is megabytes by process at the end; `diagnostics` the nodes' last values.
    """

    seed: int
    success: bool
    steps: int
    seconds: float
    stops: tuple[str, ...]
    rearmed: int
    intervals: list[float]
    held: list[bool]
    stalled: list[bool]
    stolen: list[float]
    memory: dict[str, float]
    diagnostics: dict[str, dict[str, str]]
