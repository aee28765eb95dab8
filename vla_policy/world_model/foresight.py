"""Chunks for what will be seen when they begin, one of which is played once it is (speculative chunks).

A chunk that takes time is made from an observation that is old when it comes. What is executed until then is known:
dynamics imagine several states to which that may lead, the policy is asked about each, all in one batch, and when the
time has come, the chunk for the nearest state is played. VLASH (Tang et al. 2025, arXiv 2512.01031) rolls the robot's
own state forward, once; here what it pushes is imagined as well, and what was wrongly imagined is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np
import torch

from vla_policy.interfaces import ActionChunk, Branches, Given, InputError, Interface, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.models.batching import batch_of
from vla_policy.world_model.dynamics import Dynamics


class Foresight:
    """A `ContinuingPolicy` that asks `policy`, which acts on states alone, about `samples` states in which its chunk
    may begin.

    Without rows that are given a chunk is the policy's own. Beyond the future that is imagined, the state is that at
    its end. States that the policy only sees in pictures are its encoder's estimates; pictures are not imagined.
    """

    def __init__(self, policy: DiffusionPolicy, dynamics: Dynamics, samples: int) -> None:
        self.policy, self.dynamics, self.samples = policy, dynamics.eval(), samples
        self.interface: Interface = policy.interface
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps
        if not policy.acts_on_states:
            raise InputError(
                "planner: expected a policy that sees states, or estimates of them alone (policy.encoder.tokens=false, "
                "no backbone), found one that sees more of its pictures, which are not imagined"
            )
        if policy.interface.cameras and policy.config.ensemble > 1:
            raise InputError(
                "planner: expected one policy, or one that sees no pictures, of which each member has estimates of its "
                f"own, found an ensemble of {policy.config.ensemble}"
            )
        seen, imagined = sorted(policy.states.observations), sorted(dynamics.config.state_keys)
        if seen != imagined:
            raise InputError(
                f"planner.dynamics: expected states that are all the policy acts on, {seen}, found {imagined}"
            )
        policy.states.require(dynamics.interface, "the policy", "planner.dynamics")
        if policy.n_obs_steps < dynamics.config.past:  # a past that stands still would be invented
            raise InputError(
                f"planner.dynamics: expected dynamics.past of at most the {policy.n_obs_steps} observations that the "
                f"policy sees, found {dynamics.config.past}"
            )
        self._spread = {key: _from_zero(values.cpu().numpy()) for key, values in dynamics.spread().items()}

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        """One chunk a history, which begins with the frozen rows of its entry in `given`, then has `Branches`; equal
        generators give equal chunks.
        """
        if not histories:
            return []
        histories = self._states(histories)
        entries = list(given) or [None] * len(histories)
        futures = self._imagined(histories, entries, generator)
        windows: list[Sequence[Observation]] = []
        for history, entry, future in zip(histories, entries, futures, strict=True):
            windows += [history] if entry is None else [self._later(history, one, self._steps(entry)) for one in future]
        chunks = iter(self.policy.predict_from_states(windows, generator))
        return [
            next(chunks) if entry is None else self._branches(history, entry, future, [next(chunks) for _ in future])
            for history, entry, future in zip(histories, entries, futures, strict=True)
        ]

    def _states(self, histories: Sequence[Sequence[Observation]]) -> list[Sequence[Observation]]:
        """The histories with estimates in the pictures' place."""
        if not self.policy.interface.cameras:
            return list(histories)
        batch = batch_of(histories, self.interface, len(histories[0]))
        estimates = self.policy.estimates(batch, steps=len(histories[0]))
        found = {key: values.cpu().numpy() for key, values in estimates.items()}
        if not all(np.isfinite(values).all() for values in found.values()):
            raise InputError("policy: expected finite estimates of its pictures, found others; its weights are damaged")
        vectors = self.policy.encoder.vectors
        return [
            [
                replace(
                    seen,
                    values={**{key: seen.values[key] for key in vectors}, **{key: found[key][i, k] for key in found}},
                )
                for k, seen in enumerate(history)
            ]
            for i, history in enumerate(histories)
        ]

    def _shown(self, seen: Observation) -> Mapping[str, np.ndarray]:
        """The states that an observation shows."""
        return self._states([[seen]])[0][0].values

    def _steps(self, given: Given) -> int:
        """How many control periods ahead the policy is asked."""
        return min(given.frozen, self.dynamics.config.future)

    def _imagined(
        self,
        histories: Sequence[Sequence[Observation]],
        entries: Sequence[Given | None],
        generator: np.random.Generator,
    ) -> list[list[dict[str, np.ndarray]]]:
        """For each history `samples` futures, states (F, D) by key, to which given rows may lead; none without such."""
        given = {index: entry for index, entry in enumerate(entries) if entry is not None}
        if not given:
            return [[] for _ in entries]
        config = self.dynamics.config
        past = torch.stack([_past(histories[index], config.state_keys, config.past) for index in given])
        commands = torch.stack([_filled(entry.rows, config.future) for entry in given.values()])
        noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        past, commands = (values.repeat_interleave(self.samples, dim=0) for values in (past, commands))
        states = self.dynamics.named(self.dynamics.imagine(past, commands, noise).cpu())
        found: list[list[dict[str, np.ndarray]]] = [[] for _ in entries]
        for place, index in enumerate(given):
            rows = range(place * self.samples, (place + 1) * self.samples)
            found[index] = [{key: values[row].numpy() for key, values in states.items()} for row in rows]
        return found

    def _later(self, history: Sequence[Observation], future: Mapping[str, np.ndarray], steps: int) -> list[Observation]:
        """The policy's input when `steps` of a future have passed."""
        newest, dt = history[-1], 1.0 / self.interface.fps
        later = [
            Observation({key: values[k] for key, values in future.items()}, newest.task, newest.t + (k + 1) * dt)
            for k in range(steps)
        ]
        return [*history, *later][-self.n_obs_steps :]

    def _branches(
        self,
        history: Sequence[Observation],
        given: Given,
        future: Sequence[Mapping[str, np.ndarray]],
        chunks: Sequence[ActionChunk],
    ) -> Branches:
        """The frozen rows, then those of each chunk that are due after them."""
        begun, over, now = given.rows[: given.frozen], given.frozen - self._steps(given), history[-1].values
        candidates = np.stack([np.concatenate([begun, chunk.actions[over:]]) for chunk in chunks])
        return Branches(
            candidates[0],
            history[-1].t,
            1.0 / self.interface.fps,
            candidates=candidates,
            expected={
                key: np.stack([[now[key], *one[key]] for one in future]) for key in self.policy.states.observations
            },
            scale=self._spread,
            states=self._shown if self.interface.cameras else attrgetter("values"),  # what goes to other processes
        )


def _past(history: Sequence[Observation], keys: Sequence[str], count: int) -> torch.Tensor:
    """The last `count` states (n, D)."""
    states = [np.concatenate([seen.values[key] for key in keys]) for seen in history[-count:]]
    return torch.from_numpy(np.stack(states).astype(np.float32))


def _from_zero(spread: np.ndarray) -> np.ndarray:
    """(1 + F, D) for (F, D): the present state is where it is."""
    return np.concatenate([np.zeros_like(spread[:1]), spread])


def _filled(rows: np.ndarray, count: int) -> torch.Tensor:
    """The first `count` rows (n, D); after the last one it is repeated."""
    rows = np.concatenate([rows[:count], np.repeat(rows[-1:], max(count - len(rows), 0), axis=0)])
    return torch.from_numpy(rows.astype(np.float32))
