"""Observations put together from streams that each come at their own rate, by the time stamps of their messages."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np

from vla_policy.interfaces import InputError, Observation

_KEPT = 64  # samples a stream; more than slop and max_age of a 100 Hz joint state need


class ObservationBuffer:
    """Keeps the newest samples of every key and gives the newest moment that all of them saw.

    A moment is the newest time stamp that no stream lags behind; of every stream the sample nearest to it is taken,
    which may be `slop` seconds off. Samples are refused, and counted in `refused`, when they are stamped more than
    `slop` ahead of the clock ("future"), more than `max_age` behind it ("stale"), or not after the sample before them
    ("out of order"). Times are in seconds.
    """

    def __init__(self, keys: Iterable[str], slop: float, max_age: float) -> None:
        self._samples: dict[str, deque[tuple[float, np.ndarray]]] = {key: deque(maxlen=_KEPT) for key in keys}
        if not self._samples or slop < 0 or max_age <= 0:
            raise InputError(
                f"observation buffer: expected keys, slop >= 0 and max_age > 0, found {list(self._samples)}, "
                f"{slop} and {max_age}"
            )
        self.slop, self.max_age = slop, max_age
        self.refused: Counter[str] = Counter()
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
        why = ""
        if stamp > now + self.slop:
            why = "future"
        elif now - stamp > self.max_age:
            why = "stale"
        elif samples and stamp <= samples[-1][0]:
            why = "out of order"
        if why:
            self.refused[why] += 1
            return False
        samples.append((stamp, value))
        return True

    def newest(self, task: str) -> Observation | None:
        """The newest common moment as an observation, once; None while there is none that was not given before."""
        if not all(self._samples.values()):
            return None
        t = min(samples[-1][0] for samples in self._samples.values())
        if t <= self._after:
            return None
        nearest = {key: min(samples, key=lambda s: abs(s[0] - t)) for key, samples in self._samples.items()}
        self._after = t  # every stream has come this far: no nearer sample will follow
        if any(abs(stamp - t) > self.slop for stamp, _ in nearest.values()):
            self.refused["not in time with the others"] += 1
            return None
        return Observation({key: value for key, (_, value) in nearest.items()}, task, t)
