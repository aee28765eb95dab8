"""The environments of the study. Simulation workers import this module: it must not need torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from sim import Disturbance, PushTConfig, make_disturbed_env


def study_env(
    cameras: Sequence[str], scene: PushTConfig, disturbance: Disturbance | None = None, after: int = 0
) -> gymnasium.Env:
    """PyBullet with `cameras`; the episode ends `after` steps after an event."""
    env = make_disturbed_env("pybullet", cameras, scene, disturbance)
    return env if disturbance is None else StopAfterEvent(env, after)


class StopAfterEvent(gymnasium.Wrapper):
    """Truncates an episode `steps` control steps after its event."""

    def __init__(self, env: gymnasium.Env, steps: int) -> None:
        super().__init__(env)
        self._after, self._step, self._last = steps, 0, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self._step, self._last = 0, info["event_step"] + self._after
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        return observation, reward, terminated, truncated or self._step >= self._last, info
