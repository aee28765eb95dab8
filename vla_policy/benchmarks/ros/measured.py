"""What measurements of the graph return."""

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
    """What came of one fault: seconds to the hold (None: the arm was not held), the gate's reason, and the longest time
    that the witness itself was not run meanwhile. `discarded` runs before it measured nothing: the arm was held before
    their fault came.
    """

    seconds: float | None
    reason: str
    stood_still: float
    discarded: int = 0


@dataclass(frozen=True)
class Storm:
    """One storm: when commands were received (n,), in seconds since it began, how many `seconds` it took, how many
    messages it `sent`, why the arm was held (""), how many commands went astray.
    """

    times: np.ndarray
    seconds: float
    sent: int
    held: str
    astray: int

    @property
    def intervals(self) -> np.ndarray:
        """Seconds from one command to the next (n - 1,)."""
        return np.diff(self.times)

    @property
    def longest(self) -> float:
        """The most seconds without a command, up to the storm's end: the gate may have stopped sending."""
        return float(np.diff([0.0, *self.times, self.seconds]).max())


@dataclass(frozen=True)
class Played:
    """An episode through the graph, seen from the robot's side.

    `stops` says why the gate stopped the arm, each time; after `rearmed` of them it was armed again. `intervals` are
    the milliseconds from one command to the next while the gate was enabled, `held` those of them in which it held,
    `stalled` those in which the computer did not run the witness either, `stolen` the milliseconds of all processors
    that a virtual computer's host gave to others meanwhile. `memory` is megabytes by process, at the end; `diagnostics`
    what the nodes said last.
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
