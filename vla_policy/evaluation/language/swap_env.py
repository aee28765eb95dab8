"""The environment of the swap test. Simulation workers import it: nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from sim import PushTConfig, make_env

COVERAGE, STEPS = 0.8, 10  # a goal is reached where its coverage was no less for so many steps in a row


class UntilReached(gymnasium.Wrapper):
    """The episode of a `LanguagePushTEnv`, ended by reaching any goal; `info` gains `reached`, its name or ""."""

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
