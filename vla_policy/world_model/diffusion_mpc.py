"""Diffusion-MPC (Zhou et al. 2024, arXiv 2410.05364): propose chunks, imagine what follows, play the best.

The objective is no part of any training: it can be changed at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_policy.interfaces import ACTION, ActionChunk, InputError, Interface, Objective, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.world_model.dynamics import Dynamics


class DiffusionMPC:
    """A `Policy` that samples `samples` chunks of `policy`, imagines each with `dynamics` and plays the one that
    `objective` prefers, with the states that it imagines to follow; the objective may be replaced at any time.

    States that the policy only sees in pictures are its encoder's estimates.
    """

    def __init__(self, policy: DiffusionPolicy, dynamics: Dynamics, objective: Objective, samples: int) -> None:
        self.policy, self.dynamics, self.objective, self.samples = policy, dynamics.eval(), objective, samples
        self.interface: Interface = policy.interface
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps
        _check(policy, dynamics, samples)

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """One chunk a history; equal generators give equal chunks."""
        if not histories:
            return []
        batch = self.policy.batch(histories)
        chunks, noise = propose(self.policy, batch, generator, self.samples)
        past = self._past(batch)
        states = _arrays(self.dynamics.named(self.imagine(past, chunks, noise)))  # (B, K, F, D)
        present = _arrays(self.dynamics.named(past[:, -1]))  # (B, D)
        found = []
        for row, (history, candidates) in enumerate(zip(histories, chunks.double().cpu().numpy(), strict=True)):
            future = {key: values[row] for key, values in states.items()}
            best = self._best(candidates, future)
            imagined = {key: np.vstack([present[key][row], values[best]]) for key, values in future.items()}
            found.append(ActionChunk(candidates[best], history[-1].t, 1.0 / self.interface.fps, imagined))
        return found

    def _best(self, candidates: np.ndarray, states: Mapping[str, np.ndarray]) -> int:
        """Which of chunks (K, T, A), that lead to states (K, F, D) by key."""
        scores = self.objective({**states, ACTION: candidates[:, : self.dynamics.config.future]})
        if not (np.isfinite(candidates).all() and np.isfinite(scores).all()):
            raise InputError("planner: expected finite actions and scores, found others; weights are damaged")
        return int(np.argmax(scores))

    def imagine(self, past: Tensor, chunks: Tensor, generator: torch.Generator) -> Tensor:
        """The states (B, K, F, D) that follow from past ones (B, n, D) and chunks (B, K, T, A)."""
        repeated = past.repeat_interleave(chunks.shape[1], dim=0)
        commands = chunks.flatten(0, 1)[:, : self.dynamics.config.future]
        return self.dynamics.imagine(repeated, commands, generator).unflatten(0, chunks.shape[:2])

    def _past(self, batch: Mapping[str, Any]) -> Tensor:
        """The last states (B, n, D); of estimates that are older than the pictures, the oldest one repeated."""
        count, parts = self.dynamics.config.past, []
        estimates = self.policy.estimates(batch) if self.policy.config.auxiliary_keys else {}
        for key in self.dynamics.config.state_keys:
            values = (batch[key] if key in batch else estimates[key]).to(self.dynamics.device)[:, -count:]
            missing = count - values.shape[1]
            parts.append(torch.cat([values[:, :1].expand(-1, missing, -1), values], dim=1))
        return torch.cat(parts, dim=-1)


def propose(
    policy: DiffusionPolicy, batch: Mapping[str, Any], generator: np.random.Generator, samples: int
) -> tuple[Tensor, torch.Generator]:
    """Chunks (B, K, T, A) for each observation of a batch, and the generator of their noise, for what comes after."""
    policy.eval()
    noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
    return policy.propose(batch, noise, samples), noise


def _arrays(states: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: values.double().cpu().numpy() for key, values in states.items()}


def _check(policy: DiffusionPolicy, dynamics: Dynamics, samples: int) -> None:
    """`InputError` unless the policy sees or estimates what the dynamics need, and proposes as far as they imagine."""
    if samples < 1:
        raise InputError(f"planner.samples: expected at least 1, found {samples}")
    known = {*policy.interface.observations, *policy.config.auxiliary_keys}
    if missing := [key for key in dynamics.config.state_keys if key not in known]:
        raise InputError(f"planner.dynamics: expected states that the policy sees or estimates, found {missing}")
    dynamics.interface.require(policy.full_interface, "planner.dynamics", "the policy")
    rows = policy.config.horizon - policy.n_obs_steps + 1
    if dynamics.config.future > rows:
        raise InputError(
            f"planner.dynamics: expected dynamics.future of at most the policy's {rows} rows, found "
            f"{dynamics.config.future}"
        )
