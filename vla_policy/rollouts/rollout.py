"""Many episodes of one policy: environments in worker processes, batched inference in this one."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from vla_policy.interfaces import InputError, Policy
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult, EpisodeSpec, Start
from vla_policy.rollouts.watch import WatchedStep, Watcher
from vla_policy.rollouts.workers import (
    EnvFactory,
    Group,
    LocalGroup,
    OnResult,
    OnWatched,
    PolicyFactory,
    RemoteGroup,
    RolloutError,
)
from vla_policy.runtime import predicted

Unreadable = Callable[[str], str]  # the reason that a policy cannot follow an instruction, "" if it can


def rollout(
    policy: Policy,
    env_factory: EnvFactory,
    seeds: Sequence[int | Start],
    *,
    num_envs: int = 16,
    num_workers: int = 2,
    seed: int = 0,
    delay: int = 0,
    chunking: str = "async",
    policy_factory: PolicyFactory | None = None,
    watcher: Watcher | None = None,
    unreadable: Unreadable | None = None,
    callbacks: ProgressCallbacks = ProgressCallbacks(),  # noqa: B008, immutable
) -> list[EpisodeResult]:
    """Run one episode for each of `seeds` (a `Start` adds a goal to a seed); results in that order.

    `num_envs` environments are distributed over `num_workers` spawned processes (0: all in this one); `env_factory`
    must be picklable. The workers are served in strict rotation: while the policy predicts for one of them, in one
    batch, the others simulate. So equal `seed` (the policy's noise), `num_envs` and `num_workers` repeat a run bit for
    bit on the same machine. Inference takes `delay` control periods of simulated time, which `chunking` bridges; with
    "rtc" the policy has to be a `ContinuingPolicy`. With `policy_factory` each episode has its own policy, which runs
    in the worker; `policy` then only states the interface. `watcher` runs in this process, and may halt arms. Episodes
    whose instruction is `unreadable` to `policy` are not started.

    Raises `InputError` if policy and environment do not fit, `RolloutError` with the finished episodes if a worker
    dies or an environment fails.
    """
    if num_envs < 1 or num_workers < 0:
        raise InputError(f"rollout: expected num_envs >= 1 and num_workers >= 0, found {num_envs} and {num_workers}")
    starts = [start if isinstance(start, Start) else Start(start) for start in seeds]
    if len(set(starts)) != len(starts):
        raise InputError("rollout: expected distinct seeds or goals, found repeated ones")
    results: dict[Start, EpisodeResult] = {}

    def finish(start: Start, result: EpisodeResult) -> None:
        if watcher is not None:
            recorded = watcher.record(start)
            result = result if result.refused else replace(result, watched=recorded)
        results[start] = result
        callbacks.on_episode(result)

    def watch(steps: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        return () if watcher is None else watcher.update(steps)

    spec = EpisodeSpec.of(policy, delay, watcher, chunking)
    groups = _groups(finish, watch, env_factory, spec, starts, num_envs, num_workers, policy_factory)
    try:
        with _torch_threads(_free_cores(num_workers)):
            _serve(groups, policy, np.random.default_rng(seed), callbacks, unreadable)
    except RolloutError as error:
        finished = [results[start] for start in starts if start in results]
        raise RolloutError(f"{error} ({len(finished)} of {len(starts)} episodes were finished)", finished) from None
    finally:
        for group in groups:
            group.close()
    return [results[start] for start in starts]


def _serve(
    groups: Sequence[Group],
    policy: Policy,
    generator: np.random.Generator,
    callbacks: ProgressCallbacks,
    unreadable: Unreadable | None,
) -> None:
    """Predict for one group after the other until all episodes have ended."""
    for group in groups:
        group.send({})
    turns = deque(groups)
    while turns:
        group = turns.popleft()
        round_ = group.receive()
        callbacks.on_steps(round_.steps)
        if round_.running:
            refused = [slot for slot in round_.beginning if unreadable and unreadable(round_.windows[slot][-1].task)]
            windows = {slot: window for slot, window in round_.windows.items() if slot not in refused}
            given = [round_.given.get(slot) for slot in windows]
            chunks = predicted(policy, list(windows.values()), given, generator) if windows else []
            group.send({**dict.fromkeys(refused), **dict(zip(windows, chunks, strict=True))})
            turns.append(group)


def _groups(
    on_result: OnResult,
    on_watched: OnWatched,
    env_factory: EnvFactory,
    spec: EpisodeSpec,
    starts: Sequence[Start],
    num_envs: int,
    num_workers: int,
    policy_factory: PolicyFactory | None,
) -> list[Group]:
    """Groups with equal shares of starts and environments; none is empty."""
    if not starts:
        return []
    if num_workers == 0:
        return [LocalGroup(on_result, on_watched, env_factory, spec, starts, num_envs, policy_factory)]
    count = min(num_workers, num_envs, len(starts))
    peers: list[RemoteGroup] = []
    for i in range(count):
        share = list(starts[i::count]), len(range(i, num_envs, count))
        RemoteGroup(f"simulation worker {i}", peers, on_result, on_watched, env_factory, spec, *share, policy_factory)
    return list(peers)


def _free_cores(num_workers: int) -> int:
    """Cores that the simulating workers leave to the policy: all but one of them are busy while it predicts."""
    return max(1, len(os.sched_getaffinity(0)) - max(num_workers - 1, 0))


@contextmanager
def _torch_threads(most: int) -> Iterator[None]:
    """Limit torch's threads to `most`: with more threads than free cores it is many times slower."""
    torch = sys.modules.get("torch")
    if torch is None:  # not in use
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, most))
    try:
        yield
    finally:
        torch.set_num_threads(before)
