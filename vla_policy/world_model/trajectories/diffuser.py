"""Diffuser (Janner et al. 2022, arXiv 2205.09991): states and actions are denoised jointly, and a value guides them.

Shapes: B observations, n past states, F future steps, D channels of all states together, A of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import Interface
from vla_policy.models.objectives import Predict
from vla_policy.world_model.futures import COMMANDS, FUTURE, PAST, split
from vla_policy.world_model.trajectories.guidance import value_guided
from vla_policy.world_model.trajectories.model import TrajectoryModel

Value = Callable[[Mapping[str, Tensor]], Tensor]  # of states (..., F, D) by key to (...), the higher the better


class Diffuser(TrajectoryModel):
    """Plans as was demonstrated, or with `steer` what a value prefers of that."""

    title = "Diffuser"
    about = "States and actions to come, denoised jointly (arXiv 2205.09991)."

    def __init__(
        self,
        config: TrajectoryConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, interface, normalizer, card, beside=interface.action.shape[0])
        self.require_statistics({COMMANDS: (config.future, *interface.action.shape)})
        self._value: Value | None = None
        self._weight = 0.0

    def steer(self, value: Value | None, weight: float = 1.0) -> None:
        """From now on plan for exp(weight * value) times the likelihood; None: as was demonstrated."""
        self._value, self._weight = value, weight

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's objective on whole windows."""
        past, future, commands = (part.to(self.device) for part in split(batch, self.config))
        parts = self.normalizer.normalize(FUTURE, future), self.normalizer.normalize(COMMANDS, commands)
        prefix = self.transformer.prefix(self.state_tokens(past))
        loss = self.head.loss(self.transformer, prefix, torch.cat(parts, dim=-1)[:, None], generator)
        return loss, {"trajectory": loss.detach()}

    @torch.no_grad()
    def plan(self, past: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        past = past.to(self.device)
        predict: Predict = self.head.predictor(self.transformer, self.transformer.prefix(self.state_tokens(past)))
        if self._value is not None:
            levels = self.head.objective.levels()
            predict = value_guided(predict, levels, lambda rows: self.worth(past, rows), self._weight)
        noise = self.head.noise(len(past), 1, generator, self.device)
        rows = self.head.objective.sample(predict, noise, generator)[:, 0]
        states, commands = rows[..., : self.count], rows[..., self.count :]
        return self.states(past, states), self.newest_position(past) + self.normalizer.unnormalize(COMMANDS, commands)

    def worth(self, past: Tensor, rows: Tensor) -> Tensor:
        """The value (B, ...) of normalised rows (B, ..., F, D + A) after past states (B, n, D)."""
        assert self._value is not None
        return self._value(self.named(self.states(past, rows[..., : self.count])))


def fit_diffuser(batch: Mapping[str, Any], config: TrajectoryConfig) -> Normalizer:
    """Statistics of all windows: of differences and relative commands in each future step, and of states."""
    past, future, commands = split(batch, config)
    columns = {FUTURE: future, PAST: past.flatten(0, 1), COMMANDS: commands}
    return Normalizer.fit({key: values.numpy().astype(np.float32) for key, values in columns.items()}, "mean_std")
