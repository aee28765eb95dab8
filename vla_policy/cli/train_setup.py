"""From a composed configuration to a running `Trainer`: dataset, policy, rollouts, the run's own files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from vla_policy.data import LeRobotDataset, Normalizer, WindowDataset
from vla_policy.data.files import write_whole
from vla_policy.evaluation.report import git_commit
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.models.checkpoint import load_weights
from vla_policy.training import (
    DataConfig,
    Rollouts,
    Trainer,
    TrainerConfig,
    fit_normalizer,
    make_windows,
    split_episodes,
)

log = logging.getLogger(__name__)

Section = TypeVar("Section")
TUNING_SEEDS = range(50_000, 100_000)


def train(config: DictConfig, run_dir: Path) -> None:
    """Train as `config` says, in `run_dir`, from its last saved state if it resumes."""
    policy_config = PolicyConfig.from_dict(config.policy)
    data, trainer = _typed(DataConfig, config.data), _typed(TrainerConfig, config.trainer)
    dataset = LeRobotDataset(data.root)
    dataset.interface.select([*policy_config.observation_keys, *policy_config.auxiliary_keys])
    training, held_out = split_episodes(dataset.num_episodes, data)
    rollouts = _rollouts(config.rollout, seed=config.seed) if trainer.rollout_every else None
    windows = make_windows(dataset, policy_config, training, data.cache_dir)
    val_windows = make_windows(dataset, policy_config, held_out, data.cache_dir) if held_out else None

    torch.manual_seed(config.seed)
    policy = _policy(policy_config, windows, config.init_from)
    policy.card = _card(config, dataset, training, held_out, windows)
    write_config(config, run_dir)
    log.info(
        "%s: %d episodes, %d windows; %.2f M parameters",
        run_dir, len(training), len(windows), sum(value.numel() for value in policy.parameters()) / 1e6,
    )  # fmt: skip
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    job = Trainer(
        policy, windows, run_dir, trainer, config.seed, val_windows, rollouts, data.num_workers,
        {str(key): value for key, value in settings.items()},
    )  # fmt: skip
    job.fit(config.resume)
    log.info("done: %s", run_dir / "checkpoints" / "last")


def write_config(config: DictConfig, run_dir: Path) -> None:
    """The resolved configuration, the seed in it, and the commit."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    resolved.git_commit = config.get("git_commit") or git_commit()
    write_whole(run_dir / "config.yaml", lambda path: OmegaConf.save(resolved, path))


def _policy(config: PolicyConfig, windows: WindowDataset, init_from: str | None) -> DiffusionPolicy:
    """A new policy, or one with a checkpoint's weights and the normalisation that belongs to them."""
    interface = windows.interface
    if init_from is None:
        return DiffusionPolicy(config, interface, fit_normalizer(windows, config))
    source = DiffusionPolicy.from_pretrained(init_from)
    source.interface.require(interface, f"init_from {init_from}", f"dataset {windows.dataset.root}")
    policy = DiffusionPolicy(config, interface, Normalizer.from_dict(source.normalizer.to_dict()))
    load_weights(policy, source.state_dict(), f"init_from {init_from}")
    return policy


def _card(
    config: DictConfig, dataset: LeRobotDataset, episodes: list[int], held_out: list[int], windows: WindowDataset
) -> dict[str, Any]:
    trainer = config.trainer
    return {
        "data": {
            "dataset": Path(dataset.root).name,
            "tasks": " / ".join(dataset.tasks),
            "demonstrations": len(episodes),
            "split": f"{len(episodes)} of {dataset.num_episodes} episodes, split seed {config.data.split_seed}",
            "held_out_episodes": sorted(held_out),
            "windows": len(windows),
        },
        "training": {
            "steps": trainer.steps,
            "batch_size": trainer.batch_size,
            "noise_samples": config.policy.noise_samples,
            "optimiser": f"AdamW, lr {trainer.lr:g}, weight decay {trainer.weight_decay:g}, warm-up and cosine",
            "weights": f"exponential moving average, power {trainer.ema_power:g}, at most {trainer.ema_max_decay:g}",
            "seed": config.seed,
            "initial_weights": config.init_from or "random",
            "git_commit": config.get("git_commit") or git_commit() or "unknown",
        },
    }


def _rollouts(config: Mapping[str, Any], seed: int) -> Rollouts:
    """A callback that plays the policy in simulation and returns its success rate and mean max reward."""
    from sim import make_env
    from vla_policy.evaluation.rollout import rollout

    seeds = range(config["seed"], config["seed"] + config["n_episodes"])
    if not len(seeds) or seeds[0] not in TUNING_SEEDS or seeds[-1] not in TUNING_SEEDS:
        raise InputError(f"rollout.seed, rollout.n_episodes: expected seeds in 50000 to 99999, found {seeds}")

    def play(policy: DiffusionPolicy) -> dict[str, float]:
        factory = partial(make_env, config["env"], [key.rpartition(".")[2] for key in policy.interface.cameras])
        results = rollout(policy, factory, list(seeds), config["num_envs"], config["num_workers"], seed)
        return {
            "success_rate": sum(result.success for result in results) / len(results),
            "mean_max_reward": sum(result.max_reward for result in results) / len(results),
        }

    return play


def _typed(kind: type[Section], config: DictConfig) -> Section:
    """A section of the configuration as its dataclass, types checked."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    assert known == set(config), f"conf and {kind.__name__} disagree: {known ^ set(config)}"
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    assert isinstance(typed, kind)
    return typed
