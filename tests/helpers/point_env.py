"""A point that is driven to the origin: the smallest thing an evaluation can run on, importable by its workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, ActionChunk, Feature, Interface, Observation

DT = 0.1
INTERFACE = Interface(
    {STATE: Feature("float32", (2,)), ENVIRONMENT_STATE: Feature("float32", (2,))}, Feature("float32", (2,)), 1 / DT
)


class PointEnv(gymnasium.Env):
    """State: a position in [-1, 1]^2 that follows the target, 0.1 a step. Coverage: 1 - distance to the origin."""

    interface = INTERFACE
    task = "Go to the origin."
    observation_space = gymnasium.spaces.Dict(
        {k: gymnasium.spaces.Box(-1, 1, (2,)) for k in (STATE, ENVIRONMENT_STATE)}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self, kill_at_seed: int | None = None, raise_at_seed: int | None = None, limit: int = 30) -> None:
        self.kill_at_seed, self.raise_at_seed, self.limit = kill_at_seed, raise_at_seed, limit

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        if seed == self.kill_at_seed and seed is not None:
            os._exit(7)
        if seed == self.raise_at_seed and seed is not None:
            raise RuntimeError("the table caught fire")
        self.position = self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.position = self.position + np.clip(action - self.position, -0.1, 0.1)
        self.steps += 1
        info = self._info()
        return (
            self._observe(),
            min(info["coverage"] / 0.95, 1.0),
            info["is_success"],
            self.steps >= self.limit,
            info,
        )

    def render(self) -> np.ndarray:
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[:, :, 0] = int(255 * np.clip(self._info()["coverage"], 0, 1))
        return picture

    def _observe(self) -> dict[str, np.ndarray]:
        return {STATE: self.position.astype(np.float32), ENVIRONMENT_STATE: np.zeros(2, np.float32)}

    def _info(self) -> dict[str, Any]:
        coverage = max(0.0, 1 - float(np.linalg.norm(self.position)))
        return {
            "is_success": coverage > 0.95,
            "coverage": coverage,
            "pos_agent": self.position.copy(),
            "block_pose": np.append(self.position, 0.0),
        }


class Scripted:
    """Drives from where the point is to the origin, with noise of a given size; 8 rows, of which 4 are played."""

    def __init__(self, noise: float = 0.0, interface: Interface | None = None) -> None:
        self.interface = interface or INTERFACE.select([STATE])
        self.n_obs_steps, self.n_action_steps, self.noise = 2, 4, noise
        self.batches: list[int] = []

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.batches.append(len(histories))
        noise = self.noise * generator.standard_normal((len(histories), 8, 2))
        fraction = np.linspace(0.5, 0, 8)[:, None]
        return [
            ActionChunk(history[-1].values[STATE] * fraction + n, history[-1].t, DT)
            for history, n in zip(histories, noise, strict=True)
        ]


class OwnScripted(Scripted):
    """One for each episode, as stateful policies want it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
