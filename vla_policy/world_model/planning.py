"""Planning in latent space towards a goal image, as in LeWorldModel (arXiv 2603.19312).

A plan is a sequence of waypoint displacements, one per model step; CEM or MPPI minimises the distance of the predicted
latent from the goal image's, at the end of the plan or where it is smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_policy.interfaces import STATE, ActionChunk, InputError, Interface, Observation
from vla_policy.world_model.model import WorldModel

Cost = Callable[[Tensor], Tensor]  # plans (N, H, A), numbers in [-1, 1], to a cost each (N,)


@dataclass(frozen=True)
class PlanConfig:
    """Settings of the search; defaults for a CPU. The paper uses 300 samples, 30 elites and 30 iterations."""

    solver: str = "cem"  # cem | mppi
    samples: int = 64  # plans imagined in an iteration; the paper: 300
    iterations: int = 5  # the paper: 30
    elites: int = 8  # cem: plans that the next distribution is fitted to; the paper: 30
    temperature: float = 0.1  # mppi: in units of the costs' standard deviation; towards 0 only the best plan counts
    colour: float = 0.0
    """cem: exponent of the samples' spectrum over a plan's steps; 0: white, 2 and more: slow, as in iCEM"""
    kept: float = 0.0  # cem: part of the elites that the next iteration's samples begin with, as in iCEM
    aim: str = "last"
    """last | best: the cost is the distance from the goal at the end of the plan, or at its nearest step, so that a
    goal that is less than a plan away is not passed by
    """
    horizon: int = 5  # model steps imagined
    execute: int = 5  # model steps carried out before planning anew; the paper: all. The rest warms the next start
    spread: float = 1.0  # standard deviation of the first samples, as part of the largest displacement
    max_step: float = 0.01  # metres, the largest change from one command to the next; the arm lags about three behind

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise InputError(f"plan.solver: expected one of {sorted(SOLVERS)}, found {self.solver!r}")
        if self.aim not in ("last", "best"):
            raise InputError(f"plan.aim: expected 'last' or 'best', found {self.aim!r}")
        if not (0 <= self.colour <= 10 and 0 <= self.kept <= 1):
            found = f"{self.colour} and {self.kept}"
            raise InputError(f"plan.colour and plan.kept: expected 0 to 10 and 0 to 1, found {found}")
        for name in ("samples", "iterations", "elites", "horizon", "execute"):
            if getattr(self, name) < 1:
                raise InputError(f"plan.{name}: expected at least 1, found {getattr(self, name)}")
        for name, most in {"elites": self.samples, "execute": self.horizon}.items():
            if getattr(self, name) > most:
                raise InputError(f"plan.{name}: expected at most {most}, found {getattr(self, name)}")
        for name in ("temperature", "spread", "max_step"):
            if not getattr(self, name) > 0:
                raise InputError(f"plan.{name}: expected more than 0, found {getattr(self, name)}")


def cem(cost: Cost, mean: Tensor, config: PlanConfig, generator: torch.Generator) -> Tensor:
    """The cross-entropy method (Rubinstein 1999): sample plans, take the elites, refit. Returns the best plan (H, A).

    `mean` (H, A) is the initial mean, included in the first samples; the best plan, and `config.kept` of the elites,
    are included in all later ones. With `config.colour` it is iCEM (Pinneri et al. 2020, arXiv 2008.06389).
    """
    std, kept = torch.full_like(mean, config.spread), mean[None]
    for _ in range(config.iterations):
        plans = sample(mean, std, kept, config.samples, generator, config.colour)
        elites = plans[cost(plans).topk(config.elites, largest=False).indices]
        mean, std, kept = (
            elites.mean(0),
            elites.std(0, correction=0),
            elites[: max(1, round(config.kept * len(elites)))],
        )
    return kept[0]


def mppi(cost: Cost, mean: Tensor, config: PlanConfig, generator: torch.Generator) -> Tensor:
    """Model predictive path integral control (Williams et al. 2017): plans averaged with weights exp(-cost / lambda).

    Returns the mean (H, A) after the last iteration; the samples' spread halves from one to the next.
    """
    for iteration in range(config.iterations):
        std = torch.full_like(mean, config.spread * 0.5**iteration)
        plans = sample(mean, std, mean[None], config.samples, generator)
        mean = torch.einsum("n,nha->ha", mppi_weights(cost(plans), config.temperature), plans)
    return mean


def mppi_weights(costs: Tensor, temperature: float) -> Tensor:
    """Weights (N,) of plans; the temperature is in units of the costs' standard deviation."""
    return torch.softmax(-costs / (temperature * costs.std(correction=0)).clamp(min=1e-12), dim=0)


def sample(
    mean: Tensor, std: Tensor, kept: Tensor, count: int, generator: torch.Generator, colour: float = 0.0
) -> Tensor:
    """Gaussian plans (N, H, A) clipped to [-1, 1]; the first ones are `kept` (n, H, A)."""
    noise = coloured(torch.randn(count, *mean.shape, generator=generator), colour)
    plans = (mean + std * noise).clamp(-1, 1)
    plans[: len(kept)] = kept
    return plans


def coloured(white: Tensor, exponent: float) -> Tensor:
    """White noise (N, H, A) with a spectrum over the steps H that falls with frequency to this power, of unit variance
    (Timmer & Koenig 1995).
    """
    steps = white.shape[1]
    if exponent == 0 or steps == 1:
        return white
    frequencies = torch.fft.rfftfreq(steps).clamp(min=1.0 / steps)
    scale = frequencies ** (-exponent / 2)
    mirrored = 1 if steps % 2 == 0 else 0  # the highest frequency of an even number of steps occurs once
    power = 2 * scale.square().sum() - scale[0].square() - mirrored * scale[-1].square()
    shaped: Tensor = torch.fft.irfft(torch.fft.rfft(white, dim=1) * scale[:, None], n=steps, dim=1)
    return shaped * (steps / power).sqrt()


SOLVERS = {"cem": cem, "mppi": mppi}


class Planner:
    """A `Policy` that brings one arm to the state in the `goal` images (H, W, 3) uint8 by camera.

    Actions are absolute targets near the arm, so plans are displacements from the last command, at first from the
    newest `observation.state`, which has the action's channels: H waypoints, and `frame_skip` commands on the way to
    each. What it sees is the newest frame and, once it knows what was commanded since, the one a model step before.
    """

    def __init__(self, model: WorldModel, config: PlanConfig, goal: Mapping[str, np.ndarray]) -> None:
        self.model, self.config = model.eval(), config
        self.interface = planner_interface(model)
        self.n_action_steps = config.execute * model.config.frame_skip
        self.n_obs_steps = 1 + model.config.frame_skip
        self._dt = 1.0 / self.interface.fps
        Observation(goal, "", 0.0).check(model.interface)
        self._goal = self._encode(goal)
        self._last: tuple[float, Tensor] | None = None  # when the last plan was made, and the plan
        self._commanded: dict[int, np.ndarray] = {}  # by the control step at which it was due

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """The whole best plan; its rows beyond `n_action_steps` are executed only if the next chunk is late."""
        if len(histories) != 1:
            raise InputError(f"planning: expected the history of one arm, found {len(histories)}")
        oldest, seen = histories[0][0], histories[0][-1]
        for observation in (oldest, seen):
            observation.check(self.interface)
        latents, past = self._history(oldest, seen)
        position = self._position(seen)
        draws = torch.Generator().manual_seed(int(generator.integers(2**63)))
        search = SOLVERS[self.config.solver]
        plan = search(lambda plans: self.cost(latents, past, position, plans), self._start(seen.t), self.config, draws)
        self._last = seen.t, plan
        return [self.chunk(seen, plan)]

    def chunk(self, seen: Observation, plan: Tensor) -> ActionChunk:
        """A plan (H, A) made from an observation, as commands, from which the next plan continues."""
        rows = self.commands(self._position(seen), plan[None])[0].flatten(0, 1).numpy()
        first = self._step(seen.t)
        self._commanded |= {first + row: command for row, command in enumerate(rows)}
        return ActionChunk(rows, seen.t, self._dt)

    @torch.inference_mode()
    def cost(self, latents: Tensor, past: Tensor, position: Tensor, plans: Tensor) -> Tensor:
        """Squared distances (N,) between the goal and the latents predicted for plans (N, H, A), from the last latents
        (T, D) and the commands (T - 1, frame_skip, A) in between: at the last step or the smallest, see `config.aim`.
        """
        count = len(plans)
        commands = self.commands(position, plans).to(self.model.device)
        seen, given = latents.expand(count, -1, -1), past.to(commands).expand(count, -1, -1, -1)
        imagined = self.model.imagine(seen, given, commands)
        distances = (imagined - self._goal).square().sum(-1).cpu()
        return distances[:, -1] if self.config.aim == "last" else distances.amin(1)

    def _history(self, oldest: Observation, seen: Observation) -> tuple[Tensor, Tensor]:
        """The last latents (T, D), T 1 or 2, and the commands in between (T - 1, frame_skip, A)."""
        skip, newest = self.model.config.frame_skip, self._encode(seen.values)
        steps = [self._step(seen.t) - k for k in range(skip, 0, -1)]
        whole = self._step(oldest.t) == steps[0] and all(step in self._commanded for step in steps)
        if not whole:
            return newest[None], torch.zeros(0, skip, *self.interface.action.shape)
        past = torch.from_numpy(np.stack([self._commanded[step] for step in steps]).astype(np.float32))
        return torch.stack([self._encode(oldest.values), newest]), past[None]

    def _position(self, seen: Observation) -> Tensor:
        """Where commands continue: at the last one before this observation, or where the arm is measured."""
        last = self._commanded.get(self._step(seen.t) - 1)
        return torch.as_tensor(seen.values[STATE] if last is None else last, dtype=torch.float32)

    def _step(self, t: float) -> int:
        return round(t / self._dt)

    def commands(self, position: Tensor, plans: Tensor) -> Tensor:
        """Plans (N, H, A) as commands (N, H, frame_skip, A): straight lines between waypoints, from a position (A,)."""
        skip = self.model.config.frame_skip
        waypoints = position + plans.cumsum(1) * skip * self.config.max_step
        before = torch.cat([position.expand(len(plans), 1, -1), waypoints[:, :-1]], dim=1)
        part = torch.arange(1, skip + 1)[:, None] / skip
        return before[:, :, None] + part * (waypoints - before)[:, :, None]

    def _start(self, now: float) -> Tensor:
        """Warm start: the last plan shifted by the steps since, padded with zeros; all zeros if it is over."""
        still = torch.zeros(self.config.horizon, *self.interface.action.shape)
        if self._last is None:
            return still
        made, plan = self._last
        steps = round((now - made) / self._dt / self.model.config.frame_skip)
        return torch.cat([plan[steps:], still])[: len(still)] if steps > 0 else still

    @torch.inference_mode()
    def _encode(self, images: Mapping[str, np.ndarray]) -> Tensor:
        keys = self.model.config.cameras
        return self.model.encode({key: torch.from_numpy(np.array(images[key]))[None] for key in keys})[0]


def planner_interface(model: WorldModel) -> Interface:
    """A planner's observations: the model's cameras, and the state in the action's channels."""
    seen = model.interface
    return Interface({**seen.observations, STATE: seen.action}, seen.action, seen.fps, seen.frame)
