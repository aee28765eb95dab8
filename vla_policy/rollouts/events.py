"""What happened after a disturbance, counted from the environment's `info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.geometry import T_CORNERS, transform
from vla_policy.rollouts.results import Aftermath

if TYPE_CHECKING:
    pass


WRONG = 0.001  # metres that a push must bring the block's corners farther from the goal, on average, to be a wrong one


class EventLog:
    """Counts one episode's aftermath from `info`, which names the event as `sim.DisturbedEnv` does."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._event_step: int | None = info.get("event_step")
        self._distance = _distance(info)
        self._acted = self._wrong = 0
        self._stopped: int | None = None

    def step(self, step: int, info: Mapping[str, Any], held: bool, halted: bool) -> None:
        """Control step `step` was made with a command that acted or held, and led to `info`."""
        before, self._distance = self._distance, _distance(info)
        if halted and self._stopped is None:
            self._stopped = step
        if self._event_step is not None and step >= self._event_step:
            self._acted += not held
            # What the block does in the event's own step may be the event itself.
            self._wrong += step > self._event_step and self._distance - before > WRONG and not held

    def aftermath(self, steps: int) -> Aftermath | None:
        """None if the episode was over before the event, or had none."""
        if self._event_step is None or steps <= self._event_step:
            return None
        return Aftermath(self._event_step, self._acted, self._wrong, self._stopped)


def _distance(info: Mapping[str, Any]) -> float:
    """Mean distance (metres) of the block's corners from where they belong; 0 where there is no goal pose."""
    if "goal_pose" not in info:
        return 0.0
    here, there = (transform(T_CORNERS, np.asarray(info[key], float)) for key in ("block_pose", "goal_pose"))
    return float(np.linalg.norm(here - there, axis=-1).mean())
