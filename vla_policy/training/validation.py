"""What a model is worth on held-out episodes, without a simulator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vla_policy.interfaces import ACTION, STATE
from vla_policy.models import DiffusionPolicy
from vla_policy.training.frozen import TrainingWindows
from vla_policy.world_model import WorldModel, latent_health, sigreg
from vla_policy.world_model.dynamics import Dynamics
from vla_policy.world_model.futures import split
from vla_policy.world_model.returns import ReturnModel
from vla_policy.world_model.trajectories.model import TrajectoryModel

log = logging.getLogger(__name__)

BATCH = 128


@torch.no_grad()
def validate_policy(policy: DiffusionPolicy, windows: TrainingWindows, count: int, seed: int = 0) -> dict[str, float]:
    """Loss, and the mean absolute error of sampled actions (in their own units) against holding the last one: of the
    rows that would be executed, and of each row of a chunk.

    Always the same `count` windows and the same noise. Holding repeats the action before the chunk, which windows of
    one observation step do not contain. None of these ranks samplers or checkpoints as success does: the error favours
    averages of the demonstrated actions.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    for batch in _batches(windows, count, seed):
        loss, _ = policy.loss(batch, generator)
        begin = policy.n_obs_steps - 1
        actions = batch[ACTION][:, begin:]
        rows = (policy.sample(batch, generator).cpu() - actions).abs().mean((0, 2))
        values = {"val/loss": float(loss), "val/action_error": float(rows[: policy.n_action_steps].mean())}
        values |= {f"val/action_error_row_{row}": float(error) for row, error in enumerate(rows)}
        actions = actions[:, : policy.n_action_steps]
        if begin:
            values["val/hold_error"] = float((batch[ACTION][:, begin - 1 : begin] - actions).abs().mean())
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(actions)
    return {name: value / min(count, len(windows)) for name, value in sums.items()}


@torch.no_grad()
def validate_world_model(model: WorldModel, windows: TrainingWindows, count: int, seed: int = 0) -> dict[str, float]:
    """Error of the predictions one step ahead beside that of expecting no change, how far the latents are from a
    collapse, and the mean absolute error of what is read from them; a warning is logged if they have collapsed.
    """
    latents, predicted = [], []
    errors: dict[str, list[torch.Tensor]] = {key: [] for key in model.config.auxiliary_keys}
    for batch in _batches(windows, count, seed):
        seen, actions = model.encode_windows(batch)
        latents.append(seen)
        predicted.append(model.predict(seen[:, :-1], actions))
        for key, found in errors.items():
            found.append((model.read(key, seen).cpu() - batch[key][:, :: model.config.frame_skip]).abs())
    z, error = torch.cat(latents), (torch.cat(predicted) - torch.cat(latents)[:, 1:]).square()
    health = latent_health(z.flatten(0, 1))
    if health.collapsed:
        log.warning("the latents have collapsed: %s; a larger world_model.sigreg_weight keeps them apart", health)
    return {
        "val/prediction": float(error.mean()),
        "val/copy_last": float((z[:, :-1] - z[:, 1:]).square().mean()),
        "val/sigreg": float(sigreg(z.transpose(0, 1), torch.Generator().manual_seed(seed))),
        "val/rank": health.rank,
        **{f"val/{key}_error": float(torch.cat(found).mean()) for key, found in errors.items()},
    }


@torch.no_grad()
def validate_dynamics(model: Dynamics, windows: TrainingWindows, count: int, seed: int = 0) -> dict[str, float]:
    """Loss, and the mean absolute error of imagined states, over all channels of each key, of the last step that is
    imagined, beside that of expecting no change.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    for batch in _batches(windows, count, seed):
        loss, _ = model.loss(batch, generator)
        past, future, commands = split(batch, model.config)
        positions = model.named(past[:, -1:])[STATE]
        imagined = model.imagine(past, commands + positions, generator).cpu()[:, -1]
        values = {"val/loss": float(loss)}
        errors, still = model.named((past[:, -1] + future[:, -1] - imagined).abs()), model.named(future[:, -1].abs())
        for key in model.config.state_keys:
            values |= {f"val/{key}_error": float(errors[key].mean()), f"val/{key}_still": float(still[key].mean())}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(past)
    return {name: value / min(count, len(windows)) for name, value in sums.items()}


@torch.no_grad()
def validate_trajectories(
    model: TrajectoryModel, windows: TrainingWindows, count: int, seed: int = 0
) -> dict[str, float]:
    """Loss, and the mean absolute error of what is planned, over all channels: of the commands that would be executed,
    and of each key's last state beside that of expecting no change.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    for batch in _batches(windows, count, seed):
        loss, parts = model.loss(batch, generator)
        past, future, commands = split(batch, model.config)
        states, found = (part.cpu() for part in model.plan(past, generator))
        relative = found - model.newest_position(past).cpu()
        error = (relative - commands).abs()[:, : model.n_action_steps].mean()
        values = {"val/loss": float(loss), "val/action_error": float(error)}
        values |= {f"val/{name}": float(part) for name, part in parts.items()}
        missed = model.named((past[:, -1] + future[:, -1] - states[:, -1]).abs())
        still = model.named(future[:, -1].abs())
        for key in model.config.state_keys:
            values |= {f"val/{key}_error": float(missed[key].mean()), f"val/{key}_still": float(still[key].mean())}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(past)
    return {name: value / min(count, len(windows)) for name, value in sums.items()}


@torch.no_grad()
def validate_returns(model: ReturnModel, windows: TrainingWindows, count: int, seed: int = 0) -> dict[str, float]:
    """Loss, and the mean absolute error of returns beside that of always expecting their mean."""
    losses, errors, truths = [], [], []
    for batch in _batches(windows, count, seed):
        losses.append(model.loss(batch, torch.Generator())[0].cpu() * len(batch["task"]))
        seen = {key: batch[key][:, -1] for key in model.config.state_keys}
        truths.append(model.truth(batch))
        errors.append((model.logits(seen).sigmoid().cpu() - truths[-1]).abs())
    truth = torch.cat(truths)
    return {
        "val/loss": float(sum(losses)) / len(truth),
        "val/return_error": float(torch.cat(errors).mean()),
        "val/return_spread": float((truth - truth.mean()).abs().mean()),
    }


def _batches(windows: TrainingWindows, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Always the same windows."""
    chosen = np.random.default_rng(seed).permutation(len(windows))[:count]
    for first in range(0, len(chosen), BATCH):
        yield windows.__getitems__(chosen[first : first + BATCH])
