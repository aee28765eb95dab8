"""Observations put together from streams that each come at their own rate, by the time stamps of their messages."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np

from vla_policy.interfaces import InputError, Observation


class ObservationBuffer:
    """Keeps the newest samples of every key and gives the newest moment that all of them saw.

    A moment is the newest time stamp that no stream lags behind; of every stream the sample nearest to it is taken,
    which may be `slop` seconds off. Samples are refused, and counted in `refused`, when they are stamped more than
    `slop` ahead of the clock ("future"), more than `max_age` behind it ("stale"), or not after the sample before them
    ("out of order"); `refusals` says of every key why its last sample was, "" if it was not. Samples are kept for as
    long as the slowest stream may need them, `max_age` and `slop`. Times are in seconds.
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
        self._after = -np.inf  # moments up to here are over

    def clear(self, now: float) -> None:
        """Forget everything; only what is stamped after `now` counts from here on."""
        for samples in self._samples.values():
            samples.clear()
        self._after = now

    def put(self, key: str, value: np.ndarray, stamp: float, now: float) -> bool:
        """Take in a sample; False if it was refused."""
        samples = self._samples[key]
        if samples and samples[-1][0] > now + self.slop:  # the clock was set back; nothing would be newer for long
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
        """Replace the last sample of `key`, if it has this stamp: a part of it came later."""
        samples = self._samples[key]
        if samples and samples[-1][0] == stamp:
            samples[-1] = (stamp, value)

    def newest(self, task: str) -> Observation | None:
        """The newest common moment as an observation, once; None while there is none that was not given before."""
        if not all(self._samples.values()):
            return None
        t, nearest = self._moment()
        if t <= self._after:
            return None
        self._after = t  # every stream has come this far: no nearer sample will follow
        if any(abs(stamp - t) > self.slop for stamp, _ in nearest.values()):
            self.refused["not in time with the others"] += 1
            return None
        return Observation({key: value for key, (_, value) in nearest.items()}, task, t)

    def apart(self, now: float) -> str:
        """Why the newest common moment is no observation, in words; "" if it is one, or a stream has no samples."""
        if not all(self._samples.values()):
            return ""
        t, nearest = self._moment()
        last = next(key for key, (stamp, _) in nearest.items() if stamp == t)
        key, off = max(((key, abs(stamp - t)) for key, (stamp, _) in nearest.items()), key=lambda pair: pair[1])
        if off <= self.slop:
            return ""
        found = f"is {off:.3f} s off, more than slop, {self.slop:g} s"
        return f"the {key} nearest to the newest {last}, {now - t:.2f} s old, {found}"

    def _moment(self) -> tuple[float, dict[str, tuple[float, np.ndarray]]]:
        """The newest stamp that no stream lags behind, and of every stream the sample nearest to it."""
        t = min(samples[-1][0] for samples in self._samples.values())
        return t, {key: min(samples, key=lambda s: abs(s[0] - t)) for key, samples in self._samples.items()}

    def _forget(self, now: float) -> None:
        """What no moment to come needs: what is too old, and once all streams have come further, all but the last."""
        newest = [samples[-1][0] if samples else -np.inf for samples in self._samples.values()]
        since = max(min(newest), now - self.max_age) - self.slop
        for samples in self._samples.values():
            while len(samples) > 1 and samples[0][0] < since:
                samples.popleft()
