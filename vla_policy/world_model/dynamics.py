"""Multi-step diffusion dynamics p(s[t+1:t+F] | s[t-n:t], a[t:t+F]) of Diffusion-MPC (Zhou et al., arXiv 2410.05364).

All future states are denoised at once by the machinery of the action transformer, with past states and actions as the
tokens that it sees. States are predicted as differences to the newest one, actions are seen relative to it.

Shapes: B windows, n past states, F future steps, D channels of all states together, A of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import Interface
from vla_policy.models.checkpoint import parse_config, read_checkpoint, restored, write_checkpoint
from vla_policy.models.encoder import vector_token
from vla_policy.models.transformer import ActionTransformer, Prefix
from vla_policy.world_model.futures import (
    COMMANDS,
    FUTURE,
    PAST,
    FutureModel,
    denoising_head,
    split,
    state_interface,
)

KIND = "dynamics"


class Dynamics(FutureModel):
    """Imagines the states that follow from a chunk of actions; `interface` has the features of `config.state_keys`."""

    def __init__(
        self,
        config: DynamicsConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.normalizer, self.card = config, normalizer, dict(card or {})
        self.interface = state_interface(config, interface)
        self.sizes = [self.interface.observations[key].shape[0] for key in config.state_keys]
        count, actions, width = sum(self.sizes), self.interface.action.shape[0], config.transformer.width
        normalizer.require({PAST: count, COMMANDS: actions})
        self.state_token = vector_token(count, width)
        self.command_token = vector_token(actions, width)
        self.places = nn.Parameter(torch.randn(config.past + config.future, width) * 0.02)
        self.head = denoising_head(config, count)
        self.transformer = ActionTransformer(self.head.length, config.transformer)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's objective on whole windows."""
        past, future, commands = split(batch, self.config)
        target = self.normalizer.normalize(FUTURE, future.to(self.device))
        loss = self.head.loss(self.transformer, self._prefix(past, commands), target[:, None], generator)
        return loss, {"future": loss.detach()}

    @torch.inference_mode()
    def imagine(self, past: Tensor, commands: Tensor, generator: torch.Generator) -> Tensor:
        """The states (B, F, D) that follow from past ones (B, n, D), oldest first, and commands (B, F, A) in the
        robot's units.
        """
        relative = commands.to(self.device) - self.newest_position(past)
        prefix = self._prefix(past.to(self.device), relative)
        found = self.head.sample(self.transformer, prefix, len(past), generator)
        return past[:, -1:].to(self.device) + self.normalizer.unnormalize(FUTURE, found)

    def spread(self) -> dict[str, Tensor]:
        """Standard deviations (F, D) by key, in training, of how far the state has moved until each future step."""
        future = torch.ones(self.config.future, sum(self.sizes), device=self.device)
        return self.named(self.normalizer.unnormalize(FUTURE, future) - self.normalizer.unnormalize(FUTURE, 0 * future))

    def _prefix(self, past: Tensor, commands: Tensor) -> Prefix:
        states = self.state_token(self.normalizer.normalize(PAST, past.to(self.device)))
        given = self.command_token(self.normalizer.normalize(COMMANDS, commands.to(self.device)))
        return self.transformer.prefix(torch.cat([states, given], dim=1) + self.places)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder atomically; an existing one is replaced."""
        seconds = self.config.future / self.interface.fps
        text = (
            "# Diffusion dynamics\n\n"
            f"The {', '.join(self.config.state_keys)} of the next {seconds:g} s, from {self.config.past} past ones and "
            "the commands in between (Diffusion-MPC, arXiv 2410.05364).\n"
        )
        stored = {KIND: self.config.to_dict(), "card": self.card}
        write_checkpoint(Path(folder), stored, self.interface, self.normalizer, self.stored_state(), text)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Dynamics:
        """Read a folder, or a repository of the Hugging Face hub if no such folder exists; ready to imagine."""
        parts = read_checkpoint(name, KIND)
        config = parse_config(DynamicsConfig.from_dict, parts)
        return restored(lambda: cls(config, parts.interface, parts.normalizer, parts.card), parts).eval()


def fit_dynamics(batch: Mapping[str, Any], config: DynamicsConfig) -> Normalizer:
    """Statistics of all windows: of differences in each future step, of states, and of relative commands."""
    past, future, commands = split(batch, config)
    columns = {FUTURE: future, PAST: past.flatten(0, 1), COMMANDS: commands.flatten(0, 1)}
    return Normalizer.fit({key: values.numpy().astype(np.float32) for key, values in columns.items()}, "mean_std")
