"""Builds the `Trainer` of a model that imagines: a world model, or the dynamics or the returns of Diffusion-MPC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.data import Windows
from vla_policy.interfaces import InputError
from vla_policy.jobs.policy import earlier_training
from vla_policy.jobs.scene import plain
from vla_policy.jobs.sections import trainer_config, training_card, typed
from vla_policy.training import (
    DataConfig,
    Trainer,
    TrainerConfig,
    open_data,
    validate_dynamics,
    validate_returns,
    validate_world_model,
)
from vla_policy.training.loop import Validate
from vla_policy.world_model import WorldModel, WorldModelConfig, fit_actions
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics
from vla_policy.world_model.returns import ReturnModel, fit_states

Imagining = WorldModel | Dynamics | ReturnModel
NAMES: dict[type[Imagining], str] = {WorldModel: "a world model", Dynamics: "dynamics", ReturnModel: "a return model"}
OF_POLICIES = (
    *("init_modules", "data.symmetries", "data.state_noise", "data.action_loss", "data.shuffle_actions"),
    "data.drop_before_intervention",
    "distill.teacher",
)


def world_model_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.world_model`."""
    chosen = WorldModelConfig.from_dict(config.world_model)

    def new(windows: Windows) -> WorldModel:
        return WorldModel(chosen, windows.interface, fit_actions(windows.columns, chosen.auxiliary_keys))

    def like(source: Imagining, windows: Windows) -> WorldModel:
        return WorldModel(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, WorldModel, new, like, validate_world_model)


def dynamics_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.dynamics`."""
    chosen = DynamicsConfig.from_dict(config.dynamics)

    def new(windows: Windows) -> Dynamics:
        normalizer = fit_dynamics(windows.vectors(np.arange(len(windows))), chosen)
        return Dynamics(chosen, windows.interface, normalizer)

    def like(source: Imagining, windows: Windows) -> Dynamics:
        return Dynamics(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, Dynamics, new, like, validate_dynamics)


def return_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.returns`."""
    chosen = ReturnConfig.from_dict(config.returns)

    def new(windows: Windows) -> ReturnModel:
        return ReturnModel(chosen, windows.interface, fit_states(windows.columns, chosen))

    def like(source: Imagining, windows: Windows) -> ReturnModel:
        return ReturnModel(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, ReturnModel, new, like, validate_returns)


def _trainer(
    config: DictConfig,
    run_dir: Path,
    chosen: WorldModelConfig | DynamicsConfig | ReturnConfig,
    kind: type[WorldModel] | type[Dynamics] | type[ReturnModel],
    new: Callable[[Windows], Imagining],
    like: Callable[[Imagining, Windows], Imagining],
    validate: Validate,
) -> Trainer:
    """The trainer of a `new` model, or of one `like` the checkpoint that it is initialised from."""
    data, trainer = typed(DataConfig, config.data), trainer_config(config)
    what = NAMES[kind]
    _refuse_options_of_policies(config, trainer, what)
    windows, val_windows, described = open_data(data, chosen)
    if val_windows is None:
        raise InputError(f"data.val_episodes: expected held-out episodes, which show what {what} is worth, found 0")
    torch.manual_seed(config.seed)
    initial: Any = "random"
    if config.init_from is None:
        model = new(windows)
    else:
        name = f"init_from {config.init_from}"
        source: Imagining = kind.from_pretrained(config.init_from)
        source.interface.require(windows.interface, name, f"dataset {config.data.root}")
        model = like(source, windows)
        model.load_stored(source.stored_state(), name)
        initial = earlier_training(source)
    model.card = {"data": described, "training": training_card(config, trainer, initial)}
    settings = config.seed, val_windows, None, data.num_workers, plain(config)
    return Trainer(model, windows, run_dir, trainer, *settings, validate=validate)


def _refuse_options_of_policies(config: DictConfig, trainer: TrainerConfig, what: str) -> None:
    if trainer.rollout_every:
        raise InputError(f"trainer.rollout_every: expected 0 for {what}, found {trainer.rollout_every}")
    for name in OF_POLICIES:
        if value := OmegaConf.select(config, name):
            raise InputError(f"{name}: expected none for {what}, found {value}")
