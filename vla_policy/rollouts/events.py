"""The aftermath of a disturbance, from the environment's `info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.geometry import T_CORNERS, transform
from vla_policy.rollouts.results import Aftermath

WRONG = 0.001  # metres by which a wrong push moves the block's corners away from the goal, on average


class EventLog:
    """Collects the aftermath of one episode's event, which `sim.DisturbedEnv` reports in `info`."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._event_step: int | None = info.get("event_step")
        self._distance = _distance(info)
        self._acted = self._wrong = 0
        self._stopped: int | None = None

    def step(self, step: int, info: Mapping[str, Any], held: bool, halted: bool) -> None:
        """Add control step `step`, whose command acted or held and led to `info`."""
        before, self._distance = self._distance, _distance(info)
        if halted and self._stopped is None:
            self._stopped = step
        if self._event_step is not None and step >= self._event_step:
            self._acted += not held
            # The motion of the block in the event's own step may be the event itself.
            self._wrong += step > self._event_step and self._distance - before > WRONG and not held

    def aftermath(self, steps: int) -> Aftermath | None:
        """None if the episode ended before the event, or had none."""
        if self._event_step is None or steps <= self._event_step:
            return None
        return Aftermath(self._event_step, self._acted, self._wrong, self._stopped)


def _distance(info: Mapping[str, Any]) -> float:
    """Mean distance (metres) of the block's corners from their goal positions; 0 without a goal pose."""
    if "goal_pose" not in info:
        return 0.0
    here, there = (transform(T_CORNERS, np.asarray(info[key], float)) for key in ("block_pose", "goal_pose"))
    return float(np.linalg.norm(here - there, axis=-1).mean())
