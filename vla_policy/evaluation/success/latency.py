"""Latency of one action chunk, from observations to actions, for one arm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from vla_policy.interfaces import ActionChunk, ContinuingPolicy, Given, InputError, Interface, Observation, Policy
from vla_policy.runtime import predicted
from vla_policy.utils.percentiles import percentiles


def chunk_latency(
    policy: Policy,
    histories: Sequence[Sequence[Observation]],
    repeats: int = 100,
    warmup: int = 5,
    generator: np.random.Generator | None = None,
    max_seconds: float = 20.0,
    given: Given | None = None,
) -> dict[str, Any]:
    """Milliseconds of `predict` for one history (batch 1), preprocessing included: `percentiles` and mean.

    `predict` returns numpy arrays, so that an accelerator has finished when the clock stops. `warmup` calls are made
    first and reported separately, as `warmup_ms`. A slow policy is timed for `max_seconds`; `n` is the number of calls.
    Each chunk continues what is `given`.
    """
    if not histories or repeats < 1:
        raise InputError(f"latency: expected histories and repeats >= 1, found {len(histories)} and {repeats}")
    generator = generator if generator is not None else np.random.default_rng(0)

    def once(k: int) -> float:
        begin = time.perf_counter()
        predicted(policy, [list(histories[k % len(histories)])], [given], generator)
        return (time.perf_counter() - begin) * 1e3

    first = [once(k) for k in range(warmup)]
    milliseconds: list[float] = []
    while len(milliseconds) < repeats and sum(milliseconds) < 1e3 * max_seconds:
        milliseconds.append(once(len(milliseconds)))
    return {
        **percentiles(milliseconds),
        "mean": float(np.mean(milliseconds)),
        "batch": 1,
        "measured": "observations to actions, preprocessing included",
        "warmup_ms": first,
    }


def random_histories(
    policy: Policy, count: int = 8, seed: int = 0, task: str = "push the block onto the goal"
) -> list[list[Observation]]:
    """Random observations of the policy's shapes, for timing without an environment."""
    generator = np.random.default_rng(seed)
    interface, dt = policy.interface, 1.0 / policy.interface.fps
    return [
        [Observation(_random_values(interface, generator), task, k * dt) for k in range(policy.n_obs_steps)]
        for _ in range(count)
    ]


def _random_values(interface: Interface, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        key: generator.integers(0, 256, feature.shape, dtype=np.uint8)
        if feature.dtype == "image"
        else generator.random(feature.shape, dtype=np.float32)
        for key, feature in interface.observations.items()
    }


class KeepHistories:
    """A policy that keeps its first `count` inputs, to measure its latency on real observations later."""

    def __init__(self, policy: Policy, count: int = 32) -> None:
        self.policy = policy
        self.interface: Interface = policy.interface
        self.n_obs_steps = policy.n_obs_steps
        self.n_action_steps = policy.n_action_steps
        self.histories: list[Sequence[Observation]] = []
        self._count = count

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        self.histories += histories[: self._count - len(self.histories)]
        if given:
            return cast(ContinuingPolicy, self.policy).predict(histories, generator, given)
        return self.policy.predict(histories, generator)


def split_latency(policy: Any, histories: Sequence[Sequence[Observation]], repeats: int = 100, warmup: int = 5) -> dict:
    """Milliseconds of what runs once per chunk, as `percentiles`: observations to the transformer's keys and values.

    For policies that have `prefix`; the rest of `chunk_latency` is denoising.
    """
    import torch

    def once(history: Sequence[Observation]) -> float:
        begin = time.perf_counter()
        batch: dict[str, Any] = {
            key: torch.from_numpy(np.stack([observation.values[key] for observation in history])[None])
            for key in policy.interface.observations
        }
        batch["task"] = [history[-1].task]
        with torch.no_grad():  # as in `sample`
            policy.prefix(batch)
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) * 1e3

    milliseconds = [once(histories[k % len(histories)]) for k in range(warmup + repeats)][warmup:]
    return percentiles(milliseconds)
