"""Builds a `Trainer` from a composed configuration: dataset, policy, rollouts, files of the run."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf

from vla_policy.conf.training_config import DistillConfig
from vla_policy.interfaces import InputError, within
from vla_policy.jobs.distill import composed, follower, sampled_actions
from vla_policy.jobs.imagination import dynamics_trainer, return_trainer, trajectory_trainer, world_model_trainer
from vla_policy.jobs.policy import start_policy
from vla_policy.jobs.scene import annotation, augmentation, plain, rewording, rollouts
from vla_policy.jobs.sections import trainer_config, training_card, typed
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import (
    Annotate,
    DataConfig,
    FrozenWindows,
    StateShift,
    Trainer,
    TrainingWindows,
    open_data,
)
from vla_policy.utils.configuration import literal
from vla_policy.utils.files import write_whole
from vla_policy.utils.provenance import git_commit

log = logging.getLogger(__name__)

# What is trained instead of a policy, by its section of the configuration.
IMAGINING = {
    "world_model": world_model_trainer,
    "dynamics": dynamics_trainer,
    "returns": return_trainer,
    "trajectory": trajectory_trainer,
}


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
    """The trainer of a policy, or of what `config` has instead of one; no file of the run has been written."""
    chosen = [kind for kind in IMAGINING if config.get(kind)]
    if len(chosen) > 1:
        raise InputError(f"{chosen[1]}: expected none with {chosen[0]}, found both; train one after the other")
    if chosen:
        return IMAGINING[chosen[0]](config, run_dir)
    policy_config = PolicyConfig.from_dict(config.policy)
    data, trainer = typed(DataConfig, config.data), trainer_config(config)
    annotate, reword = annotation(config, policy_config), rewording(config)
    distill = typed(DistillConfig, config.get("distill") or OmegaConf.create())
    led = distill.target == "endpoint"
    windows, val_windows, described = open_data(data, policy_config, led)
    augment = augmentation(config, data.symmetries, windows.interface)
    frozen = policy_config.backbone is not None and policy_config.backbone.tuning == "frozen"
    if augment is not None and frozen:
        raise InputError("data.symmetries: expected no frozen backbone, which encodes pictures once, found one")
    shift = StateShift(data.state_noise, windows, policy_config.observation_keys) if data.state_noise else None
    if policy_config.ensemble > 1:
        raise InputError(
            f"policy.ensemble: expected 1 in training, found {policy_config.ensemble}; see vla-lab ensemble"
        )
    evaluate = (
        rollouts(config, windows.interface.select(policy_config.observation_keys)) if trainer.rollout_every else None
    )
    torch.manual_seed(config.seed)
    if led:
        policy, initial = follower(policy_config, windows, config)
    else:
        policy, initial = start_policy(policy_config, windows, config, augment, shift)
    policy.card = {"data": described, "training": training_card(config, trainer, initial)}
    sampled = _taught(policy, distill)
    if frozen:
        policy.to(Accelerator().device)  # it encodes the data before there is a trainer
        seen: TrainingWindows = FrozenWindows(windows, policy, run_dir, reword)
        held_out: TrainingWindows | None = None if val_windows is None else FrozenWindows(val_windows, policy, run_dir)
    else:
        seen, held_out = windows, val_windows
    added, settings = composed(annotate, augment, shift, sampled), plain(config)
    return Trainer(policy, seen, run_dir, trainer, config.seed, held_out, evaluate, data.num_workers, settings, added)


def _taught(policy: DiffusionPolicy, distill: DistillConfig) -> Annotate | None:
    """Give the policy its teacher, if there is one; what adds the teacher's samples to a batch, if they are the aim."""
    if distill.teacher is None:
        return None
    policy.card["training"] |= {"teacher": f"{distill.target} of {distill.teacher}"}
    if distill.target == "endpoint":
        return None  # it has begun as its teacher
    with within(f"distill.teacher {distill.teacher}"):
        teacher = DiffusionPolicy.from_pretrained(distill.teacher).to(Accelerator().device)
        teacher.interface.require(policy.interface, "teacher", "the data")
        if distill.target == "samples":
            return sampled_actions(teacher, policy.n_obs_steps)
        policy.learn_from(teacher)
    return None


def write_config(config: DictConfig, run_dir: Path) -> None:
    """Write the resolved configuration and the commit."""
    resolved = OmegaConf.create(literal(OmegaConf.to_container(config, resolve=True)))
    resolved.git_commit = config.get("git_commit") or git_commit()
    write_whole(run_dir / "config.yaml", lambda path: OmegaConf.save(resolved, path))
