"""Message times of a bag on one clock: header stamps, or receive times for unstamped messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_policy.interfaces import InputError
from vla_policy.robot.bags import Recorded
from vla_policy.robot.messages import seconds


@dataclass
class Track:
    """Receive times and stamps of one topic's messages, seconds in bag order; a stamp of 0 is none."""

    topic: str
    received: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)

    def add(self, recorded: Recorded) -> None:
        header = getattr(recorded.message, "header", None)
        self.received.append(recorded.t)
        self.stamps.append(0.0 if header is None else seconds(header.stamp))


@dataclass(frozen=True)
class Timeline:
    """Times of one topic's messages: `times` (n,) in seconds, in bag order.

    `unstamped` messages have their receive times, shifted by `moved` (median, seconds) to the clock of the stamps.
    `delay` is the median time from stamp to receipt; None without stamps.
    """

    topic: str
    times: np.ndarray
    unstamped: int
    moved: float
    delay: float | None

    def span(self) -> str:
        """First and last time and the clock, in words."""
        clock = "receive times" if self.unstamped else "time stamps"
        return f"{self.topic} {self.times.min():.3f} to {self.times.max():.3f} s ({clock})"


def timelines(tracks: Sequence[Track], max_age: float) -> list[Timeline]:
    """The tracks (none empty) on the clock of their stamps.

    A stamp of 0 is none, except at the start of a clock, when the next one is at most `max_age` seconds. If stamps and
    receive times are on different clocks, as in simulation, receive times are shifted by the first stamped track's
    difference at that time. `InputError` for stamps that go back by more than `max_age`.
    """
    received = [_Received.of(track, max_age) for track in tracks]
    reference = next((messages for messages in received if messages.delay is not None), received[0])
    return [
        _timeline(track.topic, messages, reference, max_age) for track, messages in zip(tracks, received, strict=True)
    ]


def clock_notes(timelines: Sequence[Timeline], max_age: float) -> list[str]:
    """Notes on shifted receive times, and on stamps that are on another clock than the first track's."""
    notes = [
        f"{line.topic}: receive times moved by {line.moved:.3f} s to the clock of the time stamps"
        for line in timelines
        if line.moved
    ]
    stamped = [(line.topic, line.delay) for line in timelines if line.delay is not None]
    return notes + [
        f"{topic}: time stamps {delay - stamped[0][1]:.2f} s behind those of {stamped[0][0]} by their receive times"
        for topic, delay in stamped
        if abs(delay - stamped[0][1]) > max_age
    ]


@dataclass(frozen=True)
class _Received:
    """A track sorted by receive time: indices, seconds, and a mask of missing stamps."""

    rows: np.ndarray
    times: np.ndarray
    stamps: np.ndarray
    unset: np.ndarray

    @classmethod
    def of(cls, track: Track, max_age: float) -> _Received:
        rows = np.argsort(track.received, kind="stable")
        stamps = np.array(track.stamps)[rows]
        unset = stamps == 0
        first = int(np.argmin(unset))  # the first stamped one, if any
        if 0 < stamps[first] <= max_age:
            unset[:first] = False
        return cls(rows, np.array(track.received)[rows], stamps, unset)

    @property
    def delay(self) -> float | None:
        return None if self.unset.all() else float(np.median((self.times - self.stamps)[~self.unset]))

    def shift(self, times: np.ndarray, max_age: float) -> np.ndarray:
        """Offset from receive times to the clock of the stamps, seconds; 0 if it is the same clock."""
        if self.delay is None or abs(self.delay) <= max_age:
            return np.zeros(len(times))
        return np.interp(times, self.times[~self.unset], (self.stamps - self.times)[~self.unset])


def _timeline(topic: str, received: _Received, reference: _Received, max_age: float) -> Timeline:
    shift = reference.shift(received.times, max_age)
    times = np.where(received.unset, received.times + shift, received.stamps)
    latest = np.maximum.accumulate(times)
    back = latest - times > max_age
    if back.any():
        k = int(np.argmax(back))
        raise InputError(
            f"{topic}: expected time stamps that go forward, found {times[k]:.3f} s after {latest[k]:.3f} s "
            "(was a clock set, or a simulation reset?)"
        )
    in_bag = np.empty(len(times))
    in_bag[received.rows] = times
    moved = float(np.median(shift)) if received.unset.any() else 0.0
    return Timeline(topic, in_bag, int(received.unset.sum()), moved, received.delay)
