"""What a study found: a table and a CSV of its runs, figures, and the data efficiency with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from rich.table import Table

from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.statistics import success_interval
from vla_policy.interfaces import InputError
from vla_policy.lab.fits import PowerLaw, bootstrap, data_efficiency, fit_power_law
from vla_policy.lab.run import RUNS, STUDY, read_metrics, read_results
from vla_policy.lab.study import AXES, Cell, Efficiency, Figure, Study, read_study
from vla_policy.utils.files import write_csv, write_json

Row = Mapping[str, Any]
SHOWN = ("val/loss", "val/action_error")
BEYOND = 4.0  # how many times the largest measured amount the dotted extrapolation goes


def report(out: Path) -> tuple[Study, dict[str, Any], list[Path]]:
    """The study, what was found, and the files that say so: results.csv, report.json, a picture a figure."""
    if not (out / STUDY).is_file():
        raise InputError(f"{out}: expected a folder that `vla-lab run` has made, found no {STUDY}")
    study, rows = read_study(out / STUDY), read_results(out)
    done = [row for row in rows if "failed" not in row]
    if not done:
        raise InputError(f"{out}: expected a finished run, found none")
    found: dict[str, Any] = {
        "title": study.title,
        "runs": f"{len(rows)} of {len(study.cells())}",
        "failed": [Cell(row["levels"], row["seed"], []).name for row in rows if "failed" in row],
        "core_hours": sum(row["core_hours"] for row in rows),
        "groups": groups(done),
    }
    if study.efficiency is not None:
        found["data_efficiency"] = efficiencies(study.efficiency, done)
    paths = [out / "results.csv", out / "report.json"]
    flat = [{**row["levels"], **{k: v for k, v in row.items() if k not in ("levels", "overrides")}} for row in rows]
    write_csv(paths[0], list(dict.fromkeys(key for row in flat for key in row)), flat)
    write_json(paths[1], found)
    for number, figure in enumerate(study.figures):
        paths.append(out / f"figure_{number}.png")
        draw(figure, study, done, out).savefig(paths[-1], dpi=150)
    return study, found, paths


def groups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a combination of levels: means over the training seeds with their range, and the success of all
    rollouts together with its exact interval, which does not cover the spread over trainings.
    """
    found = []
    for levels in _distinct(rows):
        same = [row for row in rows if row["levels"] == levels]
        numbers = [key for key, value in same[0].items() if isinstance(value, int | float) and key != "seed"]
        entry: dict[str, Any] = {"levels": levels, "seeds": [row["seed"] for row in same]}
        for key in numbers:
            values = [float(row[key]) for row in same if key in row]
            entry[key] = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        if "n_success" in same[0]:
            n, successes = (sum(row[key] for row in same) for key in ("n_episodes", "n_success"))
            entry["success"] = {"n_success": successes, "n_episodes": n, "ci95": success_interval(successes, n)}
        found.append(entry)
    return found


def efficiencies(wanted: Efficiency, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every other recipe and amount of data: how many times the data the standard recipe would need."""
    standard = _points(rows, wanted, {wanted.factor: wanted.standard})
    found = []
    for levels in _distinct(rows):
        recipe, amount = levels[wanted.factor], float(levels[wanted.data])
        if recipe == wanted.standard:
            continue
        points = [point for point in _points(rows, wanted, {wanted.factor: recipe}) if point[0] == amount]

        def ratio(drawn: list[list[tuple[float, float]]], amount: float = amount) -> float:
            return data_efficiency(drawn[0], amount, float(np.mean([loss for _, loss in drawn[1]])))

        found.append(
            {
                "recipe": recipe,
                "data": amount,
                "loss": float(np.mean([loss for _, loss in points])),
                "times": ratio([list(standard), points]),
                "ci95": bootstrap([standard, points], ratio),
                "extrapolated": fit_power_law(standard).amount(points[0][1]) > max(a for a, _ in standard),
            }
        )
    return found


def draw(figure: Figure, study: Study, rows: Sequence[Row], out: Path) -> Canvas:
    """Points are runs, lines join the means of measured points; a fit is solid between them and dotted beyond."""
    canvas = Canvas(figsize=(6.5, 4.2), layout="constrained")
    axes = canvas.subplots()
    levels = [None] if figure.line is None else list(study.factors[figure.line])
    for number, level in enumerate(levels):
        chosen = [row for row in rows if figure.line is None or row["levels"][figure.line] == level]
        colour = f"C{number}"
        if figure.x in AXES:
            _along_runs(axes, figure, chosen, out, colour, level)
        elif chosen:
            points = [(float(row["levels"][figure.x]), float(row[figure.y])) for row in chosen if figure.y in row]
            _against_factor(axes, figure, points, colour, level)
    if figure.log:
        axes.set_xscale("log")
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.set_title(f"{study.title} (training seeds: {len({row['seed'] for row in rows})})", fontsize="medium")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return canvas


def _against_factor(
    axes: Axes, figure: Figure, points: Sequence[tuple[float, float]], colour: str, label: str | None
) -> None:
    amounts = sorted({amount for amount, _ in points})
    axes.plot(*np.array(points).T, "o", color=colour, markersize=4, alpha=0.7)
    if figure.fit and len(amounts) >= 3:
        law: PowerLaw = fit_power_law(points)
        inside, beyond = np.geomspace(amounts[0], amounts[-1]), np.geomspace(amounts[-1], BEYOND * amounts[-1])
        axes.plot(
            inside, law(inside), color=colour, label=f"{label or 'fit'}: {law.a:.3g} / D^{law.b:.2f} + {law.c:.3g}"
        )
        axes.plot(beyond, law(beyond), ":", color=colour, label="extrapolated" if colour == "C0" else None)
        return
    means = [np.mean([y for amount, y in points if amount == a]) for a in amounts]
    axes.plot(amounts, means, color=colour, linewidth=1, label=label)


def _along_runs(axes: Axes, figure: Figure, rows: Sequence[Row], out: Path, colour: str, label: str | None) -> None:
    for number, row in enumerate(rows):
        curve = trajectory(row, figure.x, figure.y, out)
        axes.plot(*np.array(curve).T, color=colour, linewidth=1, alpha=0.7, label=label if number == 0 else None)


def trajectory(row: Row, x: str, y: str, out: Path) -> list[tuple[float, float]]:
    """(epochs or FLOPs, value) of each validation of a run."""
    metrics = read_metrics(out / RUNS / Cell(row["levels"], row["seed"], []).name)
    if y not in metrics:
        raise InputError(f"figures: y: expected one of {sorted(metrics)}, found {y!r}")
    scale = row["batch_size"] / row["windows"] if x == "epochs" else row["flops_per_step"]
    return [(step * scale, value) for step, value in metrics[y]]


def results_table(study: Study, found: Mapping[str, Any]) -> Table:
    """One line a combination of levels."""
    table = Table(
        title=f"{study.title}: {found['runs']} runs, {found['core_hours']:.2f} of {study.core_hours:g} core hours",
        title_justify="left",
    )
    for factor in study.factors:
        table.add_column(factor)
    for column in ("seeds", *SHOWN, "success", "exact 95 %"):
        table.add_column(column, justify="right")
    for entry in found["groups"]:
        success = entry.get("success")
        rate = "" if success is None else percent(success["n_success"] / success["n_episodes"])
        table.add_row(
            *entry["levels"].values(),
            str(len(entry["seeds"])),
            *(_ranged(entry.get(key)) for key in SHOWN),
            rate if success is None else f"{success['n_success']} / {success['n_episodes']} = {rate}",
            "" if success is None else interval(success["ci95"], 100, 1),
        )
    return table


def efficiency_table(found: Sequence[Mapping[str, Any]], wanted: Efficiency) -> Table:
    """What each recipe's data is worth."""
    table = Table(title=f"worth in data of {wanted.factor} {wanted.standard}, by {wanted.y}", title_justify="left")
    for column in (wanted.factor, wanted.data, wanted.y, "times the data", "95 %"):
        table.add_column(column, justify="right")
    for entry in found:
        beyond = " (extrapolated)" if entry["extrapolated"] else ""
        cells = f"{entry['data']:g}", f"{entry['loss']:.4g}", f"{entry['times']:.2f}{beyond}", interval(entry["ci95"])
        table.add_row(entry["recipe"], *cells)
    return table


def _ranged(values: Mapping[str, float] | None) -> str:
    if values is None:
        return ""
    spread = "" if values["low"] == values["high"] else f"  {interval((values['low'], values['high']))}"
    return f"{values['mean']:.4g}{spread}"


def _points(rows: Sequence[Row], wanted: Efficiency, levels: Mapping[str, str]) -> list[tuple[float, float]]:
    return [
        (float(row["levels"][wanted.data]), float(row[wanted.y]))
        for row in rows
        if wanted.y in row and levels.items() <= row["levels"].items()
    ]


def _distinct(rows: Sequence[Row]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for row in rows:
        if row["levels"] not in found:
            found.append(row["levels"])
    return found
