"""Synchronisation of streams with different rates, by the time stamps of their messages."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np

from vla_policy.interfaces import InputError, Observation


class ObservationBuffer:
    """Keeps the latest samples of every key and combines them to observations.

    The time of an observation is the newest time stamp that every stream has reached; it has the nearest sample of
    every stream, at most `slop` seconds away. Samples are refused, and counted in `refused`, if they are stamped more
    than `slop` ahead of the clock ("future"), more than `max_age` behind it ("stale"), or not after the previous sample
    ("out of order"); `refusals` has, for every key, the reason for which its last sample was refused, else "". Samples
    are kept for `max_age` and `slop`, as long as the slowest stream may need them. Times are in seconds.
    """

    def __init__(self, keys: Iterable[str], slop: float, max_age: float) -> None:
        self._samples: dict[str, deque[tuple[float, np.ndarray]]] = {key: deque() for key in keys}
        if not self._samples or slop < 0 or max_age <= 0:
            raise InputError(
                f"observation buffer: expected keys, slop >= 0 and max_age > 0, found {list(self._samples)}, "
                f"{slop} and {max_age}"
            )
        self.slop, self.max_age = slop, max_age
        self.refused: Counter[str] = Counter()
        self.refusals = dict.fromkeys(self._samples, "")
        self._after = -np.inf  # only later observations are returned

    def clear(self, now: float) -> None:
        """Remove all samples; only those stamped after `now` count from here on."""
        for samples in self._samples.values():
            samples.clear()
        self._after = now

    def put(self, key: str, value: np.ndarray, stamp: float, now: float) -> bool:
        """Add a sample; False if it was refused."""
        samples = self._samples[key]
        if samples and samples[-1][0] > now + self.slop:  # the clock was set back
            samples.clear()
            self._after = -np.inf
        why = self.refusals[key] = ""
        if stamp > now + self.slop:
            why, found = "future", f"stamped {stamp - now:.2f} s ahead of this clock, more than {self.slop:g} s"
        elif now - stamp > self.max_age:
            why, found = "stale", f"{now - stamp:.2f} s old when they come, more than {self.max_age:g} s"
        elif samples and stamp <= samples[-1][0]:
            why, found = "out of order", "not stamped later than the ones before"
        if why:
            self.refused[why] += 1
            self.refusals[key] = found
            return False
        samples.append((stamp, value))
        self._forget(now)
        return True

    def revise(self, key: str, value: np.ndarray, stamp: float) -> None:
        """Replace the last sample of `key` if it has this stamp: a part of it arrived later."""
        samples = self._samples[key]
        if samples and samples[-1][0] == stamp:
            samples[-1] = (stamp, value)

    def newest(self, task: str) -> Observation | None:
        """The newest observation, once; None while there is no new one."""
        if not all(self._samples.values()):
            return None
        t, nearest = self._nearest()
        if t <= self._after:
            return None
        self._after = t  # every stream has reached t: no nearer sample will follow
        if any(abs(stamp - t) > self.slop for stamp, _ in nearest.values()):
            self.refused["not in time with the others"] += 1
            return None
        return Observation({key: value for key, (_, value) in nearest.items()}, task, t)

    def apart(self, now: float) -> str:
        """The reason that the streams form no observation now; "" if they do, or a stream has no samples."""
        if not all(self._samples.values()):
            return ""
        t, nearest = self._nearest()
        last = next(key for key, (stamp, _) in nearest.items() if stamp == t)
        key, off = max(((key, abs(stamp - t)) for key, (stamp, _) in nearest.items()), key=lambda pair: pair[1])
        if off <= self.slop:
            return ""
        found = f"is {off:.3f} s off, more than slop, {self.slop:g} s"
        return f"the {key} nearest to the newest {last}, {now - t:.2f} s old, {found}"

    def _nearest(self) -> tuple[float, dict[str, tuple[float, np.ndarray]]]:
        """The newest stamp that every stream has reached, and the nearest sample of every stream."""
        t = min(samples[-1][0] for samples in self._samples.values())
        return t, {key: min(samples, key=lambda s: abs(s[0] - t)) for key, samples in self._samples.items()}

    def _forget(self, now: float) -> None:
        """Remove samples that no later observation needs."""
        newest = [samples[-1][0] if samples else -np.inf for samples in self._samples.values()]
        since = max(min(newest), now - self.max_age) - self.slop
        for samples in self._samples.values():
            while len(samples) > 1 and samples[0][0] < since:
                samples.popleft()
