"""Batched scores of recorded episodes: the same values as `monitoring`'s streaming scores, faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from vla_policy.monitoring import fit_whitening, scale_episodes
from vla_policy.monitoring.scores import STILL
from vla_policy.world_model.model import WorldModel

BATCH = 1024


def prediction_errors(
    model: WorldModel, latents: np.ndarray, commands: np.ndarray, whitening: np.ndarray | None = None
) -> np.ndarray:
    """`monitoring.PredictionError` at each of an episode's latents (T + 1, D), with the commands (T, A) in between,
    optionally with a whitening (history, D, D); NaN where the streaming score is None.
    """
    errors = residuals(model, latents, commands)
    if whitening is not None:
        for some, whiten in zip(_by_history(model, len(latents)), whitening, strict=True):
            errors[some] = errors[some] @ whiten.T
    return (errors**2).mean(axis=1)


@torch.inference_mode()
def residuals(model: WorldModel, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
    """Prediction errors (T + 1, D), predicted minus observed latents; NaN where there is no prediction yet."""
    skip = model.config.frame_skip
    errors = np.full(latents.shape, np.nan)
    for steps, moments in enumerate(_by_history(model, len(latents)), 1):
        for some in np.array_split(moments, max(1, len(moments) // BATCH)):
            if not len(some):
                continue
            past = latents[some[:, None] - skip * np.arange(steps, 0, -1)]
            given = commands[some[:, None] - np.arange(steps * skip, 0, -1)].reshape(len(some), steps, skip, -1)
            following = model.predict(_tensor(past, model), _tensor(given, model))[:, -1].cpu().numpy()
            errors[some] = following - latents[some]
    return errors


def nominal_whitening(model: WorldModel, episodes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whitening (history, D, D) of the prediction errors in these episodes of latents and commands, which must be those
    that `monitoring.calibrate` does not use for the threshold. Episodes too short for a prediction are ignored.

    One matrix, scaled per history length so that nominal errors have mean 1: predictions from an episode's first frames
    are worse, and would otherwise determine the threshold.
    """
    predicted = [(latents, commands) for latents, commands in episodes if len(commands) >= model.config.frame_skip]
    parts: list[list[np.ndarray]] = [[np.empty((0, model.config.latent))] for _ in range(model.config.history)]
    for latents, commands in scale_episodes(predicted):
        errors = residuals(model, latents, commands)
        for part, some in zip(parts, _by_history(model, len(latents)), strict=True):
            part.append(errors[some])
    pooled = [np.concatenate(part) for part in parts]
    whitening = fit_whitening(np.concatenate(pooled))
    sizes = [np.mean((errors @ whitening.T) ** 2) if len(errors) else 1.0 for errors in pooled]
    return np.stack([whitening / np.sqrt(size) for size in sizes]).astype(np.float32)


def _by_history(model: WorldModel, count: int) -> list[np.ndarray]:
    """Indices of an episode's `count` observations that are predicted from 1, 2, ... `history` latents."""
    skip, history = model.config.frame_skip, model.config.history
    latents_before = np.minimum(np.arange(count) // skip, history)
    return [np.flatnonzero(latents_before == steps) for steps in range(1, history + 1)]


def latent_steps(model: WorldModel, latents: np.ndarray) -> np.ndarray:
    """How far the latent moved in one model step (T + 1,), of latents (T + 1, D); NaN before the first."""
    skip = model.config.frame_skip
    scores = np.full(len(latents), np.nan)
    scores[skip:] = ((latents[skip:] - latents[:-skip]) ** 2).mean(axis=1)
    return scores


def stillness(latents: np.ndarray, window: int = STILL) -> np.ndarray:
    """`monitoring.Stillness` at each of an episode's latents, or other vectors (N, D); NaN where it is None."""
    scores = np.full(len(latents), np.nan)
    if len(latents) >= window:
        scores[window - 1 :] = -sliding_window_view(latents, window, axis=0).var(axis=-1).mean(axis=-1)
    return scores


class RandomDistillation:
    """Random network distillation (Burda et al. 2018, arXiv 1810.12894) on latents: a network is trained to predict a
    fixed random one on nominal latents, and errs elsewhere.
    """

    def __init__(self, latents: np.ndarray, seed: int = 0, width: int = 256, out: int = 64, steps: int = 1500) -> None:
        """Train on nominal latents (N, D)."""
        torch.manual_seed(seed)
        size = latents.shape[1]
        self._target = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, out)).requires_grad_(False)
        self._learner = nn.Sequential(
            nn.Linear(size, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out)
        )
        optimizer = torch.optim.Adam(self._learner.parameters(), 1e-3)
        shown, generator = torch.from_numpy(np.asarray(latents, np.float32)), torch.Generator().manual_seed(seed)
        for _ in range(steps):
            batch = shown[torch.randint(len(shown), (256,), generator=generator)]
            optimizer.zero_grad()
            self._error(batch).mean().backward()
            optimizer.step()

    @torch.inference_mode()
    def score(self, latents: np.ndarray) -> np.ndarray:
        """The learner's mean squared error at latents (N, D): (N,)."""
        errors: np.ndarray = self._error(torch.from_numpy(np.asarray(latents, np.float32))).numpy()
        return errors

    def _error(self, latents: torch.Tensor) -> torch.Tensor:
        return (self._learner(latents) - self._target(latents)).square().mean(-1)


def _tensor(values: np.ndarray, model: WorldModel) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(model.device)
