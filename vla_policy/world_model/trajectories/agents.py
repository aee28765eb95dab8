"""The agents that plan trajectories, by the kind in their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.data import Normalizer
from vla_policy.models.checkpoint import parse_config, read_checkpoint, restored
from vla_policy.world_model.trajectories.decision_diffuser import DecisionDiffuser, fit_decision_diffuser
from vla_policy.world_model.trajectories.diffuser import Diffuser, fit_diffuser
from vla_policy.world_model.trajectories.model import KIND, TrajectoryModel

AGENTS: dict[str, type[Diffuser] | type[DecisionDiffuser]] = {
    "diffuser": Diffuser,
    "decision_diffuser": DecisionDiffuser,
}
STATISTICS = {"diffuser": fit_diffuser, "decision_diffuser": fit_decision_diffuser}


def fit_trajectories(batch: Mapping[str, Any], config: TrajectoryConfig) -> Normalizer:
    """The statistics of all windows that an agent of this kind needs."""
    return STATISTICS[config.kind](batch, config)


def load_agent(name: str | Path) -> TrajectoryModel:
    """Read a folder, or a repository of the Hugging Face hub if no such folder exists; ready to act."""
    parts = read_checkpoint(name, KIND)
    config = parse_config(TrajectoryConfig.from_dict, parts)
    kind = AGENTS[config.kind]
    return restored(lambda: kind(config, parts.interface, parts.normalizer, parts.card), parts).eval()
