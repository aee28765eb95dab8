"""Planning towards goal pictures in simulation, by the protocol of DINO-WM (arXiv 2411.04983) and LeWorldModel
(arXiv 2603.19312): start and goal are two frames of a recorded episode, and there is a budget of control steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from sim import PushTConfig, PushTEnv
from sim.geometry import PIXEL, pose_from_features, wrap_angle
from sim.interface import pusht_interface
from sim.overrides import replace
from vla_policy.data import LeRobotDataset
from vla_policy.data.frame_cache import open_cache
from vla_policy.evaluation.baselines import HoldPolicy
from vla_policy.evaluation.open_loop import held_out_episodes
from vla_policy.evaluation.report import git_commit, interval, percent, success_rate, write_csv, write_json
from vla_policy.evaluation.statistics import compare_paired, mean_interval
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, IMAGES, STATE, ActionChunk, InputError, Observation, Policy
from vla_policy.runtime import Executor, Limits
from vla_policy.world_model import WorldModel
from vla_policy.world_model.planning import PlanConfig, Planner

NEAR, TURNED = 20 * PIXEL, np.pi / 9  # success: metres of pusher and block jointly (the norm over both), radians


@dataclass
class PlanEvalConfig:
    """The keys of `conf/plan.yaml`, explained there."""

    episodes: list[int] | None = None
    n_starts: int = 50
    seed: int = 100000
    ahead: int = 25
    budget: int = 50
    plan: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    policy_seed: int = 0
    device: str = "auto"
    threads: int | None = None
    out: str = "outputs/plan"

    def __post_init__(self) -> None:
        for key, least in {"n_starts": 1, "ahead": 1, "budget": 1, "seed": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")

    @property
    def search(self) -> PlanConfig:
        """How plans are searched; `InputError` for unknown keys and impossible values."""
        return replace(PlanConfig(), self.plan, "plan")

    @property
    def scene(self) -> PushTConfig:
        return PushTConfig.from_mapping(self.task)


@dataclass(frozen=True)
class Task:
    """One start and its goal, from a recorded episode. Metres and radians; `pictures` (H, W, 3) by camera."""

    number: int
    episode: int
    frame: int  # of the start
    pusher: np.ndarray  # (2,) at the start
    block_pose: np.ndarray  # (3,)
    goal_pusher: np.ndarray
    goal_block_pose: np.ndarray
    pictures: Mapping[str, np.ndarray] = field(repr=False)  # of the goal
    recorded: np.ndarray = field(repr=False)  # (ahead, 2) commands that led there


@dataclass(frozen=True)
class Outcome:
    """What came of a task. Distances in metres and radians, at the end of the budget; `plan_ms` of every plan."""

    success: bool  # pusher, block and angle near the goal's at one time
    block_success: bool  # block and angle
    pusher_distance: float
    block_distance: float
    angle_distance: float
    plan_ms: list[float]


PolicyOf = Callable[[Task], Policy]


def draw_tasks(
    dataset: LeRobotDataset, episodes: Sequence[int], cameras: Sequence[str], config: PlanEvalConfig
) -> list[Task]:
    """`n_starts` different starts, any frame of the episodes that has one `ahead` steps later as likely as another."""
    pusht_interface({}).require(dataset.interface, "planning in simulation", str(dataset.root))
    places = [(e, t) for e in episodes for t in range(int(dataset.lengths[e]) - config.ahead)]
    if len(places) < config.n_starts:
        raise InputError(f"n_starts: expected at most {len(places)} in these episodes, found {config.n_starts}")
    chosen = np.random.default_rng(config.seed).choice(len(places), config.n_starts, replace=False)
    frames = {key: open_cache(dataset, key, episodes).frames for key in cameras}
    first = np.cumsum(dataset.lengths) - dataset.lengths
    tasks = []
    for number, (episode, frame) in enumerate(places[i] for i in chosen):
        columns, goal = dataset.episode(episode).columns, frame + config.ahead
        pushers, poses = columns[STATE].astype(float), pose_from_features(columns[ENVIRONMENT_STATE])
        pictures = {key: np.array(every[first[episode] + goal]) for key, every in frames.items()}
        ends = (pushers[frame], poses[frame], pushers[goal], poses[goal])
        tasks.append(Task(number, episode, frame, *ends, pictures, columns[ACTION][frame:goal].astype(float)))
    return tasks


class RandomPlans:
    """Carries out plans as a search draws its first ones, whatever is seen."""

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
    """Sends the recorded commands that led to the goal, then stays: what the simulator's repeatability allows."""

    n_obs_steps = 1

    def __init__(self, task: Task, budget: int) -> None:
        self.interface, self.n_action_steps = pusht_interface({}).select([STATE]), budget
        rest = np.repeat(task.recorded[-1:], max(budget - len(task.recorded), 0), axis=0)
        self._commands = np.concatenate([task.recorded, rest])

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        return [ActionChunk(self._commands, history[-1].t, 1.0 / self.interface.fps) for history in histories]


def play(env: PushTEnv, task: Task, policy: Policy, budget: int, generator: np.random.Generator) -> Outcome:
    """Try a task for `budget` steps. The environment's own goal, and that it was reached, mean nothing here."""
    box: Any = env.action_space
    limits = Limits(box.low.astype(float), box.high.astype(float))
    executor = Executor(policy.interface, policy.n_obs_steps, policy.n_action_steps, limits)
    observation, info = env.reset(seed=task.number, options={"pusher": task.pusher, "block_pose": task.block_pose})
    near, block_near, plan_ms = [], [], []
    for step in range(budget):
        now = step / policy.interface.fps
        executor.observe(Observation({key: observation[key] for key in policy.interface.observations}, env.task, now))
        if executor.needs_chunk(now):
            began = time.perf_counter()
            (chunk,) = policy.predict([executor.window()], generator)
            plan_ms.append(1000 * (time.perf_counter() - began))
            executor.accept(chunk, now)
        observation, _, _, _, info = env.step(executor.command(now).action.astype(np.float32))
        pusher, block, angle = distances(info, task)
        near.append(bool(np.hypot(pusher, block) < NEAR and angle < TURNED))
        block_near.append(block < NEAR and angle < TURNED)
    return Outcome(any(near), any(block_near), pusher, block, angle, plan_ms)


def distances(info: Mapping[str, Any], task: Task) -> tuple[float, float, float]:
    """Of the pusher and the block from where the goal has them, metres, and between the block's angles, radians."""
    pusher = np.linalg.norm(np.asarray(info["pos_agent"]) - task.goal_pusher)
    block = np.linalg.norm(np.asarray(info["block_pose"])[:2] - task.goal_block_pose[:2])
    return float(pusher), float(block), float(abs(wrap_angle(info["block_pose"][2] - task.goal_block_pose[2])))


def evaluate_planning(
    model: WorldModel,
    dataset: LeRobotDataset,
    config: PlanEvalConfig,
    out: Path,
    checkpoint: str,
    tick: Callable[[str, int], None] = lambda name, total: None,
) -> dict[str, Any]:
    """Play every task with every policy, and leave plan.json and episodes.csv in `out`; the summary."""
    search, episodes = config.search, held_out_episodes(config.episodes, model.card, dataset)
    tasks = draw_tasks(dataset, episodes, model.config.cameras, config)
    planner_of = partial(_planner, model, search)
    policies: dict[str, PolicyOf] = {
        "planner": planner_of,
        "random plans": lambda task: RandomPlans(planner_of(task)),
        "hold": lambda task: HoldPolicy(),
        "recorded": lambda task: Replayed(task, config.budget),
    }
    env = PushTEnv(config.scene, [key.removeprefix(IMAGES) for key in model.config.cameras])
    outcomes: dict[str, list[Outcome]] = {name: [] for name in policies}
    try:
        planner_of(tasks[0]).interface.require(env.interface, "the planner", "the environment")
        for name, policy_of in policies.items():
            for task in tasks:
                generator = np.random.default_rng([config.policy_seed, task.number])
                outcomes[name].append(play(env, task, policy_of(task), config.budget, generator))
                tick(name, len(tasks))
    finally:
        env.close()
    summary = {
        "checkpoint": checkpoint,
        "dataset": str(dataset.root),
        "episodes": episodes,
        "seed": config.seed,
        "policy_seed": config.policy_seed,
        "ahead": config.ahead,
        "budget": config.budget,
        "plan": asdict(search),
        **summarize_planning(outcomes),
        "git_commit": git_commit(),
    }
    rows = [_row(name, *pair) for name, played in outcomes.items() for pair in zip(tasks, played, strict=True)]
    write_csv(out / "episodes.csv", COLUMNS, rows)
    write_json(out / "plan.json", summary)
    return summary


def _planner(model: WorldModel, search: PlanConfig, task: Task) -> Planner:
    return Planner(model, search, task.pictures)


def summarize_planning(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Counts, exact intervals and distances of each policy, and the planner against the others, start by start."""
    planned = [o.success for o in outcomes["planner"]]
    times = np.concatenate([o.plan_ms for o in outcomes["planner"]])
    return {
        "policies": {name: _summary(played) for name, played in outcomes.items()},
        "planner_minus": {
            name: asdict(compare_paired([o.success for o in played], planned))
            for name, played in outcomes.items()
            if name != "planner"
        },
        "plan_ms": {"n": len(times), "p50": float(np.median(times)), "p95": float(np.quantile(times, 0.95))},
        "success_means": "within 20 px = 15 mm (the norm over pusher and block) and 20 degrees at any time",
        "ci95_method": "exact (Clopper-Pearson); paired: Newcombe; means: bootstrap (BCa)",
    }


def _summary(played: Sequence[Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = success_rate([o.success for o in played])
    found["block"] = success_rate([o.block_success for o in played])
    for name, values in {
        "pusher_mm": [1000 * o.pusher_distance for o in played],
        "block_mm": [1000 * o.block_distance for o in played],
        "angle_degrees": [float(np.degrees(o.angle_distance)) for o in played],
    }.items():
        found[name] = {
            "median": float(np.median(values)),
            "mean": float(np.mean(values)),
            "ci95": mean_interval(values),
        }
    return found


COLUMNS = ["policy", "start", "episode", "frame", "success", "block_success", "pusher_mm", "block_mm", "angle_degrees"]


def _row(name: str, task: Task, found: Outcome) -> dict[str, Any]:
    return {
        "policy": name,
        "start": task.number,
        "episode": task.episode,
        "frame": task.frame,
        "success": int(found.success),
        "block_success": int(found.block_success),
        "pusher_mm": 1000 * found.pusher_distance,
        "block_mm": 1000 * found.block_distance,
        "angle_degrees": float(np.degrees(found.angle_distance)),
    }


def planning_table(summary: Mapping[str, Any]) -> Table:
    """One row a policy; distances are medians at the end of the budget."""
    policies, times = summary["policies"], summary["plan_ms"]
    n = policies["planner"]["n"]
    table = Table(title=f"{n} goal pictures {summary['ahead']} steps ahead, budget {summary['budget']} steps")
    table.title_justify = "left"
    for column in ("", "reached  [95 %]", "block alone  [95 %]", "mm: pusher", "block", "degrees"):
        table.add_column(column)
    for name, found in policies.items():
        distance = [f"{found[key]['median']:.0f}" for key in ("pusher_mm", "block_mm", "angle_degrees")]
        table.add_row(name, _rate(found), _rate(found["block"]), *distance)
    lines = [
        f"planner - {name}: {100 * found['difference']:+.1f} % {interval(found['ci95'], 100, 1)} %"
        for name, found in summary["planner_minus"].items()
    ]
    table.caption = "\n".join([*lines, f"a plan: p50 {times['p50']:.0f} ms, p95 {times['p95']:.0f} ms"])
    table.caption_justify = "left"
    return table


def _rate(found: Mapping[str, Any]) -> str:
    return f"{found['n_success']} = {percent(found['success_rate'])} {interval(found['success_ci95'], 100, 0)}"
