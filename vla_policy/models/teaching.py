"""A policy that another one learns from: what it predicts, and whether it fits the student."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vla_policy.interfaces import ACTION, InputError
from vla_policy.models.heads import DenoisingHead, Teach

if TYPE_CHECKING:
    from vla_policy.models.policy import DiffusionPolicy

# Batch entries with the precomputed output of a frozen backbone, as returned by `DiffusionPolicy.read`.
BACKBONE_HIDDEN, BACKBONE_REAL = "backbone_hidden", "backbone_real"


@torch.no_grad()
def predictions(teacher: DiffusionPolicy, batch: Mapping[str, Any]) -> Teach:
    """What it predicts, an ensemble on average, for noisy actions under these observations, at any time, of which some
    rows may be given.
    """
    prefixes = [member.prefix(batch) for member in teacher.members]

    @torch.no_grad()
    def teach(noisy: Tensor, time: Tensor, given: Tensor | None = None) -> Tensor:
        found = [
            cast(DenoisingHead, m.head).denoise(
                m.transformer, noisy, m.transformer.modulations(time, prefix.context), prefix, given
            )
            for m, prefix in zip(teacher.members, prefixes, strict=True)
        ]
        return torch.stack(found).mean(0)

    return teach


def check_teacher(student: DiffusionPolicy, teacher: DiffusionPolicy) -> None:
    """`InputError` unless both predict the same quantity of the same observations."""
    if not isinstance(student.head, DenoisingHead):
        found = student.config.objective.name
        raise InputError(f"teacher: expected flow or ddpm, which have outputs to match, found {found}")
    rows = ("horizon", "n_obs_steps", "predict_past", "prefix_steps", "action_basis", "action_relative")
    for key in (*rows, "objective.name", "objective.prediction", "objective.train_steps"):
        ours, theirs = attrgetter(key)(student.config), attrgetter(key)(teacher.config)
        if ours != theirs:
            raise InputError(f"teacher: expected policy.{key} {ours!r}, found {theirs!r}")
    if teacher.normalizer.to_dict()[ACTION] != student.normalizer.to_dict()[ACTION]:
        raise InputError("teacher: expected this policy's normalisation of actions, found another")
    teacher.interface.require(student.interface, "teacher", "the policy's data")


def without_backbone_output(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch for another policy, whose backbone has to encode it by itself."""
    return {key: value for key, value in batch.items() if key not in (BACKBONE_HIDDEN, BACKBONE_REAL)}


def selected(batch: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """The windows of a batch for which `rows` (B,) is true, on the CPU like the batch."""
    chosen = rows.nonzero()[:, 0].tolist()
    return {
        key: value[rows.to(value.device)] if isinstance(value, Tensor) else [value[k] for k in chosen]
        for key, value in batch.items()
    }
