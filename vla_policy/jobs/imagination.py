"""Builds the `Trainer` of a model that imagines: a world model, dynamics or returns of Diffusion-MPC, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.conf.trajectory_config import TrajectoryConfig
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
    validate_trajectories,
    validate_world_model,
)
from vla_policy.training.loop import Validate
from vla_policy.world_model import WorldModel, WorldModelConfig, fit_actions
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics
from vla_policy.world_model.returns import ReturnModel, fit_states
from vla_policy.world_model.trajectories.agents import AGENTS, fit_trajectories, load_agent
from vla_policy.world_model.trajectories.model import TrajectoryModel

Imagining = WorldModel | Dynamics | ReturnModel | TrajectoryModel
ImaginingConfig = WorldModelConfig | DynamicsConfig | ReturnConfig | TrajectoryConfig
ACTION_LOSS = "data.action_loss"
OF_POLICIES = (
    *("init_modules", "data.symmetries", "data.state_noise", ACTION_LOSS, "data.shuffle_actions"),
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

    return _trainer(
        config, run_dir, chosen, "a world model", WorldModel.from_pretrained, new, like, validate_world_model
    )


def dynamics_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.dynamics`."""
    chosen = DynamicsConfig.from_dict(config.dynamics)

    def new(windows: Windows) -> Dynamics:
        normalizer = fit_dynamics(windows.vectors(np.arange(len(windows))), chosen)
        return Dynamics(chosen, windows.interface, normalizer)

    def like(source: Imagining, windows: Windows) -> Dynamics:
        return Dynamics(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, "dynamics", Dynamics.from_pretrained, new, like, validate_dynamics)


def return_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.returns`."""
    chosen = ReturnConfig.from_dict(config.returns)

    def new(windows: Windows) -> ReturnModel:
        return ReturnModel(chosen, windows.interface, fit_states(windows.columns, chosen))

    def like(source: Imagining, windows: Windows) -> ReturnModel:
        return ReturnModel(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, "a return model", ReturnModel.from_pretrained, new, like, validate_returns)


def trajectory_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of `config.trajectory`."""
    chosen = TrajectoryConfig.from_dict(config.trajectory)
    agent = AGENTS[chosen.kind]

    def new(windows: Windows) -> TrajectoryModel:
        return agent(chosen, windows.interface, fit_trajectories(windows.vectors(np.arange(len(windows))), chosen))

    def like(source: Imagining, windows: Windows) -> TrajectoryModel:
        return agent(chosen, windows.interface, source.normalizer)

    return _trainer(config, run_dir, chosen, f"a {chosen.kind}", load_agent, new, like, validate_trajectories)


def _trainer(
    config: DictConfig,
    run_dir: Path,
    chosen: ImaginingConfig,
    what: str,
    load: Callable[[str], Imagining],
    new: Callable[[Windows], Imagining],
    like: Callable[[Imagining, Windows], Imagining],
    validate: Validate,
) -> Trainer:
    """The trainer of a `new` model, or of one `like` the checkpoint that it is initialised from."""
    data, trainer = typed(DataConfig, config.data), trainer_config(config)
    actionless = isinstance(chosen, TrajectoryConfig) and chosen.kind == "decision_diffuser"  # states need no actions
    _refuse_options_of_policies(config, trainer, what, {ACTION_LOSS} if actionless else set())
    windows, val_windows, described = open_data(data, chosen, led=actionless)
    if val_windows is None:
        raise InputError(f"data.val_episodes: expected held-out episodes, which show what {what} is worth, found 0")
    torch.manual_seed(config.seed)
    initial: Any = "random"
    if config.init_from is None:
        model = new(windows)
    else:
        name = f"init_from {config.init_from}"
        source = load(config.init_from)
        source.interface.require(windows.interface, name, f"dataset {config.data.root}")
        model = like(source, windows)
        model.load_stored(source.stored_state(), name)
        initial = earlier_training(source)
    model.card = {"data": described, "training": training_card(config, trainer, initial)}
    settings = config.seed, val_windows, None, data.num_workers, plain(config)
    return Trainer(model, windows, run_dir, trainer, *settings, validate=validate)


def _refuse_options_of_policies(config: DictConfig, trainer: TrainerConfig, what: str, but: Collection[str]) -> None:
    if trainer.rollout_every:
        raise InputError(f"trainer.rollout_every: expected 0 for {what}, found {trainer.rollout_every}")
    for name in [name for name in OF_POLICIES if name not in but]:
        if value := OmegaConf.select(config, name):
            raise InputError(f"{name}: expected none for {what}, found {value}")
