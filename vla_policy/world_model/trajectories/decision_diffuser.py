"""Decision Diffuser (Ajay et al. 2023, arXiv 2211.15657): only states are denoised, conditioned on the return; actions
follow by inverse dynamics.

States can be learnt from recordings without actions, and inverse dynamics from a few with them: windows that are not
`IMITATED` teach states alone.

Shapes: B observations, n past states, F future steps, D channels of all states together, A of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.data import IMITATED, REMAINING, Normalizer
from vla_policy.interfaces import STATE, Interface
from vla_policy.models.encoder import vector_token
from vla_policy.models.objectives import Predict
from vla_policy.models.transformer import Prefix
from vla_policy.world_model.futures import COMMANDS, FUTURE, PAST, split
from vla_policy.world_model.trajectories.guidance import classifier_free
from vla_policy.world_model.trajectories.model import TrajectoryModel

STEP = "step"  # what is normalised: the difference between two consecutive states


class DecisionDiffuser(TrajectoryModel):
    """Plans the states of any demonstration, or with `steer` those that lead to a return.

    The return of a plan is discount^k if the demonstration ends k control periods after it.
    """

    title = "Decision Diffuser"
    about = "States to come, denoised for a return, and actions by inverse dynamics (arXiv 2211.15657)."

    def __init__(
        self,
        config: TrajectoryConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, interface, normalizer, card, beside=0)
        actions, width = interface.action.shape[0], config.transformer.width
        self.require_statistics({STEP: (self.count,), COMMANDS: (actions,)})
        self.return_token = vector_token(1, width)
        self.no_return = nn.Parameter(torch.randn(width) * 0.02)
        sizes = [(1 + config.past) * self.count, *[config.inverse_width] * config.inverse_depth, actions]
        self.inverse_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self._target, self._weight = 1.0, 0.0

    def steer(self, target: float, weight: float) -> None:
        """From now on plan for a return in (0, 1]; weight 0: for none, 1: for it, above: more than that."""
        self._target, self._weight = target, weight

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's objective on whole windows, whose return is sometimes hidden, and `inverse_loss`."""
        past, future, _ = (part.to(self.device) for part in split(batch, self.config))
        returns = self.config.discount ** batch[REMAINING].to(self.device)
        draw = torch.rand(len(past), generator=generator, device=generator.device).to(self.device)
        prefix = self._prefix(past, returns, hidden=draw < self.config.condition_dropout)
        target = self.normalizer.normalize(FUTURE, future)
        states = self.head.loss(self.transformer, prefix, target[:, None], generator)
        inverse = self.inverse_loss(batch)
        return states + inverse, {"states": states.detach(), "inverse": inverse.detach()}

    def inverse_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Mean squared error of windows' first commands, where actions are to be learnt; 0 if they are nowhere."""
        past, future, commands = (part[_acted(batch)].to(self.device) for part in split(batch, self.config))
        found = self._inverse(torch.cat([past, past[:, -1:] + future[:, :1]], dim=1))[:, 0]
        truth = self.normalizer.normalize(COMMANDS, commands[:, 0])
        return F.mse_loss(found, truth, reduction="sum") / max(truth.numel(), 1)

    @torch.no_grad()
    def plan(self, past: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        past = past.to(self.device)
        returns, all_of_them = past.new_full((len(past),), self._target), torch.ones(len(past), dtype=torch.bool)
        predict: Predict = self.head.predictor(self.transformer, self._prefix(past, returns, hidden=all_of_them))
        if self._weight:
            wanted = self.head.predictor(self.transformer, self._prefix(past, returns, hidden=~all_of_them))
            predict = classifier_free(wanted, predict, self._weight)
        noise = self.head.noise(len(past), 1, generator, self.device)
        states = self.states(past, self.head.objective.sample(predict, noise, generator)[:, 0])
        return states, self.inverse(torch.cat([past, states], dim=1))

    def inverse(self, states: Tensor) -> Tensor:
        """The commands (B, T - n, A) that make each of states (B, T, D) but the first n of the n before it."""
        positions = self.named(states[:, self.config.past - 1 : -1])[STATE]
        return positions + self.normalizer.unnormalize(COMMANDS, self._inverse(states))

    def _prefix(self, past: Tensor, returns: Tensor, hidden: Tensor) -> Prefix:
        """Past states (B, n, D) and returns (B,), which are not seen where `hidden` (B,)."""
        token = torch.where(hidden.to(self.device)[:, None], self.no_return, self.return_token(returns[:, None]))
        return self.transformer.prefix(torch.cat([self.state_tokens(past), token[:, None]], dim=1))

    def _inverse(self, states: Tensor) -> Tensor:
        """Normalised commands of `inverse`, relative to where the robot is: from each state and the steps around it."""
        count = self.config.past
        steps = self.normalizer.normalize(STEP, states.diff(dim=1)).unfold(1, count, 1)  # (B, T - n, D, n)
        newest = self.normalizer.normalize(PAST, states[:, count - 1 : -1])
        x = torch.cat([newest, steps.flatten(2)], dim=-1)
        first, *others = (cast(nn.Linear, layer) for layer in self.inverse_layers)
        x = first(x)
        for layer in others:
            x = layer(F.silu(x))
        return x


def fit_decision_diffuser(batch: Mapping[str, Any], config: TrajectoryConfig) -> Normalizer:
    """Statistics of all windows: of states, of differences in each future step and from step to step; and of the first
    relative command, where the actions are to be learnt.
    """
    past, future, commands = split(batch, config)
    columns = {FUTURE: future, PAST: past.flatten(0, 1), STEP: future[:, 0], COMMANDS: commands[_acted(batch), 0]}
    return Normalizer.fit({key: values.numpy().astype(np.float32) for key, values in columns.items()}, "mean_std")


def _acted(batch: Mapping[str, Any]) -> Any:
    """Which windows of a batch have actions to learn from."""
    return batch.get(IMITATED, slice(None))
