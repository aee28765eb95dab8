"""A policy that another one learns from: what it predicts, where it gets, and whether it fits the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.interfaces import ACTION, InputError
from vla_policy.models.heads import DenoisingHead, Teach
from vla_policy.models.objectives import TrainingPair
from vla_policy.models.seeing import BACKBONE_HIDDEN, BACKBONE_REAL
from vla_policy.models.transformer import Prefix

if TYPE_CHECKING:
    from vla_policy.models.policy import DiffusionPolicy


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
    rows = ("horizon", "n_obs_steps", "predict_past", "prefix_steps", "action_basis", "action_relative", "object_frame")
    for key in (*rows, "objective.name", "objective.prediction", "objective.train_steps"):
        ours, theirs = attrgetter(key)(student.config), attrgetter(key)(teacher.config)
        if ours != theirs:
            raise InputError(f"teacher: expected policy.{key} {ours!r}, found {theirs!r}")
    if teacher.normalizer.to_dict()[ACTION] != student.normalizer.to_dict()[ACTION]:
        raise InputError("teacher: expected this policy's normalisation of actions, found another")
    teacher.interface.require(student.interface, "teacher", "the policy's data")


@torch.no_grad()
def shortcuts(teacher: DiffusionPolicy, prefix: Prefix, noise: Tensor, passes: int) -> TrainingPair:
    """What a student of so many passes has to predict to follow the teacher's path from noise (B, S, T, D) to a chunk:
    from each of its `passes` times on, the straight way to the next one. Of S draws there are S * passes pairs.

    With one pass this is reflow's distillation (Liu et al. 2022, arXiv 2209.03003).
    """
    head = cast(DenoisingHead, teacher.head)
    predict = head.predictor(teacher.transformer, prefix)
    path: list[Tensor] = []

    def recorded(x: Tensor, k: int) -> Tensor:
        path.append(x)
        return predict(x, k)

    chunk = head.objective.sample(recorded, noise, None)
    stops = torch.stack([*path[:: len(path) // passes], chunk], dim=2)  # (B, S, passes + 1, T, D)
    time = torch.arange(passes, device=noise.device) / passes
    velocity = passes * stops.diff(dim=2)
    return TrainingPair(stops[:, :, :-1].flatten(1, 2), time.repeat(noise.shape[1])[None], velocity.flatten(1, 2))


def check_follower(config: PolicyConfig, teacher: DiffusionPolicy) -> None:
    """`InputError` unless a policy of this configuration can begin as the teacher and learn its `shortcuts`."""
    theirs = teacher.config
    for name in (config.objective.name, theirs.objective.name):
        if name != "flow":
            raise InputError(f"distill.target: expected flow policies for endpoint, found {name}")
    if theirs.ensemble > 1:
        raise InputError(
            f"teacher: expected a single policy for endpoint, found an ensemble of {theirs.ensemble}; distill.target="
            "outputs makes one of it"
        )
    if theirs.prefix_steps:
        raise InputError(f"teacher: expected policy.prefix_steps 0 for endpoint, found {theirs.prefix_steps}")
    ours, passes = config.objective.inference_steps, theirs.objective.inference_steps
    if passes % ours or ours == passes:
        raise InputError(
            f"policy.objective.inference_steps: expected a smaller divisor of the teacher's {passes}, found {ours}"
        )
    wanted, found = dict(_lasting(theirs)), dict(_lasting(config))
    for key in wanted | found:
        if found.get(key) != wanted.get(key):
            raise InputError(f"policy.{key}: expected the teacher's {wanted.get(key)!r}, found {found.get(key)!r}")


def _lasting(config: PolicyConfig) -> Iterator[tuple[str, Any]]:
    """All options, by their names, that say what a flow policy's weights mean, and not how it is trained or played."""
    free = {"n_action_steps", "noise_samples", "auxiliary_weight", "language_weight"}
    free |= {"encoder.color_jitter", "transformer.dropout"}
    for key, value in config.to_dict().items():
        parts = {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
        if key == "objective":
            parts = {f"objective.{name}": getattr(config.objective, name) for name in ("clip_sample", "temperature")}
        yield from ((name, part) for name, part in parts.items() if name not in free)


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
