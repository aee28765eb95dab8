"""One loop: batches, optimiser, averaged weights, resume, logs."""

from vla_policy.conf.training_config import OPTIMIZERS, DataConfig, TrainerConfig
from vla_policy.training.batches import fit_normalizer, make_windows, split_episodes
from vla_policy.training.datasets import open_data
from vla_policy.training.frozen import FrozenWindows, Reword, TrainingWindows
from vla_policy.training.loop import Annotate, Rollouts, Trainer
from vla_policy.training.perturbation import StateShift
from vla_policy.training.symmetry import RandomSymmetry, Symmetry
from vla_policy.training.validation import (
    validate_dynamics,
    validate_policy,
    validate_returns,
    validate_trajectories,
    validate_world_model,
)

__all__ = [
    "OPTIMIZERS",
    "Annotate",
    "DataConfig",
    "FrozenWindows",
    "RandomSymmetry",
    "Reword",
    "Rollouts",
    "StateShift",
    "Symmetry",
    "Trainer",
    "TrainerConfig",
    "TrainingWindows",
    "fit_normalizer",
    "make_windows",
    "open_data",
    "split_episodes",
    "validate_dynamics",
    "validate_policy",
    "validate_returns",
    "validate_trajectories",
    "validate_world_model",
]
