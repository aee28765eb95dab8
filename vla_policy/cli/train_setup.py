"""From a composed configuration to a running `Trainer`: dataset, policy, rollouts, the run's own files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from vla_policy.data import Normalizer, Windows
from vla_policy.data.files import write_whole
from vla_policy.evaluation.report import git_commit
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError
from vla_policy.models import Backbone, DiffusionPolicy, PolicyConfig
from vla_policy.training import Annotate, DataConfig, Rollouts, Trainer, TrainerConfig, fit_normalizer, open_data

log = logging.getLogger(__name__)

Section = TypeVar("Section")
TUNING_SEEDS = range(50_000, 100_000)
CORPUS = 6000  # sentences of the task that a new tokenizer is trained on
QUESTION_SHARE = 4  # one observation in so many is asked about


def train(config: DictConfig, run_dir: Path) -> None:
    """Train as `config` says, in `run_dir`, from its last saved state if it resumes."""
    policy_config = PolicyConfig.from_dict(config.policy)
    data, trainer = _typed(DataConfig, config.data), _typed(TrainerConfig, config.trainer)
    rollouts = _rollouts(config, seed=config.seed) if trainer.rollout_every else None
    windows, val_windows, described = open_data(data, policy_config)

    torch.manual_seed(config.seed)
    policy = _policy(policy_config, windows, config)
    policy.card = {"data": described, "training": _training(config)}
    write_config(config, run_dir)
    log.info(
        "%s: %d episodes, %d windows; %.2f M parameters",
        run_dir, described["demonstrations"], len(windows), sum(value.numel() for value in policy.parameters()) / 1e6,
    )  # fmt: skip
    job = Trainer(
        policy, windows, run_dir, trainer, config.seed, val_windows, rollouts, data.num_workers,
        _plain(config), _questions(config, policy_config),
    )  # fmt: skip
    job.fit(config.resume)
    log.info("done: %s", run_dir / "checkpoints" / "last")


def write_config(config: DictConfig, run_dir: Path) -> None:
    """The resolved configuration, the seed in it, and the commit."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    resolved.git_commit = config.get("git_commit") or git_commit()
    write_whole(run_dir / "config.yaml", lambda path: OmegaConf.save(resolved, path))


def _policy(config: PolicyConfig, windows: Windows, run: DictConfig) -> DiffusionPolicy:
    """A new policy, or one with a checkpoint's weights, normalisation and tokenizer."""
    interface = windows.interface
    if run.init_from is None:
        backbone = None
        if config.backbone is not None:
            backbone = Backbone.create(config.backbone, _corpus(run, windows))
            for task in windows.tasks:
                backbone.check_text(task, f"task of dataset {run.data.root}")
        return DiffusionPolicy(config, interface, fit_normalizer(windows, config), backbone=backbone)
    source = DiffusionPolicy.from_pretrained(run.init_from)
    name = f"init_from {run.init_from}"
    source.interface.require(interface, name, f"dataset {run.data.root}")
    if (source.backbone is None) != (config.backbone is None):
        raise InputError(f"{name}: expected {_has(config.backbone)}, as backbone= says, found {_has(source.backbone)}")
    policy = DiffusionPolicy(
        config, interface, Normalizer.from_dict(source.normalizer.to_dict()), backbone=source.backbone
    )
    policy.load_stored(source.stored_state(), name)
    return policy


def _has(backbone: object | None) -> str:
    return "no backbone" if backbone is None else "a backbone"


def _scene(config: DictConfig) -> Any:
    """The scene that `task` describes, with goals to speak of; None for one's own robot."""
    from sim import PushTConfig

    if not config.get("task"):
        return None
    return PushTConfig.from_mapping(_plain(config.task))


def _corpus(config: DictConfig, windows: Windows) -> list[str]:
    """What a new tokenizer learns from: the dataset's sentences and, if the task has any, questions and answers."""
    from sim.language import corpus

    scene = _scene(config)
    more = corpus(scene, CORPUS, np.random.default_rng(config.seed)) if scene is not None and scene.goals else []
    return [*windows.tasks, *more]


def _questions(config: DictConfig, policy: PolicyConfig) -> Annotate | None:
    """Questions and answers about a batch's first scenes, from the state that the simulator tells; None without a task
    that has any.
    """
    from sim.geometry import pose_from_features
    from sim.language import question_answer

    scene = _scene(config)
    if policy.backbone is None or policy.language_weight == 0 or scene is None or not scene.goals:
        return None
    if ENVIRONMENT_STATE not in [*policy.observation_keys, *policy.auxiliary_keys]:
        raise InputError(
            f"policy.language_weight: expected {ENVIRONMENT_STATE} among policy.auxiliary_keys, which the answers are "
            "told from, found none; 0 trains without questions"
        )

    def annotate(batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, list[str]]:
        count = max(1, len(batch["task"]) // QUESTION_SHARE)
        states, blocks = batch[STATE][:count, -1].numpy(), batch[ENVIRONMENT_STATE][:count, -1].numpy()
        pairs = [
            question_answer(state, pose_from_features(block), scene, generator)
            for state, block in zip(states, blocks, strict=True)
        ]
        return {"question": [question for question, _ in pairs], "answer": [answer for _, answer in pairs]}

    return annotate


def _training(config: DictConfig) -> dict[str, Any]:
    """What the model card says of the training."""
    trainer = config.trainer
    return {
        "steps": trainer.steps,
        "batch_size": trainer.batch_size,
        "noise_samples": config.policy.noise_samples,
        "optimiser": f"AdamW, lr {trainer.lr:g}, weight decay {trainer.weight_decay:g}, warm-up and cosine",
        "weights": f"exponential moving average, power {trainer.ema_power:g}, at most {trainer.ema_max_decay:g}",
        "seed": config.seed,
        "initial_weights": config.init_from or "random",
        "git_commit": config.get("git_commit") or git_commit() or "unknown",
    }


def _rollouts(run: DictConfig, seed: int) -> Rollouts:
    """A callback that plays the policy in simulation and returns its success rate and mean max reward."""
    from sim import make_env
    from vla_policy.evaluation.rollout import rollout

    config, scene = run.rollout, _scene(run)
    seeds = range(config["seed"], config["seed"] + config["n_episodes"])
    if not len(seeds) or seeds[0] not in TUNING_SEEDS or seeds[-1] not in TUNING_SEEDS:
        raise InputError(f"rollout.seed, rollout.n_episodes: expected seeds in 50000 to 99999, found {seeds}")

    def play(policy: DiffusionPolicy) -> dict[str, float]:
        cameras = [key.rpartition(".")[2] for key in policy.interface.cameras]
        factory = partial(make_env, config["env"], cameras, scene)
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


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
