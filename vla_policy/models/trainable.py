"""The interface of models for the training loop and checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla_policy.interfaces import Interface


class TrainableModel(nn.Module):
    """A module with its own loss; `card` is the content of its model card."""

    card: dict[str, Any]
    interface: Interface

    @abstractmethod
    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar and its parts by name, for a batch as `WindowDataset` makes it."""

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss`, under the name that lets Accelerate wrap it."""
        return self.loss(batch, generator)

    @abstractmethod
    def compiled_parts(self) -> list[nn.Module]:
        """Repeated layers, for regional compilation."""

    @abstractmethod
    def stored_state(self) -> dict[str, Tensor]:
        """The weights of a checkpoint."""

    @abstractmethod
    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Restore `stored_state`; `InputError` names the first difference of `source`."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder atomically; an existing one is replaced."""
