"""Observations paired with commands, per control period: the input side of a monitor."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from vla_policy.interfaces import InputError, Observation

_KEPT = 2.5  # seconds of commands: a contract allows observations to be 2 s late
_READY = 64  # periods that have not been taken yet


class Period(NamedTuple):
    """An observation and the last command (A,) before it, None if there was none in this period."""

    observation: Observation
    command: np.ndarray | None


class Periods:
    """Pairs observations one `dt` apart with the commands between them. Times are in seconds.

    Cameras may be faster than the control rate: early observations are dropped. Commands are sent every `every`
    seconds; messages of two topics may arrive in any order, so an observation waits for a command that is recent
    enough, at most until the next observation. After a gap in the observations the command is None, which marks a new
    start.
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
        """Add the command `action`, sent at `t`."""
        if self._commands and t < self._commands[-1][0]:  # the clock was set back
            self._commands.clear()
        self._commands.append((t, action))
        while self._commands[0][0] < t - _KEPT:
            self._commands.popleft()
        self._settle(at_once=False)

    def observe(self, observation: Observation) -> None:
        """Add an observation."""
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
        """The periods completed since the last call, oldest first."""
        periods = list(self._ready)
        self._ready.clear()
        return periods

    def _settle(self, at_once: bool) -> None:
        """Complete the pending period if its command has arrived, or `at_once`."""
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
