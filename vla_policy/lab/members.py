"""The checkpoint of one run: of a training, or of several that are joined into an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_policy.interfaces import InputError
from vla_policy.jobs.train import train
from vla_policy.models import join_policies
from vla_policy.models.checkpoint import POLICY, read_checkpoint

TRAINING, ENSEMBLE = "training", "ensemble"
SEEDS = 1000  # member k of a run with seed s is trained with the seed SEEDS * s + k


def trained(words: Sequence[str], seed: int, folder: Path) -> Path:
    """Train with these overrides, or go on where it stopped; the checkpoint.

    With policy.ensemble=K, K policies are trained, and joined in one checkpoint.
    """
    plain, count = without_ensemble(words)
    if count == 1:
        return _trained(plain, seed, folder / TRAINING)
    members = [_trained(plain, SEEDS * seed + k, folder / f"{TRAINING}-{k}") for k in range(count)]
    join_policies(members).save_pretrained(folder / ENSEMBLE)
    return folder / ENSEMBLE


def without_ensemble(words: Sequence[str]) -> tuple[list[str], int]:
    """The overrides of each member, and how many there are."""
    key = "policy.ensemble="
    sizes = [word.removeprefix(key) for word in words if word.startswith(key)]
    if not sizes:
        return list(words), 1
    if not (sizes[-1].isdecimal() and int(sizes[-1]) > 0):
        raise InputError(f"policy.ensemble: expected a number of policies, found {sizes[-1]!r}")
    return [word for word in words if not word.startswith(key)], int(sizes[-1])


def _trained(words: Sequence[str], seed: int, folder: Path) -> Path:
    begun = ["resume=true"] if (folder / "config.yaml").is_file() else []
    return train([*words, f"seed={seed}", f"run_dir={folder}", *begun])


def core_minutes(folder: Path) -> float:
    """What the trainings of a run have cost until their last saved checkpoints."""
    return sum(_core_minutes(card_of(last)) for last in folder.glob(f"{TRAINING}*/checkpoints/last"))


def card_of(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint's model card."""
    return dict(read_checkpoint(checkpoint, POLICY).card)


def _core_minutes(card: dict[str, Any]) -> float:
    return float(card.get("training", {}).get("core_minutes", 0.0))
