"""Training objectives (flow matching, DDPM) and sampling with diffusers' schedulers.

Two objectives share one protocol. Time is in [0, 1] for the network; it runs from noise 0 to data 1 in flow matching,
and is the fraction of the noise schedule in DDPM (0 data, towards 1 noise).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from vla_policy.conf.policy_config import ObjectiveConfig
from vla_policy.interfaces import InputError

Predict = Callable[[Tensor, int], Tensor]  # noisy actions (B, S, T, D) at times[k], and k, to a prediction (B, S, T, D)


class TrainingPair(NamedTuple):
    """One training example: input `noisy` (B, S, T, D) at `time` (B, S), and the prediction's `target`."""

    noisy: Tensor
    time: Tensor
    target: Tensor


class Level(NamedTuple):
    """A step of a sampler: its input is x = `data` * actions + `noise` * noise, and a prediction estimates the actions
    as `of_x` * x + `of_prediction` * prediction.
    """

    data: float
    noise: float
    of_x: float
    of_prediction: float


class Objective(Protocol):
    """How actions are corrupted in training and denoised in sampling."""

    def corrupt(self, actions: Tensor, noise: Tensor, generator: torch.Generator) -> TrainingPair:
        """Draw a time for each (B, S) and mix actions and noise (B, S, T, D) for it."""
        ...

    def times(self) -> list[float]:
        """The times of the `inference_steps` denoising steps, in their order."""
        ...

    def levels(self) -> list[Level]:
        """What goes in at each of `times`, and what a prediction says there."""
        ...

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        """Turn noise (B, S, T, D) into actions, calling `predict` once for each of `times`."""
        ...


class FlowMatching:
    """x_t = (1 - t) noise + t data; the target is the velocity data - noise (Lipman et al. 2022, arXiv 2210.02747)."""

    def __init__(self, config: ObjectiveConfig) -> None:
        choose("policy.objective.sampler", config.sampler, ["euler"])
        choose("policy.objective.time_sampling", config.time_sampling, ["uniform", "logit_normal", "beta"])
        self.config = config
        self.scheduler: Any = FlowMatchEulerDiscreteScheduler()

    def draw_time(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Times in [0, 1]: uniform; logit-normal(0, 1) (Esser et al. 2024, arXiv 2403.03206); or pi0's beta, which
        trains early, noisy times more: 1 - t is Beta(1.5, 1) (arXiv 2410.24164).
        """
        if self.config.time_sampling == "logit_normal":
            return torch.sigmoid(torch.randn(shape, generator=generator, device=generator.device))
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        if self.config.time_sampling == "beta":
            return 1 - uniform ** (1 / 1.5)  # the inverse of Beta(1.5, 1)'s distribution function, u = x^1.5
        return uniform

    def corrupt(self, actions: Tensor, noise: Tensor, generator: torch.Generator) -> TrainingPair:
        time = self.draw_time(actions.shape[:2], generator).to(actions.device)
        t = time[:, :, None, None]
        return TrainingPair((1 - t) * noise + t * actions, time, actions - noise)

    def times(self) -> list[float]:
        steps = self.config.inference_steps
        return [k / steps for k in range(steps)]

    def levels(self) -> list[Level]:
        return [Level(t, 1 - t, 1.0, 1 - t) for t in self.times()]

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        # diffusers runs sigma = 1 - t from 1 to 0 and integrates noise - data, the velocity's negative.
        self.scheduler.set_timesteps(sigmas=1.0 - np.array(self.times()), device=noise.device)
        x = noise
        for k, timestep in enumerate(self.scheduler.timesteps):
            x = self.scheduler.step(-predict(x, k), timestep, x).prev_sample
        return x.clamp(-1.0, 1.0) if self.config.clip_sample else x


class Ddpm:
    """Denoising diffusion on the squared-cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672), predicting the
    noise, the sample, or v = alpha noise - sigma sample (Salimans & Ho 2022, arXiv 2202.00512).
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        choose("policy.objective.prediction", config.prediction, ["epsilon", "sample", "v_prediction"])
        choose("policy.objective.sampler", config.sampler, ["ddpm", "ddim", "dpm_solver"])
        if config.inference_steps > config.train_steps:
            expected = f"at most train_steps {config.train_steps}"
            raise InputError(f"policy.objective.inference_steps: expected {expected}, found {config.inference_steps}")
        self.config = config
        common: dict[str, Any] = {
            "num_train_timesteps": config.train_steps,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": config.prediction,
            # The schedule ends in pure noise, where epsilon does not determine the sample: start a step earlier.
            "timestep_spacing": "leading" if config.prediction == "epsilon" else "trailing",
        }
        self.training: Any = DDPMScheduler(**common)
        if config.sampler == "dpm_solver":
            # Thresholding at 1 makes the solver clip the predicted sample.
            self.scheduler: Any = DPMSolverMultistepScheduler(
                **common, thresholding=config.clip_sample, sample_max_value=1.0
            )
        else:
            kind = DDPMScheduler if config.sampler == "ddpm" else DDIMScheduler
            self.scheduler = kind(**common, clip_sample=config.clip_sample)

    def corrupt(self, actions: Tensor, noise: Tensor, generator: torch.Generator) -> TrainingPair:
        shape = actions.shape[:2]
        steps = torch.randint(self.config.train_steps, shape, generator=generator, device=generator.device)
        steps = steps.to(actions.device)
        flat, flat_noise, flat_steps = actions.flatten(0, 1), noise.flatten(0, 1), steps.flatten()
        noisy = self.training.add_noise(flat, flat_noise, flat_steps)
        if self.config.prediction == "epsilon":
            target = flat_noise
        elif self.config.prediction == "sample":
            target = flat
        else:
            target = self.training.get_velocity(flat, flat_noise, flat_steps)
        return TrainingPair(noisy.unflatten(0, shape), steps / self.config.train_steps, target.unflatten(0, shape))

    def times(self) -> list[float]:
        self.scheduler.set_timesteps(self.config.inference_steps)
        return [timestep / self.config.train_steps for timestep in self.scheduler.timesteps.tolist()]

    def levels(self) -> list[Level]:
        self.scheduler.set_timesteps(self.config.inference_steps)
        kept = self.training.alphas_cumprod[self.scheduler.timesteps]
        return [self._level(math.sqrt(bar), math.sqrt(1 - bar)) for bar in kept.tolist()]

    def _level(self, alpha: float, sigma: float) -> Level:
        if self.config.prediction == "epsilon":
            return Level(alpha, sigma, 1 / alpha, -sigma / alpha)
        if self.config.prediction == "sample":
            return Level(alpha, sigma, 0.0, 1.0)
        return Level(alpha, sigma, alpha, -sigma)

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator | None) -> Tensor:
        self.scheduler.set_timesteps(self.config.inference_steps, device=noise.device)
        x = noise
        for k, timestep in enumerate(self.scheduler.timesteps):
            x = self.scheduler.step(predict(x, k), timestep, x, generator=generator).prev_sample
        return x.clamp(-1.0, 1.0) if self.config.clip_sample else x


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config.name` names, "flow" or "ddpm"."""
    choose("policy.objective.name", config.name, ["flow", "ddpm"])
    if not config.inference_steps >= 1:
        raise InputError(f"policy.objective.inference_steps: expected at least 1, found {config.inference_steps}")
    return FlowMatching(config) if config.name == "flow" else Ddpm(config)


def choose(name: str, value: str | None, options: Sequence[str | None]) -> None:
    """`InputError` unless `value` is one of `options`."""
    if value not in options:
        raise InputError(f"{name}: expected one of {options}, found {value!r}")
