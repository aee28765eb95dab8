"""One training run as a library call: a new one, or one that is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.conf.training_config import DataConfig, DistillConfig, TrainerConfig
from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.conf.world_model_config import WorldModelConfig
from vla_policy.interfaces import InputError
from vla_policy.jobs.trainer import IMAGINING, fit
from vla_policy.rollouts.scenes import with_scene
from vla_policy.utils.configuration import load_config

POLICY_SECTIONS = {"policy", "rollout"}
RUN_KEYS = {"resume", "run_dir"}  # overrides that do not describe the training


def train(overrides: Sequence[str]) -> Path:
    """Train a policy, a world model, dynamics, a return model or trajectories; the folder of the last checkpoint.

    `overrides` are those of `vla-train`, for instance `["data.root=DATASET", "run_dir=outputs/train/mine"]`; files are
    written to `run_dir`. Progress is a bar in a terminal, and messages of `logging` elsewhere. Raises `InputError` for
    a mistake, before the first step.
    """
    config = load_config("train", overrides)
    return run(config, Path(config.run_dir), overrides)


def run(config: DictConfig, run_dir: Path, overrides: Sequence[str]) -> Path:
    """Train from a composed configuration, in a folder that may differ from `config.run_dir`, as in a sweep."""
    keys = {override.partition("=")[0].lstrip("+~") for override in overrides}
    return fit(_configuration(config, run_dir, described=bool(keys - RUN_KEYS)), run_dir)


def _configuration(config: DictConfig, run_dir: Path, described: bool) -> DictConfig:
    """`config`, or the stored configuration to resume; `described` if overrides describe the training."""
    if any(config.get(kind) for kind in IMAGINING):  # without the sections of a policy
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key not in POLICY_SECTIONS])
    stored = run_dir / "config.yaml"
    if not stored.is_file():
        if config.resume and OmegaConf.is_missing(config.data, "root"):
            raise InputError(f"resume: expected a run to resume in {run_dir}, found no config.yaml")
        return config
    if not config.resume:
        raise InputError(f"run_dir: {run_dir} holds a run already; give resume=true to resume it, or another run_dir")
    return _same_run(_stored(stored), config, stored, described)


def _stored(path: Path) -> DictConfig:
    """The configuration in a run folder."""
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise InputError(f"{path}: expected the configuration of a run, found a list")
    values = OmegaConf.to_container(config)
    return OmegaConf.create(with_scene(cast(dict[str, Any], values)))


def _same_run(stored: DictConfig, composed: DictConfig, path: Path, compare: bool) -> DictConfig:
    """The stored configuration; `InputError` if the overrides differ from it."""
    if compare:
        ours, theirs = _flat(composed), _flat(stored)
        theirs = {key: value for key, value in _flat(_defaults()).items() if key in ours} | theirs  # of an older run
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise InputError(
                f"resume: the overrides differ from {path} in "
                + ", ".join(f"{key} (expected {theirs.get(key)}, found {ours.get(key)})" for key in different)
            )
    stored.resume = True
    return stored


def _defaults() -> DictConfig:
    """The defaults of keys that a run from before them lacks."""
    sections: dict[str, Any] = {"data": DataConfig("?"), "trainer": TrainerConfig(), "distill": DistillConfig()}
    sections |= {"policy": PolicyConfig(), "world_model": WorldModelConfig(), "dynamics": DynamicsConfig()}
    sections |= {"returns": ReturnConfig(), "trajectory": TrajectoryConfig()}
    return OmegaConf.create({name: asdict(section) for name, section in sections.items()})


def _flat(config: DictConfig) -> dict[str, Any]:
    """Values by dotted key, without `RUN_KEYS` and the commit."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {k: v for key, value in node.items() for k, v in walk(value, f"{prefix}.{key}".lstrip(".")).items()}

    flat = walk(OmegaConf.to_container(config), "")
    return {key: value for key, value in flat.items() if key not in RUN_KEYS | {"git_commit"}}
