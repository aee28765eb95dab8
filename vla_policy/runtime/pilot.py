"""When to call the policy, and with which input: the input side of a robot's execution."""

from __future__ import annotations

from vla_policy.interfaces import Interface, Observation
from vla_policy.runtime.buffer import ObservationBuffer
from vla_policy.runtime.history import History

_ROUNDING = 1e-3  # seconds; cameras stamp a period apart to within microseconds


class Pilot:
    """Turns samples in `buffer` into windows, one per `n_action_steps` control periods."""

    def __init__(self, interface: Interface, n_obs_steps: int, n_action_steps: int, buffer: ObservationBuffer) -> None:
        self.interface, self.buffer = interface, buffer
        self._history = History(n_obs_steps, 1.0 / interface.fps)
        self._period = n_action_steps / interface.fps
        self._asked: float | None = None  # t_obs of the last window

    def reset(self, now: float) -> None:
        """Restart with observations after `now`."""
        self.buffer.clear(now)
        self._history.clear()
        self._asked = None

    def observe(self, task: str) -> Observation | None:
        """The newest observation if there is a new one; `DataError` if it does not match the interface."""
        observation = self.buffer.newest(task)
        if observation is not None:
            observation.check(self.interface)
            if len(self._history) and observation.t <= self._history.newest().t:  # the clock was set back
                self._history.clear()
                self._asked = None
            self._history.append(observation)
        return observation

    def window(self) -> list[Observation] | None:
        """The policy's input if a chunk is needed, else None."""
        if not len(self._history):
            return None
        t = self._history.newest().t
        if self._asked is not None and t < self._asked + self._period - _ROUNDING:
            return None
        return self._history.window()

    def asked(self, window: list[Observation]) -> None:
        """Note that the policy was called with this window."""
        self._asked = window[-1].t
