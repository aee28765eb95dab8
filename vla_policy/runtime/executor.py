"""One arm's execution: observations in, commands out, and when the policy has to be asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_policy.interfaces import STATE, ActionChunk, InputError, Interface, Observation
from vla_policy.runtime.history import History
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.timeline import Timeline


def measured_pose(observation: Observation) -> np.ndarray:
    """Where the robot is, in the action's units: `observation.state` of robots whose targets are such states."""
    return np.asarray(observation.values[STATE], float)


class Executor:
    """Plays a policy's chunks under limits. Nothing is computed in the background: the caller asks the policy.

    Each control period: `observe`, then, if `needs_chunk`, `accept` what the policy made of `window`, then `command`.
    Times `now` are seconds of the observations' clock. Of a chunk `n_action_steps` rows are executed before a new one
    is wanted; should that come late, the remaining rows bridge the gap, and after them the arm holds.

    `interface` is the policy's, `pose` says where the arm is (D,), in the action's units.
    """

    def __init__(
        self,
        interface: Interface,
        n_obs_steps: int,
        n_action_steps: int,
        limits: Limits,
        pose: Callable[[Observation], np.ndarray] = measured_pose,
    ) -> None:
        if n_action_steps < 1:
            raise InputError(f"executor: expected n_action_steps >= 1, found {n_action_steps}")
        if interface.action.shape != limits.low.shape:
            raise InputError(f"limits: expected shape {interface.action.shape}, found {limits.low.shape}")
        self.interface = interface
        self.n_action_steps = n_action_steps
        self.limits = limits
        self._pose = pose
        self._history = History(n_obs_steps, 1.0 / interface.fps)
        self._timeline = Timeline()
        self._previous: np.ndarray | None = None  # the last command
        self._halted = False

    def reset(self) -> None:
        """Forget everything, at the start of an episode."""
        self._history.clear()
        self._timeline.clear()
        self._previous = None
        self._halted = False

    def halt(self) -> None:
        """Hold from now on, whatever the policy says, until `reset`."""
        self._halted = True

    def observe(self, observation: Observation) -> None:
        """Take in a newer observation; `DataError` if it does not fit the interface."""
        observation.check(self.interface)
        self._history.append(observation)

    def window(self) -> list[Observation]:
        """The policy's input: `n_obs_steps` observations, oldest first."""
        return self._history.window()

    def needs_chunk(self, now: float) -> bool:
        """Whether no chunk is being played, or `n_action_steps` of it are behind us; never once halted."""
        if self._halted:
            return False
        k = self._timeline.index(now)
        return k is None or k >= self.n_action_steps

    def accept(self, chunk: ActionChunk, now: float) -> bool:
        """Play this chunk from now on; False if it is stale and was refused."""
        return self._timeline.offer(chunk, now)

    def command(self, now: float) -> Command:
        """What to send now. Holding stays at the last command; where the arm is measured counts before the first."""
        previous = self._pose(self._history.newest()) if self._previous is None else self._previous
        command = self.limits.gate(None if self._halted else self._timeline.due(now), previous)
        self._previous = command.action
        return command
