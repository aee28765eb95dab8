"""Several trained policies as one, in one checkpoint: their predictions are averaged at every denoising step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vla_policy.interfaces import InputError
from vla_policy.models.policy import DiffusionPolicy


def join_policies(folders: Sequence[str | Path]) -> DiffusionPolicy:
    """The ensemble of checkpoints that differ in their weights alone, as runs with different seeds do.

    `InputError` naming the first difference, or if one is an ensemble already.
    """
    if len(folders) < 2:
        raise InputError(f"ensemble: expected two or more checkpoints, found {len(folders)}")
    members = [DiffusionPolicy.from_pretrained(folder) for folder in folders]
    first = members[0]
    for folder, member in zip(folders, members, strict=True):
        if member.config.ensemble > 1:
            raise InputError(f"{folder}: expected a single policy, found an ensemble of {member.config.ensemble}")
        if member.config != first.config or member.full_interface != first.full_interface:
            raise InputError(f"{folder}: expected the configuration and interface of {folders[0]}, found others")
        if member.normalizer.to_dict() != first.normalizer.to_dict():
            raise InputError(f"{folder}: expected the normalisation of {folders[0]}, found that of other data")
    config = replace(first.config, ensemble=len(members))
    card = {key: value for key, value in first.card.items() if key != "evaluations"}
    card["training"] = {**card.get("training", {}), "seed": [m.card.get("training", {}).get("seed") for m in members]}
    joined = DiffusionPolicy(config, first.full_interface, first.normalizer, card)
    weights = dict(first.state_dict())
    for place, member in enumerate(members[1:]):
        weights |= {f"others.{place}.{name}": value for name, value in member.state_dict().items()}
    joined.load_stored(weights, "the ensemble")
    return joined.eval()
