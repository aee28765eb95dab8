"""Timeouts of publishers, on a monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping

from vla_policy.interfaces import InputError


class Watchdog:
    """Detects publishers that are silent for longer than their timeout (seconds by name). Times are in seconds of a
    monotonic clock.

    Stalls of the process itself do not count as silence: if `check` is called more than `stall` seconds after the last
    call, the excess is subtracted, since messages of that time may not have been read yet. So it has to be called more
    often than that.
    """

    def __init__(self, timeouts: Mapping[str, float], stall: float = 0.05) -> None:
        for name, timeout in timeouts.items():
            if not timeout > 0:
                raise InputError(f"timeout of {name!r}: expected more than 0 s, found {timeout}")
        self.timeouts = dict(timeouts)
        self._stall = stall
        self._received: dict[str, float] = {}
        self._checked: float | None = None
        self._stalled = 0.0  # in total, subtracted from the clock

    def feed(self, name: str, now: float) -> None:
        """Note a message of `name`."""
        # On the clock without stalls, since a message read after a stall may be as old as that.
        self._received[name] = now - self._stalled

    def check(self, now: float) -> dict[str, float]:
        """The overdue publishers, with the seconds since their last message (infinity: none)."""
        if self._checked is not None:
            self._stalled += max(0.0, now - self._checked - self._stall)
        self._checked = now
        ages = {name: now - self._stalled - self._received.get(name, -float("inf")) for name in self.timeouts}
        return {name: age for name, age in ages.items() if age > self.timeouts[name]}
