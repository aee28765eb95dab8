"""What a model has to offer to be trained by the one loop and stored in a folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla_policy.interfaces import Interface


class TrainableModel(nn.Module):
    """A module with a loss of its own; `card` holds what its model card says."""

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
        """What repeats, for a compiler."""

    @abstractmethod
    def stored_state(self) -> dict[str, Tensor]:
        """The weights that a checkpoint needs."""

    @abstractmethod
    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Put back what `stored_state` gave; `InputError` tells where `source` differs first."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder, whole or not at all; one that exists is replaced."""
