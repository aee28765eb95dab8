"""The latest observations, one control period apart, as the input of a policy."""

from __future__ import annotations

from collections import deque

from vla_policy.interfaces import DataError, InputError, Observation


class History:
    """Keeps the observations from which windows of `n_obs_steps`, one `dt` (seconds) apart, are formed.

    Observations may arrive faster than `1 / dt`: the closest one in time is used for each step. At the start the first
    observation is repeated, as in Diffusion Policy.
    """

    def __init__(self, n_obs_steps: int, dt: float) -> None:
        if n_obs_steps < 1 or not dt > 0:
            raise InputError(f"history: expected n_obs_steps >= 1 and dt > 0, found {n_obs_steps} and {dt}")
        self.n_obs_steps = n_obs_steps
        self.dt = dt
        self._observations: deque[Observation] = deque()

    def __len__(self) -> int:
        return len(self._observations)

    def clear(self) -> None:
        self._observations.clear()

    def append(self, observation: Observation) -> None:
        """Add a newer observation; `DataError` if its time stamp does not lie after the last one."""
        if self._observations and not observation.t > self._observations[-1].t:
            raise DataError(
                f"observation time stamp: expected more than {self._observations[-1].t:g} s, found {observation.t:g} s"
            )
        self._observations.append(observation)
        oldest_wanted = observation.t - (self.n_obs_steps - 1) * self.dt
        # The second one already covers the oldest step: the first is not needed again.
        while len(self._observations) > 1 and self._observations[1].t <= oldest_wanted:
            self._observations.popleft()

    def newest(self) -> Observation:
        """The last observation; `InputError` if there is none."""
        if not self._observations:
            raise InputError("history: expected at least one observation, found none")
        return self._observations[-1]

    def window(self) -> list[Observation]:
        """`n_obs_steps` observations, oldest first; the last one is the newest."""
        newest = self.newest()
        moments = [newest.t - k * self.dt for k in reversed(range(self.n_obs_steps))]
        return [min(self._observations, key=lambda seen: abs(seen.t - moment)) for moment in moments]
