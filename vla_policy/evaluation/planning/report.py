"""Results of planning towards goal images: success with exact intervals, distances, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.evaluation.formats import interval, success_rate
from vla_policy.evaluation.planning.tasks import Outcome, Task
from vla_policy.evaluation.statistics import compare_paired, mean_interval
from vla_policy.utils.files import write_csv, write_json
from vla_policy.utils.percentiles import percentiles

COLUMNS = ["policy", "start", "episode", "frame", "success", "block_success", "pusher_mm", "block_mm", "angle_degrees"]


def write_planning(
    out: Path, tasks: Sequence[Task], outcomes: Mapping[str, Sequence[Outcome]], summary: Mapping[str, Any]
) -> None:
    """Write plan.json and episodes.csv, a row per policy and start, to `out`."""
    rows = [_row(name, *pair) for name, results in outcomes.items() for pair in zip(tasks, results, strict=True)]
    write_csv(out / "episodes.csv", COLUMNS, rows)
    write_json(out / "plan.json", summary)


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


def summarize_planning(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Success and distances of each policy, and the planner's paired differences from the others."""
    planned = [o.success for o in outcomes["planner"]]
    times = np.concatenate([o.plan_ms for o in outcomes["planner"]])
    return {
        "policies": {name: _summary(results) for name, results in outcomes.items()},
        "planner_minus": {
            name: asdict(compare_paired([o.success for o in results], planned))
            for name, results in outcomes.items()
            if name != "planner"
        },
        "plan_ms": percentiles(times),
        "success_means": "within 20 px = 15 mm (the norm over pusher and block) and 20 degrees at any time",
        "ci95_method": "exact (Clopper-Pearson); paired: Newcombe; means: bootstrap (BCa)",
    }


def _summary(results: Sequence[Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = success_rate([o.success for o in results])
    found["block"] = success_rate([o.block_success for o in results])
    for name, values in {
        "pusher_mm": [1000 * o.pusher_distance for o in results],
        "block_mm": [1000 * o.block_distance for o in results],
        "angle_degrees": [float(np.degrees(o.angle_distance)) for o in results],
    }.items():
        found[name] = {
            "median": float(np.median(values)),
            "mean": float(np.mean(values)),
            "mean_ci95": mean_interval(values),
        }
    return found


def planning_table(summary: Mapping[str, Any]) -> Table:
    """A row per policy; distances are medians at the end of the budget."""
    policies, times = summary["policies"], summary["plan_ms"]
    n = policies["planner"]["n"]
    table = Table(title=f"{n} goal images {summary['ahead']} steps ahead, budget {summary['budget']} steps")
    table.title_justify = "left"
    for column in ("", "reached  [95 %]", "block alone", "pusher mm", "block mm", "degrees"):
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
    return f"{found['n_success']} = {100 * found['success_rate']:.0f} % {interval(found['success_ci95'], 100, 0)}"
