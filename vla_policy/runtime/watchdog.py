"""Who has gone quiet, judged on a clock that nobody sets."""

from __future__ import annotations

from collections.abc import Mapping

from vla_policy.interfaces import InputError


class Watchdog:
    """Knows when everyone in `timeouts` (seconds by name) was last heard of. Times are a steady clock's.

    Nobody is blamed for the time that the watcher itself slept: what `check` is called later than `stall` seconds after
    the last time is taken off, because messages of that time may still be waiting to be read. So it has to be called
    more often than that.
    """

    def __init__(self, timeouts: Mapping[str, float], stall: float = 0.05) -> None:
        for name, timeout in timeouts.items():
            if not timeout > 0:
                raise InputError(f"timeout of {name!r}: expected more than 0 s, found {timeout}")
        self.timeouts = dict(timeouts)
        self._stall = stall
        self._heard: dict[str, float] = {}
        self._checked: float | None = None
        self._slept = 0.0  # together, taken off the clock

    def feed(self, name: str, now: float) -> None:
        """`name` was heard of."""
        # The moment is counted on the clock without sleep; a message read after a sleep may be as old as that.
        self._heard[name] = now - self._slept

    def check(self, now: float) -> dict[str, float]:
        """Everyone who is overdue, with the seconds since they were heard of (infinity: never)."""
        if self._checked is not None:
            self._slept += max(0.0, now - self._checked - self._stall)
        self._checked = now
        ages = {name: now - self._slept - self._heard.get(name, -float("inf")) for name in self.timeouts}
        return {name: age for name, age in ages.items() if age > self.timeouts[name]}
