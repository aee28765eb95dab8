"""The limits of every command: a box, a speed, an acceleration, and finite numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_policy.interfaces import InputError

Status = Literal["ok", "clipped", "hold"]


@dataclass(frozen=True)
class Command:
    """A command for the robot: `action` (D,) in its own units, and whether it is the policy's action.

    `status` is "ok", "clipped" (a limit changed it) or "hold" (no usable action was due), with its `reason`, else "".
    """

    action: np.ndarray
    status: Status = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Limits:
    """Bounds of an absolute target, one entry a channel, in the action's units.

    `low`, `high` (D,): the box. `max_step` (D,): the largest change from one command to the next, that is the speed
    limit divided by the rate of commands. `max_change` (D,): the largest change from one step to the next, that is the
    acceleration limit divided by the rate squared. None leaves it to the robot's own controller. In a conflict
    the box takes precedence over the speed and the speed over the acceleration. From outside the box the command
    returns within the other limits; it never leaves the box, and never moves further away from it.
    """

    low: np.ndarray
    high: np.ndarray
    max_step: np.ndarray | None = None
    max_change: np.ndarray | None = None

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, float), np.asarray(self.high, float)
        if low.ndim != 1 or low.shape != high.shape or not (low <= high).all():
            raise InputError(f"limits: expected low <= high of one length, found {low.tolist()} and {high.tolist()}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        for name in ("max_step", "max_change"):
            if getattr(self, name) is not None:
                step = np.asarray(getattr(self, name), float)
                if step.shape != low.shape or not (step > 0).all():
                    raise InputError(f"limits: expected {len(low)} steps > 0, found {name} {step.tolist()}")
                object.__setattr__(self, name, step)

    def gate(self, action: np.ndarray | None, previous: np.ndarray, step: np.ndarray | None = None) -> Command:
        """The command for a desired `action` (D,).

        `previous` (D,) is the last command, `step` (D,) its difference from the one before (None: at rest). If no
        action is due (None), or it is not finite or has another length, the command brakes: it moves from `previous` to
        rest as fast as the acceleration allows, and stays there.
        """
        step = np.zeros_like(self.low) if step is None else step
        if action is None:
            return self._hold(previous, step, "no action is due")
        action = np.asarray(action, float)
        if action.shape != self.low.shape:
            return self._hold(previous, step, f"action shape: expected {self.low.shape}, found {action.shape}")
        if not np.isfinite(action).all():
            return self._hold(previous, step, f"action is not finite: {action.tolist()}")
        allowed, reason = self._clip(action, previous, step)
        return Command(allowed, "clipped" if reason else "ok", reason)

    def braking(self, step: np.ndarray) -> np.ndarray:
        """The braking distance (D,) of commands after a `step` (D,)."""
        if self.max_change is None:
            return np.zeros_like(step)
        k = np.floor(np.abs(step) / self.max_change)
        f = np.abs(step) / self.max_change - k  # the steps that follow are k - 1 + f, ... and f times `max_change`
        way: np.ndarray = np.sign(step) * k * ((k - 1) / 2 + f) * self.max_change
        return way

    def _hold(self, previous: np.ndarray, step: np.ndarray, reason: str) -> Command:
        return Command(self._clip(previous + self.braking(step), previous, step)[0], "hold", reason)

    def _clip(self, action: np.ndarray, previous: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, str]:
        """The nearest allowed action, channel by channel, and the reason for a change, else ""."""
        reasons = []
        inside = np.clip(action, self.low, self.high)
        if (inside != action).any():
            reasons.append("outside the box")
        action = inside
        if self.max_change is not None:
            smoother = previous + _braked(action - previous, step, self.max_change)
            if (np.abs(smoother - action) > 1e-12).any():
                reasons.append("larger than max_change")
                action = smoother
        if self.max_step is not None:
            slower = np.clip(action, previous - self.max_step, previous + self.max_step)
            if (slower != action).any():
                reasons.append("larger than max_step")
            action = slower
        # Late braking may overshoot the box; `previous` counts as inside, so that this does not jump to its edge.
        action = np.clip(action, np.minimum(self.low, previous), np.maximum(self.high, previous))
        return action, " and ".join(reasons)


def stoppable(way: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The largest step (D,) that can stop within the distance `way` (D,) >= 0, if steps differ by at most `change`.

    A step of (k + f) times `change` is followed by slower ones of k - 1 + f, ... and f times `change`; they add up to
    (k + 1) (k / 2 + f) times `change`.
    """
    ways = way / change
    k = np.floor((np.sqrt(1 + 8 * ways) - 1) / 2)
    f = (ways - k * (k + 1) / 2) / (k + 1)
    step: np.ndarray = (k + f) * change
    return step


def _braked(wanted: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The step (D,) towards `wanted` (D,) that differs from the last one by at most `change` (D,).

    It is small enough that the remaining distance suffices to stop.
    """
    target: np.ndarray = np.sign(wanted) * stoppable(np.abs(wanted), change)
    return target.clip(step - change, step + change)
