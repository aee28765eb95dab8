"""The sections of a composed configuration as dataclasses, and what a model card says of a training."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from vla_policy.training import OPTIMIZERS, TrainerConfig
from vla_policy.utils.provenance import git_commit

Section = TypeVar("Section")


def training_card(config: DictConfig, trainer: TrainerConfig, initial: Any) -> dict[str, Any]:
    """What the model card says of the training, which began with `initial` weights."""
    modules = config.get("init_modules")
    return {
        "steps": trainer.steps,
        "batch_size": trainer.batch_size,
        **({"noise_samples": config.policy.noise_samples} if config.get("policy") else {}),
        "optimiser": f"{OPTIMIZERS[trainer.optimizer]}, "
        f"lr {trainer.lr:g}, warm-up and cosine, weight decay {trainer.weight_decay:g} "
        f"(by itself {100 * trainer.shrinkage:.2g} % over the run)",
        "weights": _weights(trainer),
        "seed": config.seed,
        "initial_weights": initial,
        **({} if modules is None else {"initial_modules": ", ".join(modules)}),
        "git_commit": config.get("git_commit") or git_commit() or "unknown",
    }


def _weights(trainer: TrainerConfig) -> str:
    if trainer.ema_max_decay == 0:
        return "as they are after the last step"
    return f"exponential moving average, power {trainer.ema_power:g}, at most {trainer.ema_max_decay:g}"


def trainer_config(config: DictConfig) -> TrainerConfig:
    """`trainer`; also sets torch's threads, because a frozen backbone encodes the data before there is a trainer."""
    trainer = typed(TrainerConfig, config.trainer)
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    return trainer


def typed(kind: type[Section], config: DictConfig) -> Section:
    """A section of the configuration as its dataclass, checked; keys that an older run lacks have their defaults."""
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    assert isinstance(typed, kind)
    return typed
