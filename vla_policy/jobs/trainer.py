"""Builds a `Trainer` from a composed configuration: dataset, policy, rollouts, files of the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf

from vla_policy.conf.training_config import DistillConfig
from vla_policy.interfaces import InputError, within
from vla_policy.jobs.distill import composed, sampled_actions
from vla_policy.jobs.policy import earlier_training, start_policy
from vla_policy.jobs.scene import annotation, augmentation, plain, rewording, rollouts
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import (
    OPTIMIZERS,
    Annotate,
    DataConfig,
    FrozenWindows,
    StateShift,
    Trainer,
    TrainerConfig,
    TrainingWindows,
    open_data,
    validate_world_model,
)
from vla_policy.utils.configuration import literal
from vla_policy.utils.files import write_whole
from vla_policy.utils.provenance import git_commit
from vla_policy.world_model import WorldModel, WorldModelConfig, fit_actions

log = logging.getLogger(__name__)

Section = TypeVar("Section")


def fit(config: DictConfig, run_dir: Path) -> Path:
    """Train in `run_dir`, from the last saved state if `config.resume`; the last checkpoint's folder."""
    job = make_trainer(config, run_dir)  # after this, no process checks run_dir any more
    count = sum(value.numel() for value in job.model.parameters()) / 1e6
    episodes, main = job.model.card["data"]["demonstrations"], job.accelerator.is_main_process
    if main:
        write_config(config, run_dir)
        log.info("%s: %d episodes, %d windows; %.2f M parameters", run_dir, episodes, len(job.windows), count)
    job.fit(config.resume)
    last = run_dir / "checkpoints" / "last"
    if main:
        log.info("done: %s", last)
    return last


def make_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    """The trainer of a world model or a policy; no file of the run has been written."""
    if config.get("world_model"):
        return _world_model_trainer(config, run_dir)
    policy_config = PolicyConfig.from_dict(config.policy)
    data, trainer = _typed(DataConfig, config.data), _trainer_config(config)
    annotate, reword = annotation(config, policy_config), rewording(config)
    windows, val_windows, described = open_data(data, policy_config)
    augment = augmentation(config, data.symmetries, windows.interface)
    frozen = policy_config.backbone is not None and policy_config.backbone.tuning == "frozen"
    if augment is not None and frozen:
        raise InputError("data.symmetries: expected no frozen backbone, which encodes pictures once, found one")
    shift = StateShift(data.state_noise, windows) if data.state_noise else None
    if policy_config.ensemble > 1:
        raise InputError(
            f"policy.ensemble: expected 1 in training, found {policy_config.ensemble}; see vla-lab ensemble"
        )
    evaluate = (
        rollouts(config, windows.interface.select(policy_config.observation_keys)) if trainer.rollout_every else None
    )
    torch.manual_seed(config.seed)
    policy, initial = start_policy(policy_config, windows, config, augment)
    policy.card = {"data": described, "training": _training(config, trainer, initial)}
    sampled = _taught(policy, config)
    if frozen:
        policy.to(Accelerator().device)  # it encodes the data before there is a trainer
        seen: TrainingWindows = FrozenWindows(windows, policy, run_dir, reword)
        held_out: TrainingWindows | None = None if val_windows is None else FrozenWindows(val_windows, policy, run_dir)
    else:
        seen, held_out = windows, val_windows
    added, settings = composed(annotate, augment, shift, sampled), plain(config)
    return Trainer(policy, seen, run_dir, trainer, config.seed, held_out, evaluate, data.num_workers, settings, added)


def _taught(policy: DiffusionPolicy, config: DictConfig) -> Annotate | None:
    """Give the policy its teacher, if there is one; what adds the teacher's samples to a batch, if they are the aim."""
    distill = _typed(DistillConfig, config.get("distill") or OmegaConf.create())
    if distill.teacher is None:
        return None
    with within(f"distill.teacher {distill.teacher}"):
        teacher = DiffusionPolicy.from_pretrained(distill.teacher).to(Accelerator().device)
        teacher.interface.require(policy.interface, "teacher", "the data")
        policy.card["training"] |= {"teacher": f"{distill.target} of {distill.teacher}"}
        if distill.target == "samples":
            return sampled_actions(teacher, policy.n_obs_steps)
        policy.learn_from(teacher)
    return None


def _world_model_trainer(config: DictConfig, run_dir: Path) -> Trainer:
    model_config = WorldModelConfig.from_dict(config.world_model)
    data, trainer = _typed(DataConfig, config.data), _trainer_config(config)
    if trainer.rollout_every:
        raise InputError(f"trainer.rollout_every: expected 0 for a world model, found {trainer.rollout_every}")
    for name, value in (
        ("init_modules", config.get("init_modules")),
        ("data.symmetries", data.symmetries or None),
        ("data.state_noise", data.state_noise or None),
        ("data.action_loss", data.action_loss),
        ("distill.teacher", OmegaConf.select(config, "distill.teacher")),
    ):
        if value is not None:
            raise InputError(f"{name}: expected none for a world model, found {value}")
    windows, val_windows, described = open_data(data, model_config)
    if val_windows is None:
        raise InputError("data.val_episodes: expected held-out episodes, which show a collapse, found 0")
    torch.manual_seed(config.seed)
    initial: Any = "random"
    if config.init_from is None:
        model = WorldModel(model_config, windows.interface, fit_actions(windows.columns, model_config.auxiliary_keys))
    else:
        source = WorldModel.from_pretrained(config.init_from)
        source.interface.require(windows.interface, f"init_from {config.init_from}", f"dataset {config.data.root}")
        model = WorldModel(model_config, windows.interface, source.normalizer)
        model.load_stored(source.stored_state(), f"init_from {config.init_from}")
        initial = earlier_training(source)
    model.card = {"data": described, "training": _training(config, trainer, initial)}
    return Trainer(
        model,
        windows,
        run_dir,
        trainer,
        config.seed,
        val_windows,
        None,
        data.num_workers,
        plain(config),
        validate=validate_world_model,
    )


def write_config(config: DictConfig, run_dir: Path) -> None:
    """Write the resolved configuration and the commit."""
    resolved = OmegaConf.create(literal(OmegaConf.to_container(config, resolve=True)))
    resolved.git_commit = config.get("git_commit") or git_commit()
    write_whole(run_dir / "config.yaml", lambda path: OmegaConf.save(resolved, path))


def _training(config: DictConfig, trainer: TrainerConfig, initial: Any) -> dict[str, Any]:
    """What the model card says of the training, which began with `initial` weights."""
    modules = config.get("init_modules")
    return {
        "steps": trainer.steps,
        "batch_size": trainer.batch_size,
        **({} if config.get("world_model") else {"noise_samples": config.policy.noise_samples}),
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


def _trainer_config(config: DictConfig) -> TrainerConfig:
    """`trainer`; also sets torch's threads, because a frozen backbone encodes the data before there is a trainer."""
    trainer = _typed(TrainerConfig, config.trainer)
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    return trainer


def _typed(kind: type[Section], config: DictConfig) -> Section:
    """A section of the configuration as its dataclass, checked; keys that an older run lacks have their defaults."""
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    assert isinstance(typed, kind)
    return typed
