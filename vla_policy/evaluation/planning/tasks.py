"""Tasks with starts and goal images from recorded episodes, and running them in simulation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sim import PushTEnv
from sim.geometry import PIXEL, pose_from_features, wrap_angle
from sim.interface import pusht_interface
from vla_policy.data import LeRobotDataset
from vla_policy.data.frame_cache import open_cache
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, ActionChunk, InputError, Observation, Policy
from vla_policy.rollouts.control import ControlLoop, drive_of
from vla_policy.world_model.planning import Planner

NEAR, TURNED = 20 * PIXEL, np.pi / 9  # success: metres of pusher and block jointly (the norm over both), radians


@dataclass(frozen=True)
class Task:
    """A start and a goal from a recorded episode. Metres and radians; `pictures` (H, W, 3) by camera."""

    number: int
    episode: int
    frame: int  # of the start
    pusher: np.ndarray  # (2,) at the start
    block_pose: np.ndarray  # (3,)
    goal_pusher: np.ndarray
    goal_block_pose: np.ndarray
    pictures: Mapping[str, np.ndarray] = field(repr=False)  # of the goal
    recorded: np.ndarray = field(repr=False)  # (ahead, 2) commands from start to goal


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task. Final distances in metres and radians; `plan_ms` has the time of every plan."""

    success: bool  # pusher, block and angle near the goal's at the same time
    block_success: bool  # block and angle
    pusher_distance: float
    block_distance: float
    angle_distance: float
    plan_ms: list[float]


def draw_tasks(
    dataset: LeRobotDataset, episodes: Sequence[int], cameras: Sequence[str], n_starts: int, ahead: int, seed: int
) -> list[Task]:
    """`n_starts` different starts, uniform over the frames that have a successor `ahead` steps later."""
    pusht_interface({}).require(dataset.interface, "planning in simulation", str(dataset.root))
    places = [(e, t) for e in episodes for t in range(dataset.length(e) - ahead)]
    if len(places) < n_starts:
        raise InputError(f"n_starts: expected at most {len(places)} in these episodes, found {n_starts}")
    chosen = np.random.default_rng(seed).choice(len(places), n_starts, replace=False)
    frames = {key: open_cache(dataset, key, episodes).frames for key in cameras}
    tasks = []
    for number, (episode, frame) in enumerate(places[i] for i in chosen):
        recorded, goal = dataset.episode(episode), frame + ahead
        columns = recorded.columns
        pushers, poses = columns[STATE].astype(float), pose_from_features(columns[ENVIRONMENT_STATE])
        pictures = {key: np.array(every[dataset.rows(episode).start + goal]) for key, every in frames.items()}
        ends = (pushers[frame], poses[frame], pushers[goal], poses[goal])
        tasks.append(Task(number, episode, frame, *ends, pictures, recorded.executed[frame:goal].astype(float)))
    return tasks


class RandomPlans:
    """Executes plans sampled from the search's initial distribution, without looking at the observation."""

    n_obs_steps = 1

    def __init__(self, planner: Planner) -> None:
        self.interface, self.n_action_steps = planner.interface, planner.n_action_steps
        self._planner = planner

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        config = self._planner.config
        shape = (len(histories), config.horizon, *self.interface.action.shape)
        plans = torch.from_numpy(config.spread * generator.standard_normal(shape, np.float32)).clamp(-1, 1)
        return [self._planner.chunk(history[-1], plan) for history, plan in zip(histories, plans, strict=True)]


class Replayed:
    """Replays the recorded commands, then holds: the upper bound that the simulator's repeatability sets."""

    n_obs_steps = 1

    def __init__(self, task: Task, budget: int) -> None:
        self.interface, self.n_action_steps = pusht_interface({}).select([STATE]), budget
        rest = np.repeat(task.recorded[-1:], max(budget - len(task.recorded), 0), axis=0)
        self._commands = np.concatenate([task.recorded, rest])

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        return [ActionChunk(self._commands, history[-1].t, 1.0 / self.interface.fps) for history in histories]


def run_task(env: PushTEnv, task: Task, policy: Policy, budget: int, generator: np.random.Generator) -> Outcome:
    """Run a task for `budget` steps; the environment's own goal is ignored."""
    control = ControlLoop(policy.interface, policy.n_obs_steps, policy.n_action_steps, drive_of(env))
    observation, info = env.reset(seed=task.number, options={"pusher": task.pusher, "block_pose": task.block_pose})
    near, block_near, plan_ms = [], [], []
    for _ in range(budget):
        control.observe(observation, env.task, observation[STATE])
        window = control.ask()
        if window is not None:
            began = time.perf_counter()
            (chunk,) = policy.predict([window], generator)
            plan_ms.append(1000 * (time.perf_counter() - began))
            control.offer(chunk)
        observation, _, _, _, info = env.step(control.command().action.astype(np.float32))
        pusher, block, angle = distances(info, task)
        near.append(bool(np.hypot(pusher, block) < NEAR and angle < TURNED))
        block_near.append(block < NEAR and angle < TURNED)
    return Outcome(any(near), any(block_near), pusher, block, angle, plan_ms)


def distances(info: Mapping[str, Any], task: Task) -> tuple[float, float, float]:
    """Distances to the goal of the pusher and the block (metres), and of the block's angle (radians)."""
    pusher = np.linalg.norm(np.asarray(info["pos_agent"]) - task.goal_pusher)
    block = np.linalg.norm(np.asarray(info["block_pose"])[:2] - task.goal_block_pose[:2])
    return float(pusher), float(block), float(abs(wrap_angle(info["block_pose"][2] - task.goal_block_pose[2])))
