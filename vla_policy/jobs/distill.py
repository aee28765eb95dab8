"""`distill` in the configuration: a policy that learns from another one instead of from the recorded actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor

from vla_policy.data import Windows
from vla_policy.interfaces import ACTION, InputError, within
from vla_policy.jobs.policy import earlier_training
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.models.teaching import without_backbone_output
from vla_policy.training import Annotate


def follower(config: PolicyConfig, windows: Windows, run: DictConfig) -> tuple[DiffusionPolicy, Any]:
    """The policy that begins as `distill.teacher` and is to take its path in fewer passes, and the model card's entry
    on its initial weights.
    """
    for key in ("init_from", "init_modules"):
        if run.get(key) is not None:
            found = run[key]
            raise InputError(
                f"{key}: expected none with distill.target=endpoint, which begins as its teacher, found {found}"
            )
    with within(f"distill.teacher {run.distill.teacher}"):
        teacher = DiffusionPolicy.from_pretrained(run.distill.teacher).to(Accelerator().device)
        teacher.interface.require(windows.interface, "teacher", "the data")
        return DiffusionPolicy.follower(teacher, config), earlier_training(teacher)


def sampled_actions(teacher: DiffusionPolicy, n_obs_steps: int) -> Annotate:
    """Replaces the actions of every batch, from the newest observation on, by chunks that the teacher samples; beyond
    the end of a shorter chunk the demonstrated ones remain.

    `InputError` if the teacher sees another number of observations than the batch has.
    """
    if teacher.n_obs_steps != n_obs_steps:
        raise InputError(f"teacher: expected policy.n_obs_steps {n_obs_steps}, found {teacher.n_obs_steps}")
    teacher.eval().requires_grad_(False)

    def annotate(batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        chunks = teacher.sample(without_backbone_output(batch), noise).to(batch[ACTION])
        rows = min(chunks.shape[1], batch[ACTION].shape[1] - teacher.n_obs_steps + 1)
        actions = batch[ACTION].clone()
        actions[:, teacher.n_obs_steps - 1 :][:, :rows] = chunks[:, :rows]
        return {ACTION: actions}

    return annotate


def composed(*annotations: Annotate | None) -> Annotate | None:
    """One annotation that applies several, each to what the ones before it have made."""
    wanted = [annotation for annotation in annotations if annotation is not None]
    if len(wanted) <= 1:
        return wanted[0] if wanted else None

    def annotate(batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for annotation in wanted:
            changed |= annotation({**batch, **changed}, generator)
        return changed

    return annotate
