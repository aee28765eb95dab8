"""One training run as a library call: a new one, or one that goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from vla_policy.interfaces import InputError
from vla_policy.jobs.trainer import fit
from vla_policy.rollouts.scenes import with_scene
from vla_policy.utils.configuration import load_config

OF_POLICIES = {"policy", "rollout"}
ALSO_WHEN_RESUMING = {"resume", "run_dir"}  # overrides that do not describe the run


def train(overrides: Sequence[str]) -> Path:
    """Train a policy or a world model; the folder of its last checkpoint.

    `overrides` are the words of `vla-train`, for instance `["data.root=DATASET", "run_dir=outputs/train/mine"]`;
    `run_dir` gets the files that it writes. Progress is a bar in a terminal, and messages of `logging` elsewhere.
    Raises `InputError` for a mistake, before the first step.
    """
    config = load_config("train", overrides)
    return run(config, Path(config.run_dir), overrides)


def run(config: DictConfig, run_dir: Path, overrides: Sequence[str]) -> Path:
    """The same of a composed configuration, in a folder that may be another than `config.run_dir`, as in a sweep."""
    keys = {override.partition("=")[0].lstrip("+~") for override in overrides}
    return fit(_configuration(config, run_dir, described=bool(keys - ALSO_WHEN_RESUMING)), run_dir)


def _configuration(config: DictConfig, run_dir: Path, described: bool) -> DictConfig:
    """What to train: `config`, or what `run_dir` holds if it resumes; `described` if overrides describe the run."""
    if config.get("world_model"):  # it has no use for what defines a policy
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key not in OF_POLICIES])
    stored = run_dir / "config.yaml"
    if not stored.is_file():
        if config.resume and OmegaConf.is_missing(config.data, "root"):
            raise InputError(f"resume: expected a run to continue in {run_dir}, found no config.yaml")
        return config
    if not config.resume:
        raise InputError(f"run_dir: {run_dir} holds a run already; give resume=true to continue it, or another run_dir")
    return _same_run(_stored(stored), config, stored, described)


def _stored(path: Path) -> DictConfig:
    """What a run folder holds."""
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise InputError(f"{path}: expected the configuration of a run, found a list")
    values = OmegaConf.to_container(config)
    return OmegaConf.create(with_scene(cast(dict[str, Any], values)))


def _same_run(stored: DictConfig, composed: DictConfig, path: Path, compare: bool) -> DictConfig:
    """The stored configuration; overrides, if there are any, must say the same."""
    if compare:
        ours, theirs = _flat(composed), _flat(stored)
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise InputError(
                f"resume: the overrides differ from {path} in "
                + ", ".join(f"{key} (expected {theirs.get(key)}, found {ours.get(key)})" for key in different)
            )
    stored.resume = True
    return stored


def _flat(config: DictConfig) -> dict[str, Any]:
    """Dotted keys and values, without the keys that do not describe a run."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {k: v for key, value in node.items() for k, v in walk(value, f"{prefix}.{key}".lstrip(".")).items()}

    flat = walk(OmegaConf.to_container(config), "")
    return {key: value for key, value in flat.items() if key not in ALSO_WHEN_RESUMING | {"git_commit"}}
