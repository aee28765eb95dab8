"""What was seen and done, a control period at a time: the perceiving half of a monitor."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from vla_policy.interfaces import InputError, Observation

_KEPT = 2.5  # seconds of commands: a contract lets observations come 2 s late
_READY = 64  # periods that wait to be taken


class Period(NamedTuple):
    """An observation and the command (A,) that left the limits last before it, None where there was none in time."""

    observation: Observation
    command: np.ndarray | None


class Periods:
    """Pairs observations one `dt` apart with the commands of the time between them. Times are in seconds.

    Cameras may be faster than the control rate: observations that come early are left out. Commands come every `every`
    seconds; a busy computer hands messages of two topics over in any order, so an observation waits for a command as
    young as that, until the next one at most. After a gap in the observations there is no command: it says that what
    follows is a beginning.
    """

    def __init__(self, dt: float, every: float) -> None:
        if not 0 < every <= dt:
            raise InputError(f"periods: expected dt >= every > 0, found {dt} and {every}")
        self._dt, self._every = dt, every
        self.clear()

    def clear(self) -> None:
        self._commands: deque[tuple[float, np.ndarray]] = deque()
        self._ready: deque[Period] = deque(maxlen=_READY)
        self._waiting: Observation | None = None
        self._due = self._last = -np.inf

    def command(self, t: float, action: np.ndarray) -> None:
        """`action` left the limits at `t`."""
        if self._commands and t < self._commands[-1][0]:  # the clock was set back
            self._commands.clear()
        self._commands.append((t, action))
        while self._commands[0][0] < t - _KEPT:
            self._commands.popleft()
        self._settle(at_once=False)

    def observe(self, observation: Observation) -> None:
        """A newer observation."""
        t = observation.t
        if t <= self._last:  # the clock was set back
            self.clear()
        if t < self._due - self._dt / 4:
            return
        self._settle(at_once=True)
        self._due = self._due + self._dt if t < self._due + self._dt / 2 else t + self._dt
        self._waiting = observation
        self._settle(at_once=False)

    def take(self) -> list[Period]:
        """What is complete since the last time, oldest first."""
        periods = list(self._ready)
        self._ready.clear()
        return periods

    def _settle(self, at_once: bool) -> None:
        """Pair the observation that waits, if its command is there or nobody waits any longer."""
        if self._waiting is None:
            return
        t = self._waiting.t
        stamp, action = next(((at, action) for at, action in reversed(self._commands) if at <= t), (-np.inf, None))
        if not at_once and t - stamp > 2 * self._every:
            return
        if t - stamp > self._dt or t - self._last > 1.5 * self._dt:
            action = None
        self._ready.append(Period(self._waiting, action))
        self._last, self._waiting = t, None
