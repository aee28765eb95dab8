"""Inputs of monitors in many episodes, recorded once, so that all scores are compared on the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_policy.evaluation.options import RolloutOptions
from vla_policy.evaluation.surprise.watchers import ScoreRecorder
from vla_policy.interfaces import Policy
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.rollouts.rollout import rollout
from vla_policy.rollouts.workers import EnvFactory
from vla_policy.utils.files import write_whole
from vla_policy.world_model import NumpyWorldModel, WorldModel
from vla_policy.world_model.diffusion_mpc import DiffusionMPC


@dataclass(frozen=True)
class Trace:
    """One episode of T steps: latents (T + 1, D), commands (T, A), other scores (T + 1,) by name.

    `event_step` is the first control step that an event changed, None without one: observation `event_step` + 1 is the
    first that may differ.
    """

    seed: int
    success: bool
    latents: np.ndarray
    commands: np.ndarray
    scores: Mapping[str, np.ndarray]
    event_step: int | None = None

    @property
    def steps(self) -> int:
        return len(self.commands)


def record_traces(
    policy: Policy,
    env_factory: EnvFactory,
    world_model: str,
    seeds: Sequence[int],
    options: RolloutOptions,
    callbacks: ProgressCallbacks,
) -> list[Trace]:
    """Run episodes with these seeds and return their traces, in the same order; with the errors of what a planner
    imagines, if `policy` is one.
    """
    spread = None
    if isinstance(policy, DiffusionMPC):
        spread = {key: values.cpu().numpy() for key, values in policy.dynamics.spread().items()}
    results = rollout(
        policy,
        env_factory,
        seeds,
        num_envs=options.num_envs,
        num_workers=options.num_workers,
        seed=options.policy_seed,
        watcher=ScoreRecorder(NumpyWorldModel(WorldModel.from_pretrained(world_model)), spread),
        callbacks=callbacks,
    )
    return [_trace(result) for result in results]


def _trace(result: EpisodeResult) -> Trace:
    watched = dict(result.watched)
    latents = watched.pop("latent")
    event = None if result.aftermath is None else result.aftermath.event_step
    return Trace(result.seed, result.success, latents, result.actions, watched, event)


def save_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Write the traces atomically, the arrays of all episodes concatenated."""
    names = list(traces[0].scores)
    arrays = {
        "seed": np.array([t.seed for t in traces]),
        "success": np.array([t.success for t in traces]),
        "steps": np.array([t.steps for t in traces]),
        "event_step": np.array([-1 if t.event_step is None else t.event_step for t in traces]),
        "latents": np.concatenate([t.latents for t in traces]),
        "commands": np.concatenate([t.commands for t in traces]),
        **{f"score_{name}": np.concatenate([t.scores[name] for t in traces]) for name in names},
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)


def load_traces(path: Path) -> list[Trace]:
    with np.load(path) as file:
        arrays = dict(file)
    seen, made = np.cumsum(arrays["steps"] + 1)[:-1], np.cumsum(arrays["steps"])[:-1]
    latents, commands = np.split(arrays["latents"], seen), np.split(arrays["commands"], made)
    scores = {key.removeprefix("score_"): np.split(a, seen) for key, a in arrays.items() if key.startswith("score_")}
    return [
        Trace(
            int(seed),
            bool(arrays["success"][i]),
            latents[i],
            commands[i],
            {name: parts[i] for name, parts in scores.items()},
            None if arrays["event_step"][i] < 0 else int(arrays["event_step"][i]),
        )
        for i, seed in enumerate(arrays["seed"])
    ]
