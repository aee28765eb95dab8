"""Agents that denoise their own future and do what it takes to get there: Diffuser and Decision Diffuser.

The machinery is the action transformer's. The papers hold the present state fixed among the rows that are denoised;
here it is a token that these attend to, and future states are differences to it.

Shapes: B observations, n past states, F future steps, D channels of all states together, A of an action.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import ActionChunk, InputError, Interface, Observation
from vla_policy.models.batching import batch_of
from vla_policy.models.checkpoint import write_checkpoint
from vla_policy.models.encoder import vector_token
from vla_policy.models.transformer import ActionTransformer
from vla_policy.world_model.futures import FUTURE, PAST, FutureModel, denoising_head, state_interface

KIND = "trajectory"


class TrajectoryModel(FutureModel):
    """A `Policy` that plans states, and so many numbers `beside` them, and plays the commands that lead there."""

    title: str  # of the model card
    about: str

    def __init__(
        self,
        config: TrajectoryConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None,
        beside: int,
    ) -> None:
        super().__init__()
        self.config: TrajectoryConfig = config
        self.normalizer, self.card = normalizer, dict(card or {})
        self.interface = state_interface(config, interface)
        self.sizes = [self.interface.observations[key].shape[0] for key in config.state_keys]
        self.n_obs_steps, self.n_action_steps = config.past, config.n_action_steps
        self.count = sum(self.sizes)
        self.require_statistics({PAST: (self.count,), FUTURE: (config.future, self.count)})
        width = config.transformer.width
        self.state_token = vector_token(self.count, width)
        self.places = nn.Parameter(torch.randn(config.past, width) * 0.02)
        self.head = denoising_head(config, self.count + beside)
        self.transformer = ActionTransformer(self.head.length, config.transformer)

    @abstractmethod
    def plan(self, past: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """States (B, F, D) to come after past ones (B, n, D), oldest first, and the commands (B, F, A) that lead there,
        in the robot's units.
        """

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """One chunk a history, with the states that are planned; equal generators give equal chunks."""
        if not histories:
            return []
        self.eval()
        batch = batch_of(histories, self.interface, self.n_obs_steps)
        past = torch.cat([batch[key] for key in self.config.state_keys], dim=-1).to(self.device)
        noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        states, commands = self.plan(past, noise)
        if not (states.isfinite().all() and commands.isfinite().all()):
            raise InputError("policy: expected finite actions, found others; its weights or its guidance are at fault")
        seen = self.named(torch.cat([past[:, -1:], states], dim=1).double().cpu())
        dt = 1.0 / self.interface.fps
        return [
            ActionChunk(rows, history[-1].t, dt, {key: values[k].numpy() for key, values in seen.items()})
            for k, (rows, history) in enumerate(zip(commands.double().cpu().numpy(), histories, strict=True))
        ]

    @property
    def passes(self) -> int:
        """Of the transformer for a chunk."""
        return self.head.calls

    def set_n_action_steps(self, n_action_steps: int) -> None:
        """Execute `n_action_steps` of every plan; `InputError` if a plan has fewer."""
        self.config = replace(self.config, n_action_steps=n_action_steps)
        self.n_action_steps = n_action_steps

    def set_temperature(self, temperature: float) -> None:
        """Begin sampling with noise of another standard deviation (Decision Diffuser's low-temperature sampling)."""
        objective = replace(self.config.objective, temperature=temperature)
        self.config = replace(self.config, objective=objective)
        self.head.temperature = temperature

    def state_tokens(self, past: Tensor) -> Tensor:
        """What the future's rows attend to (B, n, width), of past states (B, n, D)."""
        tokens: Tensor = self.state_token(self.normalizer.normalize(PAST, past.to(self.device))) + self.places
        return tokens

    def states(self, past: Tensor, rows: Tensor) -> Tensor:
        """The states (B, ..., F, D) of normalised differences to the newest of past ones (B, n, D)."""
        newest = past[:, -1].view(len(past), *[1] * (rows.ndim - 2), -1)
        return newest + self.normalizer.unnormalize(FUTURE, rows)

    def require_statistics(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`InputError` unless the normaliser has statistics of these shapes."""
        for key, shape in shapes.items():
            self.normalizer.normalize(key, np.zeros(shape))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder atomically; an existing one is replaced."""
        seconds = self.config.future / self.interface.fps
        text = f"# {self.title}\n\n{self.about} It plans {seconds:g} s, from {self.config.past} past states.\n"
        stored = {KIND: self.config.to_dict(), "card": self.card}
        write_checkpoint(Path(folder), stored, self.interface, self.normalizer, self.stored_state(), text)
