"""The swap test: does another instruction lead to another goal from the same start?

The goals of a start are drawn from an independent random stream; the block's colour and the sentence's template depend
on the seed, so that two episodes of a start differ only in the words for the goal. An episode ends when the block
reaches a goal, commanded or not, or at the step limit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sim import PushTConfig
from vla_policy.evaluation.formats import interval, percent, success_rate
from vla_policy.evaluation.language.swap_env import COVERAGE, STEPS, swap_env
from vla_policy.evaluation.options import RolloutOptions, SceneOptions
from vla_policy.evaluation.success.report import COLUMNS, episode_row
from vla_policy.interfaces import IMAGES, InputError, Policy
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult, Start
from vla_policy.rollouts.rollout import rollout
from vla_policy.rollouts.workers import PolicyFactory
from vla_policy.utils.files import write_csv, write_json
from vla_policy.utils.provenance import git_commit

OUTCOMES = ("commanded", "other", "none")


@dataclass
class SwapConfig(RolloutOptions, SceneOptions):
    """Episodes from the same starts under different instructions."""

    n_starts: int = 200  # each run once with every instruction
    instructions: int = 2  # for each start, naming different goals; all goals are commanded equally often
    baseline: str | None = None  # hold | expert: in place of a checkpoint
    out: str = "outputs/swap/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

    def __post_init__(self) -> None:
        for key, least in {"n_starts": 1, "instructions": 2, "seed": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")

    @property
    def pusht(self) -> PushTConfig:
        """The scene; `InputError` unless every instruction of a start can name a goal of its own."""
        scene = super().pusht
        most = len(scene.goals)
        if most < self.instructions:
            raise InputError(f"instructions: expected at most {most}, one for each goal, found {self.instructions}")
        if scene.instruction is not None:
            raise InputError(f"scene.instruction: expected null, since the test swaps it, found {scene.instruction!r}")
        return scene


def swap_starts(goals: Sequence[str], config: SwapConfig) -> list[Start]:
    """Every start with each of its goals; each goal is commanded equally often in every position.

    Exactly, if `n_starts` is a multiple of the number of goals, else up to one.
    """
    generator = np.random.default_rng([config.seed, config.n_starts])  # no seed of a start, which is one number
    starts: list[Start] = []
    for first in range(0, config.n_starts, len(goals)):
        order = generator.permutation(len(goals))
        for i in range(min(len(goals), config.n_starts - first)):
            commanded = np.roll(order, -i)[: config.instructions]
            starts += [Start(config.seed + first + i, goals[goal]) for goal in commanded]
    return starts


def swap_test(
    policy: Policy,
    config: SwapConfig,
    out: Path,
    checkpoint: str,
    policy_factory: PolicyFactory | None = None,
    callbacks: ProgressCallbacks = ProgressCallbacks(),  # noqa: B008, immutable
) -> dict[str, Any]:
    """Run the test, write summary.json and episodes.csv to `out`; the summary."""
    scene = config.pusht
    cameras = [key.removeprefix(IMAGES) for key in policy.interface.cameras]
    results = rollout(
        policy,
        functools.partial(swap_env, scene, cameras),
        swap_starts(list(scene.goals), config),
        num_envs=config.num_envs,
        num_workers=config.num_workers,
        seed=config.policy_seed,
        policy_factory=policy_factory,
        callbacks=callbacks,
    )
    summary = {
        "checkpoint": checkpoint,
        "seed": config.seed,
        "policy_seed": config.policy_seed,
        "paraphrases": scene.paraphrases,
        "git_commit": git_commit(),
        **summarize_swap(results, list(scene.goals)),
    }
    rows = [episode_row(r) | {"reached": r.reached, "outcome": outcome(r)} for r in results]
    write_csv(out / "episodes.csv", [*COLUMNS, "reached", "outcome"], rows)
    write_json(out / "summary.json", summary)
    return summary


def outcome(result: EpisodeResult) -> str:
    """One of `OUTCOMES`."""
    if not result.reached:
        return "none"
    return "commanded" if result.reached == result.goal else "other"


def summarize_swap(results: Sequence[EpisodeResult], goals: Sequence[str]) -> dict[str, Any]:
    """Counts of reached goals with exact intervals: over all episodes, by commanded goal, and paired by start.

    The intervals over episodes assume that these are independent; the paired ones have one entry per start.
    """
    by_start: dict[int, list[EpisodeResult]] = {}
    for result in results:
        by_start.setdefault(result.seed, []).append(result)
    reached = [[r.reached for r in episodes] for episodes in by_start.values()]
    followed = [all(outcome(r) == "commanded" for r in episodes) for episodes in by_start.values()]
    return {
        "n_episodes": len(results),
        "n_starts": len(by_start),
        "outcomes": {kind: success_rate([outcome(r) == kind for r in results]) for kind in OUTCOMES},
        "confusion": {
            goal: {kind or "none": sum(r.goal == goal and r.reached == kind for r in results) for kind in [*goals, ""]}
            for goal in goals
        },
        "paired": {
            "all instructions followed": success_rate(followed),
            "one goal reached whatever was said": success_rate([len(set(r)) == 1 and r[0] != "" for r in reached]),
            "nothing reached": success_rate([not any(r) for r in reached]),
        },
        "reached_means": f"the first goal with coverage >= {COVERAGE} for {STEPS} steps in a row",
        "ci95_method": "exact (Clopper-Pearson)",
    }


def swap_tables(summary: dict[str, Any]) -> list[Table]:
    """Tables of reached goals: overall, paired by start, and by commanded goal."""
    n = f"{summary['n_episodes']} episodes from {summary['n_starts']} starts"
    rates = Table("goal reached", "", "[95 %]", title=f"the same start, another instruction: {n}", title_justify="left")
    for name, found in (summary["outcomes"] | summary["paired"]).items():
        count = f"{found['n_success']} / {found['n']} = {percent(found['success_rate'])}"
        rates.add_row(name, count, interval(found["success_ci95"], 100, 1) + " %", end_section=name == OUTCOMES[-1])
    columns = [*summary["confusion"], "none"]
    confusion = Table("commanded", *columns, title="goal reached, by the commanded one", title_justify="left")
    for goal, counts in summary["confusion"].items():
        confusion.add_row(goal, *(str(counts[name]) for name in columns))
    return [rates, confusion]
