"""vla-train: a Hydra program that trains a policy or a world model on a LeRobotDataset."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vla_policy.cli.common import as_they_are, refuse_task, user_errors
from vla_policy.interfaces import InputError

OF_POLICIES = {"policy", "rollout"}
ALSO_WHEN_RESUMING = {"resume", "run_dir"}  # overrides that do not describe the run


@hydra.main(version_base="1.3", config_path="pkg://vla_policy.conf", config_name="train")
@user_errors
def run(config: DictConfig) -> None:
    """One run, in Hydra's output folder."""
    from vla_policy.jobs.trainer import train  # torch is slow to import: not for --help

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    overrides = {override.partition("=")[0].lstrip("+~") for override in hydra_config.overrides.task}
    try:
        train(_configuration(config, run_dir, described=bool(overrides - ALSO_WHEN_RESUMING)), run_dir)
    except BaseException:
        with suppress(FileNotFoundError):  # of several processes another one was faster
            if not any(run_dir.iterdir()):  # Hydra makes the folder before anything can be wrong
                run_dir.rmdir()
        raise


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
    from vla_policy.rollouts.scenes import with_scene

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


@user_errors
def main() -> None:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors over; `user_errors` makes them one line
    refuse_task(sys.argv[1:])
    sys.argv[1:] = as_they_are(sys.argv[1:], sweep=not {"-m", "--multirun"}.isdisjoint(sys.argv))
    run()


if __name__ == "__main__":
    main()
