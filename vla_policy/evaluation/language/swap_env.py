"""The environment of the swap test. Simulation workers import this module: it must not need torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from sim import PushTConfig, make_env

COVERAGE, STEPS = 0.8, 10  # a goal is reached after `STEPS` consecutive steps with at least this coverage


class UntilReached(gymnasium.Wrapper):
    """Ends an episode of a `LanguagePushTEnv` when any goal is reached; adds `reached`, its name or "", to `info`."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self._held = dict.fromkeys(info["coverages"], 0)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, truncated, info = self.env.step(action)
        for name, covered in info["coverages"].items():
            self._held[name] = self._held[name] + 1 if covered >= COVERAGE else 0
        info["reached"] = next((name for name, steps in self._held.items() if steps >= STEPS), "")
        info["is_success"] = info["reached"] == info["goal"]
        return observation, reward, bool(info["reached"]), truncated, info


def swap_env(scene: PushTConfig, cameras: Sequence[str] = ()) -> UntilReached:
    """The environment of the test."""
    return UntilReached(make_env("pybullet", cameras, scene))
