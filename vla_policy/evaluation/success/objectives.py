"""Comparison of training objectives, from evaluations of policies that differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.success.compare import compare, require_same, value_at
from vla_policy.evaluation.success.data_scaling import measured
from vla_policy.evaluation.success.report import milliseconds, read_summary
from vla_policy.interfaces import InputError

# Keys that must be equal, in addition to those about the data.
SAME = (
    *("env", "task", "paraphrases", "disturbance", "delay", "chunking", "seed", "n_episodes", "policy_seed"),
    "n_action_steps",
    *(f"training.{key}" for key in ("steps", "step", "batch_size", "seed", "initial_weights")),
    *("chunk_ms.device", "chunk_ms.threads"),
)


def gather_objectives(folders: Sequence[Path]) -> dict[str, Any]:
    """`runs`, one per evaluation folder in the given order, and the values that are the `same` in all.

    Each run except the first has its paired difference from the first. `InputError` if an evaluation does not state
    the objective, the data and the training of its checkpoint, or if two differ in a key of `SAME`, in the data or in
    their starts.
    """
    summaries = {folder: read_summary(folder) for folder in folders}
    for folder, summary in summaries.items():
        for key in ("objective", "parameters", "data", "training"):
            if not summary.get(key):
                raise InputError(
                    f"{folder}/summary.json: expected {key!r}, as vla-eval writes of a checkpoint, found none"
                )
    data = dict.fromkeys(f"data.{key}" for summary in summaries.values() for key in summary["data"])
    same = [*data, *SAME]
    require_same(summaries, same, "objectives")
    first = folders[0]
    return {
        "same": {key: value_at(summaries[first], key) for key in same},
        "runs": [_row(folder, summary, first) for folder, summary in summaries.items()],
        "ci95_method": "exact (Clopper-Pearson) for success, bootstrap (BCa) for the mean max reward",
        "minus_first_method": "Newcombe's square-and-add for paired proportions; exact McNemar test, two-sided",
    }


def _row(folder: Path, summary: Mapping[str, Any], first: Path) -> dict[str, Any]:
    paired = None
    if folder != first:
        found = compare(first, folder)
        paired = {key: found[key] for key in ("difference", "ci95", "p_value")}
    return {
        "objective": summary["objective"],
        "parameters": summary["parameters"],
        "chunk_ms": {key: summary["chunk_ms"][key] for key in ("p50", "p95")},
        "mean_max_reward_ci95": summary["mean_max_reward_ci95"],
        "minus_first": paired,
        **measured(folder, summary),
    }


def objectives_table(found: Mapping[str, Any]) -> Table:
    same, runs = found["same"], found["runs"]
    title = (
        f"{same['training.steps']} steps of batch {same['training.batch_size']} on {same['data.demonstrations']} "
        f"demonstrations, then {same['n_episodes']} starts in {same['env']}; 95 % intervals, exact McNemar test"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("objective")
    against = f"minus {runs[0]['objective']['name']}"
    for column in ("success", "max reward", "ms a chunk, p50 / p95", "parameters", against):
        table.add_column(column, justify="right")
    for run in runs:
        objective = run["objective"]
        table.add_row(
            f"{objective['name']}\n{objective['sampler']}, {objective['passes']} passes",
            f"{run['n_success']} / {run['n_episodes']} = {percent(run['success_rate'])}\n"
            + interval((run["ci95_low"], run["ci95_high"]), 100, 1),
            f"{run['mean_max_reward']:.3f}\n{interval(run['mean_max_reward_ci95'])}",
            milliseconds(run),
            f"{run['parameters'] / 1e6:.2f} M",
            _difference(run["minus_first"]),
        )
    return table


def _difference(paired: Mapping[str, Any] | None) -> str:
    if paired is None:
        return ""
    return f"{100 * paired['difference']:+.1f} %\n{interval(paired['ci95'], 100, 1)}\np = {paired['p_value']:.2g}"
