"""Leading the arm by hand: what keys and sticks mean, where the target goes, and how a leader far away is met."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_policy.interfaces import DataError
from vla_policy.runtime.limits import stoppable

TELEOP_SCALE = 0.1  # part of the contract's speed limit that a person leads with
HELD = 0.2  # seconds of silence of a gamepad or a mouse that are a release
LEASH = 0.5  # seconds of travel that the target may be ahead of the last command
FRESH = 0.2  # seconds without a command after which the gate has stopped sending
RAMP = 0.2  # seconds to the contract's speed where the contract limits no acceleration
MET, LOST = 0.1, 0.5  # seconds of travel from the arm at which a leader is followed, and not any more
JUMP = 0.2  # seconds of travel between two targets of a leader, more than who leads at the contract's speed makes


class HeldKey:
    """What a terminal tells of a key that is held: its presses and repeats, never its release.

    Terminals repeat a key after 0.25 to 0.66 s, then every 0.03 to 0.1 s. Until the first repeat a tap and a held key
    look alike: the key leads for `FIRST` seconds, longer than any of these delays, but only at `CREEP` of the speed, so
    that a tap moves the arm by no more than 0.19 s at full speed do. With the first repeat it has the full speed, until
    there was none for `REPEAT` seconds.
    """

    FIRST, REPEAT, CREEP = 0.75, 0.2, 0.25

    def __init__(self) -> None:
        self._key, self._until = "", -math.inf

    def press(self, key: str, now: float) -> tuple[float, float]:
        """The part of the speed that `key` leads with and for how many seconds, unless it comes again."""
        repeated = key == self._key and now < self._until
        part, seconds = (1.0, self.REPEAT) if repeated else (self.CREEP, self.FIRST)
        self._key, self._until = key, now + seconds
        return part, seconds


class Gamepad:
    """What a `Joy` message means: which way to lead, while `deadman` (a button) is held.

    `axes` move the channels, one each; what is within `DEADZONE` of the middle is drift. A stick that is pushed and
    says exactly the same for `SAME` seconds is that of a gamepad out of range, whose last state is repeated for ever.
    """

    DEADZONE, SAME = 0.1, 5.0

    def __init__(self, axes: Sequence[int], deadman: int) -> None:
        self._axes, self._deadman = list(axes), deadman
        self._said: tuple[tuple[float, ...], tuple[int, ...]] | None = None
        self._since, self._heard, self._lost = 0.0, 0.0, False

    def read(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> np.ndarray | None:
        """Which way to lead, (channels,) from -1 to 1; None without the deadman. `DataError` if nobody can lead so."""
        said = (tuple(axes), tuple(buttons))
        silent, self._heard = now - self._heard > HELD, now
        if silent or said != self._said:
            self._said, self._since = said, now
        self._lost = self._lost and not silent
        if self._deadman >= len(buttons):
            raise DataError(f"joy: expected the deadman to be button {self._deadman}, found {len(buttons)} buttons")
        if not buttons[self._deadman]:
            self._lost = False
            return None
        if max(self._axes, default=-1) >= len(axes):
            raise DataError(f"joy: expected the axes {self._axes}, found {len(axes)} axes")
        pushed = np.array([axes[axis] for axis in self._axes])
        if not np.isfinite(pushed).all():
            raise DataError(f"joy: expected axes from -1 to 1, found {pushed.tolist()}")
        beyond = np.maximum(np.abs(pushed) - self.DEADZONE, 0.0) / (1.0 - self.DEADZONE)
        direction: np.ndarray = np.sign(pushed) * np.minimum(beyond, 1.0)
        self._lost = self._lost or bool(direction.any() and now - self._since >= self.SAME)
        if self._lost:
            raise DataError(
                f"joy: exactly the same for {self.SAME:g} s, as of a gamepad out of range; release the deadman and "
                "press it again"
            )
        return direction


class Lead:
    """The target (D,) of a person who leads, moved `rate` times a second.

    It begins at the last command while the arm follows that within `following_error`, so that an arm with a
    steady-state error does not sink with every press; at the measured pose otherwise. From there it moves with `scale`
    times `speed`, within `acceleration` (None: `speed` within `RAMP`) and the box, and is no more than `LEASH` seconds
    of travel ahead: an arm that does not follow must not find a far target when it does again. Limits are (D,), in
    units, units / s and units / s^2.
    """

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        speed: np.ndarray,
        acceleration: np.ndarray | None,
        following_error: np.ndarray,
        rate: float,
        scale: float,
    ) -> None:
        acceleration = speed / RAMP if acceleration is None else acceleration
        self._low, self._high, self._following_error = low, high, following_error
        self._most, self._change = scale * speed / rate, acceleration / rate**2  # a tick
        self._leash = LEASH * scale * speed
        self._target: np.ndarray | None = None  # None while nobody leads
        self._step = np.zeros_like(low)  # that led to it
        self._command: np.ndarray | None = None
        self._commanded, self._command_step = -math.inf, np.zeros_like(low)  # when, and the step that led to it
        self._from_command = False

    def command(self, action: np.ndarray, now: float) -> None:
        """The gate has told the robot to go to `action` (D,)."""
        if self._command is None or now - self._commanded > FRESH:
            self._target = None  # the gate begins anew, and so does what it is told
            self._command = action
        self._command_step, self._command, self._commanded = action - self._command, action, now

    def release(self) -> None:
        """Nobody leads any more."""
        self._target = None

    def push(self, direction: np.ndarray, measured: np.ndarray, now: float) -> np.ndarray:
        """The target a tick later, by a stick: `direction` (D,) from -1 to 1."""
        start = self._begin(measured, now)
        down, up = (stoppable(np.maximum(way, 0.0), self._change) for way in (start - self._low, self._high - start))
        return self._advance(start, np.clip(direction * self._most, -down, up), measured)

    def point(self, place: np.ndarray, measured: np.ndarray, now: float) -> np.ndarray:
        """The target a tick later, straight to `place` (D,); a channel of NaN stays."""
        start = self._begin(measured, now)
        way = np.nan_to_num(np.clip(place, self._low, self._high) - start)
        fastest = np.minimum(self._most, stoppable(np.abs(way), self._change))
        part = np.min(fastest[way != 0] / np.abs(way[way != 0]), initial=1.0)
        return self._advance(start, part * way, measured)

    def _begin(self, measured: np.ndarray, now: float) -> np.ndarray:
        if self._target is None:
            command = self._command
            self._from_command = command is not None and not (np.abs(measured - command) > self._following_error).any()
            self._target, self._step = measured, np.zeros_like(measured)
            if command is not None and self._from_command:
                self._target = command
                if now - self._commanded < FRESH:
                    self._step = self._command_step
        return self._target

    def _advance(self, start: np.ndarray, wanted: np.ndarray, measured: np.ndarray) -> np.ndarray:
        step = self._step + np.clip(wanted - self._step, -self._change, self._change)
        base = measured if self._command is None or not self._from_command else self._command
        free = np.clip(start + step, np.minimum(self._low, start), np.maximum(self._high, start))
        self._target = np.clip(free, base - self._leash, base + self._leash)
        self._step = np.where(self._target == free, step, 0.0)
        return self._target


class Alignment:
    """A leader that is far from the arm is not followed: the arm goes to it straight and slowly until they have met.

    `max_step` (D,) is what a command may change by at the speed limit (None: no limit, and nobody is far), `rate` how
    many there are a second. Met is who is within `MET` seconds of travel at that speed; who is more than `LOST` away,
    or has jumped by more than `JUMP`, has to be met again. The slow speed is that of teleoperation.
    """

    def __init__(self, max_step: np.ndarray | None, rate: float) -> None:
        self._max_step, self._rate = max_step, rate
        self._met = False
        self._wanted: np.ndarray | None = None  # the last time

    def part(self) -> None:
        """Nobody leads any more."""
        self._met, self._wanted = False, None

    def follow(self, wanted: np.ndarray, previous: np.ndarray) -> np.ndarray:
        """What to command (D,) after `previous` (D,) on behalf of a leader at `wanted` (D,)."""
        if self._max_step is None:
            return wanted
        second = self._rate * self._max_step  # of travel
        jumped = self._wanted is not None and bool((np.abs(wanted - self._wanted) > JUMP * second).any())
        way, reach = wanted - previous, (LOST if self._met and not jumped else MET) * second
        self._met, self._wanted = bool((np.abs(way) <= reach).all()), wanted
        if self._met:
            return wanted
        part = min(1.0, 1.0 / float(np.max(np.abs(way) / (TELEOP_SCALE * self._max_step))))
        target: np.ndarray = previous + way * part
        return target
