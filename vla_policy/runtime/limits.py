"""The gate every command passes: a box, a largest step a control period, and nothing that is not a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_policy.interfaces import InputError

Status = Literal["ok", "clipped", "hold"]


@dataclass(frozen=True)
class Command:
    """What leaves for the robot: `action` (D,) in its own units, and whether it is what the policy asked for.

    `status` is "ok", "clipped" (a limit changed it) or "hold" (nothing usable was due); `reason` says why, else "".
    """

    action: np.ndarray
    status: Status = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Limits:
    """Bounds of an absolute target, one entry a channel, in the action's units.

    `low`, `high` (D,): the box. `max_step` (D,): the largest change from one command to the next, that is the speed
    limit divided by fps; None leaves the speed to the robot's own controller.
    """

    low: np.ndarray
    high: np.ndarray
    max_step: np.ndarray | None = None

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, float), np.asarray(self.high, float)
        if low.ndim != 1 or low.shape != high.shape or not (low <= high).all():
            raise InputError(f"limits: expected low <= high of one length, found {low.tolist()} and {high.tolist()}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if self.max_step is not None:
            step = np.asarray(self.max_step, float)
            if step.shape != low.shape or not (step > 0).all():
                raise InputError(f"limits: expected {len(low)} steps > 0, found max_step {step.tolist()}")
            object.__setattr__(self, "max_step", step)

    def gate(self, action: np.ndarray | None, previous: np.ndarray, hold: np.ndarray) -> Command:
        """The command for a wanted `action` (D,).

        `previous` (D,) is the last command, which steps are counted from; `hold` (D,) the pose to keep when no action
        is due (None), or when it is not finite or has another length. Holding obeys the limits as well.
        """
        if action is None:
            return self._hold(previous, hold, "no action is due")
        action = np.asarray(action, float)
        if action.shape != self.low.shape:
            return self._hold(previous, hold, f"action shape: expected {self.low.shape}, found {action.shape}")
        if not np.isfinite(action).all():
            return self._hold(previous, hold, f"action is not finite: {action.tolist()}")
        allowed, reason = self._clip(action, previous)
        return Command(allowed, "clipped" if reason else "ok", reason)

    def _hold(self, previous: np.ndarray, hold: np.ndarray, reason: str) -> Command:
        return Command(self._clip(np.asarray(hold, float), previous)[0], "hold", reason)

    def _clip(self, action: np.ndarray, previous: np.ndarray) -> tuple[np.ndarray, str]:
        """The nearest allowed action, channel by channel, and what had to be changed ("" if nothing)."""
        reasons = []
        if self.max_step is not None:
            slower = np.clip(action, previous - self.max_step, previous + self.max_step)
            if (slower != action).any():
                reasons.append("larger than max_step")
            action = slower
        inside = np.clip(action, self.low, self.high)
        if (inside != action).any():
            reasons.append("outside the box")
        return inside, " and ".join(reasons)
