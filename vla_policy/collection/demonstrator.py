"""Recording of episodes by the scripted expert, with or without noise, of its corrections, or by random pushes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from typing import Any

import gymnasium
import numpy as np

from sim import TASK
from sim.expert.expert import Expert
from sim.expert.play import RandomPushes
from sim.geometry import pose_from_features
from vla_policy.collection.learner import Learner
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, EXECUTED, STATE

EnvFactory = Callable[[], gymnasium.Env]
BEHAVIOURS = ("expert", "noisy", "random", "dagger")


@dataclass(frozen=True)
class Behaviour:
    """Who acts, and with what: see `CollectConfig`, where the options have the same names."""

    name: str = "expert"
    noise: float = 0.0
    after_success: int = 0
    policy: str | None = None
    patience: int = 1
    alone: int = 0  # dagger: control steps that the policy has for itself

    @property
    def successes_only(self) -> bool:
        """Whether episodes that fail are left out."""
        return self.name in ("expert", "dagger")


@dataclass(frozen=True)
class Demonstration:
    """The outcome of one start: T steps, with vectors (T, D) and images (T, H, W, 3) by key if the episode is kept,
    which an expert's failure is not, and neither an episode that a policy did not need the expert for.

    `task` is the instruction, `goal` the name of the goal that it names, "" if there is only one. `alone` are the steps
    that a policy played before the expert took over.
    """

    seed: int
    success: bool
    steps: int
    max_coverage: float
    columns: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    task: str = TASK
    goal: str = ""
    alone: int = 0

    @property
    def kept(self) -> bool:
        """Whether it belongs in the dataset."""
        return bool(self.columns)


def demonstrate(env: gymnasium.Env, seed: int, behaviour: Behaviour, learner: Learner | None = None) -> Demonstration:
    """Run an episode from the start of this seed, with normal noise of `noise` metres on every executed target.

    It continues for `after_success` steps, so that demonstrations go beyond the threshold of success.

    For "expert" its own target is recorded beside the executed one, so that the demonstrations show how to recover
    (DART, Laskey et al. 2017), and only successes are kept. For "noisy" (the expert) and "random" (pushes anywhere near
    the block) the executed target is recorded, which a world model needs, and every episode is kept. For "dagger" the
    `learner` plays first; where it stalls the expert takes over, and its part alone is kept (Ross et al. 2011;
    HG-DAgger, Kelly et al. 2019).
    """
    observation, info = env.reset(seed=seed)
    if learner is None:
        return _recorded(env, seed, behaviour, observation, info)
    observation, info, alone, done = learner.play(env, observation, info, behaviour.alone, behaviour.patience)
    if done:
        task, goal = env.get_wrapper_attr("task"), info.get("goal", "")
        return Demonstration(seed, True, 0, float(info["coverage"]), {}, {}, task, goal, alone)
    return replace(_recorded(env, seed, behaviour, observation, info), alone=alone)


def _recorded(
    env: gymnasium.Env, seed: int, behaviour: Behaviour, observation: dict[str, np.ndarray], info: dict[str, Any]
) -> Demonstration:
    """The rest of an episode, from this observation on."""
    generator = np.random.default_rng([seed, 1])
    agent = RandomPushes(generator) if behaviour.name == "random" else Expert(info["goal_pose"])
    frames: dict[str, list[np.ndarray]] = {}
    covered, success, left = 0.0, False, behaviour.after_success
    done = False
    while not done:
        action = agent.act(observation[STATE], pose_from_features(observation[ENVIRONMENT_STATE])).astype(np.float32)
        executed = action + behaviour.noise * generator.standard_normal(2)
        executed = np.clip(executed, env.action_space.low, env.action_space.high)  # type: ignore[attr-defined]
        sent = executed.astype(np.float32)
        recorded = {ACTION: action, EXECUTED: sent} if behaviour.successes_only else {ACTION: sent}
        for key, value in {**observation, **recorded}.items():
            frames.setdefault(key, []).append(value)
        observation, _, terminated, truncated, info = env.step(executed)
        covered, success = max(covered, info["coverage"]), success or bool(terminated)
        done = truncated or (success and left == 0)
        left -= success
    keep = success or not behaviour.successes_only
    arrays = {key: np.stack(values) for key, values in frames.items()} if keep else {}
    images = {key: array for key, array in arrays.items() if array.dtype == np.uint8}
    columns = {key: array for key, array in arrays.items() if key not in images}
    task, goal = env.get_wrapper_attr("task"), info.get("goal", "")
    return Demonstration(seed, success, len(frames[ACTION]), covered, columns, images, task, goal)


@contextmanager
def demonstrations(
    env_factory: EnvFactory, seeds: Iterator[int], behaviour: Behaviour, num_workers: int
) -> Iterator[Iterator[Demonstration]]:
    """Demonstrations in the order of `seeds`, without end, computed ahead in spawned processes (0: in this one)."""
    if num_workers == 0:
        env, learner = env_factory(), _learner(behaviour)
        try:
            yield (demonstrate(env, seed, behaviour, learner) for seed in seeds)
        finally:
            env.close()
        return
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), _start_worker, (env_factory, behaviour))
    try:
        yield _in_order(pool, seeds, 2 * num_workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _learner(behaviour: Behaviour) -> Learner | None:
    return None if behaviour.policy is None else Learner(behaviour.policy)


def _in_order(pool: ProcessPoolExecutor, seeds: Iterator[int], ahead: int) -> Iterator[Demonstration]:
    running: list[Future[Demonstration]] = []
    while True:
        while len(running) < ahead:
            running.append(pool.submit(_demonstrate, next(seeds)))
        yield running.pop(0).result()


_worker: list[Callable[[int], Demonstration]] = []  # runs a seed in the worker process's one environment


def _start_worker(env_factory: EnvFactory, behaviour: Behaviour) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    env, learner = env_factory(), _learner(behaviour)
    if learner is not None:
        learner.use_one_thread()
    _worker.append(lambda seed: demonstrate(env, seed, behaviour, learner))


def _demonstrate(seed: int) -> Demonstration:
    return _worker[0](seed)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
