"""Errors of imagined latents, with copying the last frame and a linear model as baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vla_policy.evaluation.imagination.encoded_episodes import EncodedEpisode
from vla_policy.evaluation.imagination.probes import Affine, ridge
from vla_policy.interfaces import ACTION
from vla_policy.world_model import WorldModel

WINDOWS = 256  # imagined at once


@dataclass(frozen=True)
class Imagined:
    """All windows of an episode: S starts, H model steps. `predicted` has latents (S, H, D) by predictor.

    `frames` (S, H + 1) are the frames of the latents, from the last observed one on; `truth` is (S, H, D).
    """

    episode: int
    frames: Tensor
    truth: Tensor
    predicted: dict[str, Tensor]

    @property
    def errors(self) -> dict[str, Tensor]:
        """Mean squared errors (H,) over starts and dimensions."""
        return {name: (latents - self.truth).square().mean((0, 2)) for name, latents in self.predicted.items()}


def fit_linear(model: WorldModel, recordings: Sequence[EncodedEpisode]) -> Affine:
    """z' from [z, a], a model step later, by ridge regression over every frame of the recordings."""
    skip, inputs, outputs = model.config.frame_skip, [], []
    for recording in recordings:
        if len(recording.commands) <= skip:
            continue  # shorter than a model step
        commands = blocks(model, recording.commands)
        inputs.append(torch.cat([recording.latents[: len(commands) - 1], commands[:-1]], dim=1))
        outputs.append(recording.latents[skip:])
    return ridge(torch.cat(inputs), torch.cat(outputs))


def blocks(model: WorldModel, commands: Tensor) -> Tensor:
    """The normalised commands of the model step that begins at each frame: (T - skip + 1, skip * A) of (T, A)."""
    normalised = model.normalizer.normalize(ACTION, commands.to(model.device)).cpu()
    return normalised.unfold(0, model.config.frame_skip, 1).transpose(1, 2).flatten(1)


@torch.inference_mode()
def imagine_episode(
    model: WorldModel, recording: EncodedEpisode, horizon: int, linear: Affine, average: Tensor
) -> Imagined | None:
    """Imagine from every frame with a full history before and `horizon` model steps after it; None if there is none.

    The baseline "mean" predicts `average` (D,).
    """
    skip, history = model.config.frame_skip, model.config.history
    first, end = (history - 1) * skip, len(recording.latents) - horizon * skip
    if end <= first:
        return None
    starts = torch.arange(first, end)
    frames = starts[:, None] + skip * torch.arange(horizon + 1)
    seen = recording.latents[starts[:, None] + skip * torch.arange(1 - history, 1)]
    given = starts[:, None] + torch.arange((1 - history) * skip, horizon * skip)
    commands = recording.commands[given].unflatten(1, (-1, skip))
    last = recording.latents[starts]
    predicted = {
        "model": _in_batches(model, seen, commands, history),
        "linear": _roll_linear(linear, last, blocks(model, recording.commands)[frames[:, :-1]]),
        "copy last": last[:, None].expand(-1, horizon, -1),
        "mean": average.expand(len(starts), horizon, -1),
    }
    return Imagined(recording.episode, frames, recording.latents[frames[:, 1:]], predicted)


def _in_batches(model: WorldModel, seen: Tensor, commands: Tensor, history: int) -> Tensor:
    pieces = [
        model.imagine(z.to(model.device), a[:, : history - 1].to(model.device), a[:, history - 1 :].to(model.device))
        for z, a in zip(seen.split(WINDOWS), commands.split(WINDOWS), strict=True)
    ]
    return torch.cat(pieces).cpu()


def _roll_linear(linear: Affine, latents: Tensor, commands: Tensor) -> Tensor:
    """Latents (S, H, D) from latents (S, D) and commands (S, H, skip * A)."""
    predicted = []
    for step in range(commands.shape[1]):
        latents = linear(torch.cat([latents, commands[:, step]], dim=1))
        predicted.append(latents)
    return torch.stack(predicted, dim=1)
