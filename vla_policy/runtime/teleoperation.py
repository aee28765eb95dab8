"""Teleoperation: input from keys and gamepads, motion of the target, alignment with a distant leader."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_policy.interfaces import DataError
from vla_policy.runtime.limits import stoppable

TELEOP_SCALE = 0.1  # fraction of the contract's speed limit in teleoperation
HELD = 0.2  # seconds without messages after which a gamepad or a mouse counts as released
LEASH = 0.5  # seconds of travel by which the target may lead the last command
FRESH = 0.2  # seconds without a command after which the gate counts as stopped
RAMP = 0.2  # seconds to the contract's speed if the contract does not limit the acceleration
MET, LOST = 0.1, 0.5  # seconds of travel from the arm within which a leader is followed, and beyond which it is lost
JUMP = 0.2  # seconds of travel between two targets of a leader; more is a discontinuity


class HeldKey:
    """A held key in a terminal, which reports presses and repeats but no release.

    Terminals repeat a key after 0.25 to 0.66 s, then every 0.03 to 0.1 s. Until the first repeat a tap and a held key
    look the same: the key is active for `FIRST` seconds, longer than any of these delays, but only at `CREEP` of the
    speed, so that a tap moves the arm no further than 0.19 s at full speed would. From the first repeat on it has the
    full speed, until there is no repeat for `REPEAT` seconds.
    """

    FIRST, REPEAT, CREEP = 0.75, 0.2, 0.25

    def __init__(self) -> None:
        self._key, self._until = "", -math.inf

    def press(self, key: str, now: float) -> tuple[float, float]:
        """The fraction of the speed for `key`, and for how many seconds unless it is repeated."""
        repeated = key == self._key and now < self._until
        part, seconds = (1.0, self.REPEAT) if repeated else (self.CREEP, self.FIRST)
        self._key, self._until = key, now + seconds
        return part, seconds


class Gamepad:
    """Converts `Joy` messages to a direction while `deadman` (a button) is held.

    `axes` move the channels, one each; values within `DEADZONE` of the centre are drift. A deflected stick whose value
    does not change for `SAME` seconds belongs to a gamepad out of range, whose last state is repeated forever.
    """

    DEADZONE, SAME = 0.1, 5.0

    def __init__(self, axes: Sequence[int], deadman: int) -> None:
        self._axes, self._deadman = list(axes), deadman
        self._last: tuple[tuple[float, ...], tuple[int, ...]] | None = None
        self._since, self._received, self._lost = 0.0, 0.0, False

    def read(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> np.ndarray | None:
        """The direction (channels,), -1 to 1; None without the deadman. `DataError` for an unusable message."""
        message = (tuple(axes), tuple(buttons))
        silent, self._received = now - self._received > HELD, now
        if silent or message != self._last:
            self._last, self._since = message, now
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
    """The target (D,) of teleoperation, updated `rate` times a second.

    It starts at the last command if the arm is within `following_error` of it, so that an arm with a steady-state error
    does not sink at every press; otherwise at the measured pose. From there it moves at `scale` times `speed`, within
    `acceleration` (None: `speed` within `RAMP`) and the box, and leads by at most `LEASH` seconds of travel, so that an
    arm that was blocked does not meet a distant target. Limits are (D,), in units, units / s and units / s^2.
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
        self._target: np.ndarray | None = None  # None without an operator
        self._step = np.zeros_like(low)  # from the target before it
        self._command: np.ndarray | None = None
        self._command_step = np.zeros_like(low)  # from the command before it
        self._commanded = -math.inf  # time of the command
        self._from_command = False

    def command(self, action: np.ndarray, now: float) -> None:
        """Add a command of the gate (D,)."""
        if self._command is None or now - self._commanded > FRESH:
            self._target = None  # the gate starts anew, and so does the target
            self._command = action
        self._command_step, self._command, self._commanded = action - self._command, action, now

    def release(self) -> None:
        """End the motion: there is no operator."""
        self._target = None

    def push(self, direction: np.ndarray, measured: np.ndarray, now: float) -> np.ndarray:
        """The next target for a stick's `direction` (D,), -1 to 1."""
        start = self._begin(measured, now)
        down, up = (stoppable(np.maximum(way, 0.0), self._change) for way in (start - self._low, self._high - start))
        return self._advance(start, np.clip(direction * self._most, -down, up), measured)

    def point(self, place: np.ndarray, measured: np.ndarray, now: float) -> np.ndarray:
        """The next target on the straight line to `place` (D,); a channel of NaN keeps its value."""
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
    """Moves the arm slowly and straight to a distant leader, and lets it follow once they have met.

    `max_step` (D,) is the change of a command at the speed limit (None: no limit, and no alignment), `rate` the number
    of commands per second. They have met within `MET` seconds of travel at that speed; a leader more than `LOST` away,
    or one that jumps by more than `JUMP`, has to be met again. The slow speed is that of teleoperation.
    """

    def __init__(self, max_step: np.ndarray | None, rate: float) -> None:
        self._max_step, self._rate = max_step, rate
        self._met = False
        self._wanted: np.ndarray | None = None  # the previous target

    def part(self) -> None:
        """End the motion: there is no operator."""
        self._met, self._wanted = False, None

    def follow(self, wanted: np.ndarray, previous: np.ndarray) -> np.ndarray:
        """The target (D,) after the command `previous` (D,), for a leader at `wanted` (D,)."""
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
