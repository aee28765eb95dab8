"""Success against the number of demonstrations, from evaluations of policies trained on different numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.success.compare import require_same
from vla_policy.evaluation.success.report import read_summary
from vla_policy.interfaces import InputError
from vla_policy.utils.files import write_csv, write_json

COLUMNS = [
    "demonstrations",
    "training_seed",
    "gradient_steps",
    "n_episodes",
    "n_success",
    "success_rate",
    "ci95_low",
    "ci95_high",
    "mean_max_reward",
    "checkpoint",
    "folder",
]


def gather(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A row per evaluation folder, sorted by number of demonstrations, then training seed.

    `InputError` if an evaluation's checkpoint does not state its training data, or if the evaluations differ in their
    environment or seeds.
    """
    summaries = {folder: read_summary(folder) for folder in folders}
    rows = [_row(folder, summary) for folder, summary in summaries.items()]
    require_same(summaries, ["env", "seed", "n_episodes"], "demonstrations")
    return sorted(rows, key=lambda row: (row["demonstrations"], row["training_seed"]))


def _row(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    data, training = summary.get("data") or {}, summary.get("training") or {}
    if "demonstrations" not in data:
        raise InputError(f"{folder}/summary.json: expected data.demonstrations (a number), found {sorted(data)}")
    return {
        "demonstrations": int(data["demonstrations"]),
        "training_seed": training.get("seed", 0),
        "gradient_steps": training.get("steps"),
        **measured(folder, summary),
    }


def measured(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The results of the policy in a row."""
    low, high = summary["success_ci95"]
    return {
        "ci95_low": low,
        "ci95_high": high,
        "folder": str(folder),
        **{key: summary[key] for key in ("n_episodes", "n_success", "success_rate", "mean_max_reward", "checkpoint")},
    }


def write_demonstrations(out: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write demonstrations.csv, .json and .png to `out`; the paths."""
    paths = [out / f"demonstrations.{kind}" for kind in ("csv", "json", "png")]
    write_csv(paths[0], COLUMNS, rows)
    write_json(paths[1], {"runs": list(rows), "ci95_method": "exact (Clopper-Pearson), over rollouts of one training"})
    plot(rows).savefig(paths[2], dpi=150)
    return paths


def demonstrations_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Success against demonstrations", title_justify="left")
    for column in ("demonstrations", "training\nseed", "success", "exact 95 %\ninterval", "mean max\nreward"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["demonstrations"]),
            str(row["training_seed"]),
            f"{row['n_success']} / {row['n_episodes']} = {percent(row['success_rate'])}",
            interval((row["ci95_low"], row["ci95_high"]), 100, 1) + " %",
            f"{row['mean_max_reward']:.3f}",
        )
    return table


def plot(rows: Sequence[dict[str, Any]]) -> Figure:
    """A point with the rollouts' interval for every training run; the line connects the means over training seeds."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    numbers = sorted({row["demonstrations"] for row in rows})
    means = [np.mean([row["success_rate"] for row in rows if row["demonstrations"] == n]) for n in numbers]
    axes.plot(numbers, means, color="tab:blue", linewidth=1, label="mean over training seeds", zorder=1)
    for n in numbers:
        group = [row for row in rows if row["demonstrations"] == n]
        # offset, so that intervals of several training seeds do not overlap
        places = n * 2 ** (0.08 * (np.arange(len(group)) - (len(group) - 1) / 2))
        rates = np.array([row["success_rate"] for row in group])
        spans = np.array([[row["ci95_low"], row["ci95_high"]] for row in group])
        errors = [rates - spans[:, 0], spans[:, 1] - rates]
        axes.errorbar(places, rates, errors, fmt="o", color="tab:blue", markersize=4, capsize=3, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("demonstrations")
    axes.set_ylabel("success rate")
    axes.set_title(f"{rows[0]['n_episodes']} rollouts of each policy, exact 95 % intervals", fontsize="medium")
    axes.grid(alpha=0.3)
    if len(rows) > len(numbers):
        axes.legend(loc="lower right")
    return figure
