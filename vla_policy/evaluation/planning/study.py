"""Planning towards goal images in simulation, by the protocol of DINO-WM (arXiv 2411.04983) and LeWorldModel
(arXiv 2603.19312): start and goal are two frames of a recorded episode, and there is a budget of control steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sim import PushTEnv
from sim.overrides import replace
from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.options import ComputeOptions, SceneOptions
from vla_policy.evaluation.planning.report import summarize_planning, write_planning
from vla_policy.evaluation.planning.tasks import Outcome, RandomPlans, Replayed, Task, draw_tasks, run_task
from vla_policy.evaluation.success.open_loop import held_out_episodes
from vla_policy.interfaces import IMAGES, InputError, Policy
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.utils.provenance import git_commit
from vla_policy.world_model import WorldModel
from vla_policy.world_model.planning import PlanConfig, Planner

PolicyOf = Callable[[Task], Policy]


@dataclass
class PlanEvalConfig(ComputeOptions, SceneOptions):
    """Planning towards goal images in simulation, LeWorldModel's protocol."""

    episodes: list[int] | None = None
    """source of starts and goals; null: the held-out ones that the checkpoint states"""
    n_starts: int = 50  # pairs of start and goal
    seed: int = 100000  # draws starts and goals. Tune and debug on others, below 100000
    ahead: int = 25  # control steps from a start to its goal in the recording
    budget: int = 50  # control steps to reach it
    plan: dict[str, Any] = field(default_factory=lambda: asdict(PlanConfig()))  # the search for plans
    policy_seed: int = 0  # of the search's samples
    out: str = "outputs/plan/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

    def __post_init__(self) -> None:
        for key, least in {"n_starts": 1, "ahead": 1, "budget": 1, "seed": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")

    @property
    def search(self) -> PlanConfig:
        """The configuration of the search; `InputError` for unknown keys and invalid values."""
        return replace(PlanConfig(), self.plan, "plan")


def evaluate_planning(
    model: WorldModel,
    dataset: LeRobotDataset,
    config: PlanEvalConfig,
    out: Path,
    checkpoint: str,
    advance: Callable[[str, int], None] = lambda name, total: None,
) -> dict[str, Any]:
    """Run every task with every policy, write plan.json and episodes.csv to `out`; the summary."""
    search, episodes = config.search, held_out_episodes(config.episodes, model.card, dataset)
    cameras = model.config.cameras
    tasks = draw_tasks(dataset, episodes, cameras, config.n_starts, config.ahead, config.seed)
    planner_of = partial(_planner, model, search)
    policies: dict[str, PolicyOf] = {
        "planner": planner_of,
        "random plans": lambda task: RandomPlans(planner_of(task)),
        "hold": lambda task: HoldPolicy(),
        "recorded": lambda task: Replayed(task, config.budget),
    }
    env = PushTEnv(config.pusht, [key.removeprefix(IMAGES) for key in cameras])
    outcomes: dict[str, list[Outcome]] = {name: [] for name in policies}
    try:
        planner_of(tasks[0]).interface.require(env.interface, "the planner", "the environment")
        for name, policy_of in policies.items():
            for task in tasks:
                generator = np.random.default_rng([config.policy_seed, task.number])
                outcomes[name].append(run_task(env, task, policy_of(task), config.budget, generator))
                advance(name, len(tasks))
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
    write_planning(out, tasks, outcomes, summary)
    return summary


def _planner(model: WorldModel, search: PlanConfig, task: Task) -> Planner:
    return Planner(model, search, task.pictures)
