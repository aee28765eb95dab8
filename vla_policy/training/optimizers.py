"""Who takes the steps: AdamW, or Muon for the matrices of a transformer's layers beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vla_policy.conf.training_config import TrainerConfig
from vla_policy.interfaces import InputError
from vla_policy.training.muon import Muon


def make_optimizers(model: nn.Module, config: TrainerConfig) -> list[torch.optim.Optimizer]:
    """For `trainer.optimizer`; of several, each has parameters of its own.

    Muon (https://kellerjordan.github.io/posts/muon) orthogonalises the steps of hidden matrices, and theirs alone; its
    steps are scaled to the size of AdamW's (Moonlight, arXiv:2502.16982), so that learning rate and weight decay are
    of the same kind for both. `InputError` if it would have nothing to do.
    """
    if config.optimizer == "adamw":
        return [_adamw(model, config, [])]
    hidden = hidden_matrices(model)
    if not hidden:
        raise InputError("trainer.optimizer: expected layers that are trained for muon, found none; use adamw")
    return [_adamw(model, config, hidden), Muon(hidden, config.lr, config.weight_decay)]


def _adamw(model: nn.Module, config: TrainerConfig, without: list[Tensor]) -> torch.optim.Optimizer:
    groups = parameter_groups(model, config.weight_decay, without)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=True)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The trained matrices of repeated layers, but for those that make scales and shifts out of the time."""
    return [
        value
        for name, value in model.named_parameters()
        if value.requires_grad and value.ndim == 2 and ".layers." in name and ".modulation." not in name
    ]


def parameter_groups(model: nn.Module, weight_decay: float, without: list[Tensor]) -> list[dict[str, Any]]:
    """Weight decay on matrices and convolutions only, not on biases, norms and position embeddings."""
    left_out = {id(value) for value in without}
    named = [(n, value) for n, value in model.named_parameters() if value.requires_grad and id(value) not in left_out]
    decayed = [value for name, value in named if name.endswith("weight") and value.ndim >= 2]
    others = [value for name, value in named if not (name.endswith("weight") and value.ndim >= 2)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
