"""What repeated data is worth to objectives: frontiers of loss against computing, where one overtakes another, and
where runs overfit (arXiv 2507.15857).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from rich.table import Table

from vla_policy.evaluation.formats import interval
from vla_policy.interfaces import InputError
from vla_policy.lab.fits import Run, Sample, critical_cost, fit_repeated_data, frontier, percentile_interval
from vla_policy.lab.run import trajectory
from vla_policy.lab.study import Cell, Objectives

Row = Mapping[str, Any]
RESAMPLES = 200  # of runs, each with a fit


def compare_objectives(wanted: Objectives, rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Where each run's loss is lowest, the frontier of each objective at each amount of unique data (in windows), the
    FLOPs from which on one comparable objective stays below another, and R_D* of each objective.
    """
    runs = [found for row in rows if (found := _lowest(wanted, row, out))]
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {}  # (FLOPs, loss) of all validations
    for row in rows:
        measured.setdefault((row["levels"][wanted.factor], row["windows"]), []).extend(
            _curve(wanted, row, "flops", out)
        )
    return {
        "runs": runs,
        "frontiers": [
            {"level": level, "windows": windows, "flops_and_loss": frontier(points)}
            for (level, windows), points in sorted(measured.items())
        ],
        "overtaken": [
            {"level": first, "by": second, "windows": windows, "flops": flops}
            for windows in sorted({windows for _, windows in measured})
            for first, second in permutations(wanted.comparable, 2)
            if (flops := critical_cost(measured.get((first, windows), []), measured.get((second, windows), [])))
        ],
        "repeated_data": [
            {"level": level, **_half_life([_as_run(run) for run in runs if run["level"] == level and run["loss"] > 0])}
            for level in sorted({level for level, _ in measured})
        ],
    }


def _curve(wanted: Objectives, row: Row, x: str, out: Path) -> Sample:
    return [point for point in trajectory(row, x, wanted.y, out) if math.isfinite(point[1])]


def _lowest(wanted: Objectives, row: Row, out: Path) -> dict[str, Any] | None:
    """The epoch of a run's lowest loss, from which on it overfits if the loss is higher at its end."""
    curve = _curve(wanted, row, "epochs", out)
    if not curve:
        return None
    epochs, loss = min(curve, key=lambda point: point[1])
    return {
        "run": Cell(row["levels"], row["seed"], []).name,
        "level": row["levels"][wanted.factor],
        "parameters": row["parameters"],
        "windows": row["windows"],
        "epochs": epochs,
        "loss": loss,
        "overfits": curve[-1][1] > loss,
    }


def _as_run(found: Mapping[str, Any]) -> Run:
    return found["parameters"], found["windows"], max(found["epochs"], 1.0), found["loss"]


def _half_life(runs: Sequence[Run]) -> dict[str, Any]:
    """R_D* of the runs' lowest losses with its bootstrap interval over runs, None for fewer runs than the fit needs."""
    try:
        r = fit_repeated_data(runs).r
    except InputError as error:
        return {"r": None, "ci95": None, "unavailable": str(error)}
    generator = np.random.default_rng(0)
    drawn = [[runs[k] for k in generator.integers(len(runs), size=len(runs))] for _ in range(RESAMPLES)]
    return {"r": r, "ci95": percentile_interval([fit_repeated_data(some, [r]).r for some in drawn])}


def draw_frontiers(wanted: Objectives, frontiers: Sequence[Mapping[str, Any]]) -> Canvas:
    """A panel an amount of unique data, a line an objective."""
    amounts = sorted({entry["windows"] for entry in frontiers})
    colours = {level: f"C{k}" for k, level in enumerate(dict.fromkeys(entry["level"] for entry in frontiers))}
    canvas = Canvas(figsize=(max(6.5, 4.0 * len(amounts)), 4.2), layout="constrained")
    panels = canvas.subplots(1, len(amounts), sharey=True, squeeze=False)[0]
    for axes, windows in zip(panels, amounts, strict=True):
        for entry in frontiers:
            if entry["windows"] == windows and entry["flops_and_loss"]:
                flops, losses = zip(*entry["flops_and_loss"], strict=True)
                axes.plot(flops, losses, "o-", color=colours[entry["level"]], markersize=3, label=entry["level"])
        axes.set_xscale("log")
        axes.set_xlabel("training FLOPs")
        axes.set_title(f"{windows} windows", fontsize="medium")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"lowest {wanted.y}")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize="small")
    return canvas


def objectives_tables(found: Mapping[str, Any], wanted: Objectives) -> list[Table]:
    """The ends of the frontiers with what overtakes them, and what repeated data is worth."""
    ends = _table(
        f"lowest {wanted.y}", wanted.factor, "windows", wanted.y, "FLOPs", "runs that overfit", "overtaken by"
    )
    for entry in found["frontiers"]:
        at = entry["level"], entry["windows"]
        runs = [run for run in found["runs"] if (run["level"], run["windows"]) == at]
        later = [other for other in found["overtaken"] if (other["level"], other["windows"]) == at]
        flops, loss = entry["flops_and_loss"][-1] if entry["flops_and_loss"] else (math.nan, math.nan)
        overfitting = f"{sum(run['overfits'] for run in runs)} of {len(runs)}"
        overtaken = ", ".join(f"{other['by']} from {other['flops']:.3g}" for other in later)
        ends.add_row(entry["level"], str(entry["windows"]), f"{loss:.4g}", f"{flops:.3g}", overfitting, overtaken)
    worth = _table("repetitions after which data is worth little more", wanted.factor, "R_D*", "95 % over runs")
    for entry in found["repeated_data"]:
        if entry["r"] is None:
            worth.add_row(entry["level"], "-", entry["unavailable"])
        else:
            worth.add_row(entry["level"], f"{entry['r']:.3g}", interval(entry["ci95"], digits=1))
    return [ends, worth]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table
