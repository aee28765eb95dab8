"""What a study found: a table and a CSV of its runs, figures, and the data efficiency with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from rich.table import Table

from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.statistics import success_interval
from vla_policy.interfaces import InputError
from vla_policy.lab.fits import PowerLaw, Sample, fit_power_law, has_spread, percentile_interval, resamples
from vla_policy.lab.objectives import compare_objectives, draw_frontiers
from vla_policy.lab.run import STUDY, read_results, trajectory
from vla_policy.lab.study import AXES, Cell, Efficiency, Figure, Study, read_study
from vla_policy.utils.files import write_csv, write_json, write_whole

Row = Mapping[str, Any]
SHOWN = ("val/loss", "val/action_error")
BEYOND = 4.0  # how many times the largest measured amount the dotted extrapolation goes


def report(out: Path) -> tuple[Study, dict[str, Any], list[Path]]:
    """The study, what was found, and the files that say so: results.csv, report.json, a picture a figure.

    A number that is null in report.json was not finite: the end of an interval, or data that no amount of the standard
    recipe's is worth.
    """
    if not (out / STUDY).is_file():
        raise InputError(f"{out}: expected a folder that `vla-lab run` has made, found no {STUDY}")
    study, rows = read_study(out / STUDY), read_results(out)
    done = [row for row in rows if "failed" not in row]
    failed = {Cell(row["levels"], row["seed"], []).name: row["failed"] for row in rows if "failed" in row}
    if not done:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items()) or "none"
        raise InputError(f"{out}: expected a finished run, found {reasons}")
    _require_results(study, done, out)
    found: dict[str, Any] = {
        "title": study.title,
        "runs": f"{len(rows)} of {len(study.cells())}",
        "failed": failed,
        "core_hours": sum(row["core_hours"] for row in rows),
        "groups": groups(done),
    }
    pictures = {f"figure_{number}.png": draw(figure, study, done, out) for number, figure in enumerate(study.figures)}
    if study.efficiency is not None:
        found["data_efficiency"] = efficiencies(study.efficiency, done)
    if study.objectives is not None:
        found["objectives"] = compare_objectives(study.objectives, done, out)
        pictures["objectives.png"] = draw_frontiers(study.objectives, found["objectives"]["frontiers"])
    paths = [out / "results.csv", out / "report.json", *(out / name for name in pictures)]
    flat = [
        {**row["levels"], **{k: v for k, v in row.items() if k not in ("levels", "overrides", "given")}} for row in rows
    ]
    write_csv(paths[0], list(dict.fromkeys(key for row in flat for key in row)), flat)
    write_json(paths[1], found)
    for name, canvas in pictures.items():
        write_whole(out / name, partial(canvas.savefig, format="png", dpi=150))
    return study, found, paths


def _require_results(study: Study, rows: Sequence[Row], out: Path) -> None:
    """`InputError` naming the first key of the study that asks for a result that no run has."""
    wanted = {f"figures.{k}.y": figure.y for k, figure in enumerate(study.figures) if figure.x not in AXES}
    if study.efficiency is not None:
        wanted["efficiency.y"] = study.efficiency.y
    known = sorted({key for row in rows for key, value in row.items() if key != "seed" and _is_number(value)})
    for where, name in wanted.items():
        if not any(name in row for row in rows):
            raise InputError(f"{out / STUDY}: {where}: expected one of {known}, found {name!r}")


def groups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a combination of levels: means over the training seeds with their range, and the success of all
    rollouts together with its exact interval, which does not cover the spread over trainings.

    Results that were not finite, which are null, are left out.
    """
    found = []
    for levels in _distinct(rows):
        same = [row for row in rows if row["levels"] == levels]
        entry: dict[str, Any] = {"levels": levels, "seeds": [row["seed"] for row in same]}
        for key in dict.fromkeys(key for row in same for key in row if key != "seed"):
            values = [float(row[key]) for row in same if _is_number(row.get(key))]
            if values:
                entry[key] = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        if "n_success" in same[0]:
            n, successes = (sum(row[key] for row in same) for key in ("n_episodes", "n_success"))
            entry["success"] = {"n_success": successes, "n_episodes": n, "ci95": success_interval(successes, n)}
        found.append(entry)
    return found


def efficiencies(wanted: Efficiency, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every other recipe and amount of data: how many times the data the standard recipe would need.

    The standard recipe is the one with the same levels of all further factors. Where its runs are too few for a power
    law `times` and `ci95` are None, and `unavailable` says why; with one training seed there is no interval.
    """
    generator = np.random.default_rng(0)
    found = []
    for others in _distinct([{"levels": _others(wanted, row["levels"])} for row in rows]):
        standard = _points(rows, wanted, {wanted.factor: wanted.standard, **others})
        law, laws, unavailable = None, [], None
        try:
            law = fit_power_law(standard)
            laws = [fit_power_law(drawn) for drawn in resamples(standard, generator)] if has_spread(standard) else []
        except InputError as error:
            unavailable = f"{wanted.standard}: {error}"
        for levels in _distinct(rows):
            points = _points(rows, wanted, levels)
            if _others(wanted, levels) != others or levels[wanted.factor] == wanted.standard or not points:
                continue
            worth = {} if law is None else _worth(law, laws, standard, points, generator)
            found.append(
                {
                    "recipe": levels[wanted.factor],
                    "others": others,
                    "data": points[0][0],
                    "loss": _mean_loss(points),
                    "times": None,
                    "ci95": None,
                    "extrapolated": False,
                    "unavailable": unavailable,
                }
                | worth
            )
    return found


def _worth(
    law: PowerLaw, laws: Sequence[PowerLaw], standard: Sample, points: Sample, generator: np.random.Generator
) -> dict[str, Any]:
    """What the data of `points` is worth by the standard recipe's `law`, and by those of its resamples."""
    amount, equivalent = points[0][0], law.amount(_mean_loss(points))
    measured = [data for data, _ in standard]
    ci95 = None
    if laws and has_spread(points):
        drawn = resamples(points, generator)
        ci95 = percentile_interval([some.amount(_mean_loss(d)) / amount for some, d in zip(laws, drawn, strict=True)])
    extrapolated = not min(measured) <= equivalent <= max(measured)
    return {"times": equivalent / amount, "ci95": ci95, "extrapolated": extrapolated}


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
        else:
            points = [
                (float(row["levels"][figure.x]), float(row[figure.y]))
                for row in chosen
                if _is_number(row.get(figure.y))
            ]
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
    if not points:
        return
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
    """What each recipe's data is worth, and below why it is not known."""
    reasons = dict.fromkeys(entry["unavailable"] for entry in found if entry["unavailable"])
    title = f"worth in data of {wanted.factor} {wanted.standard}, by {wanted.y}"
    table = Table(title=title, title_justify="left", caption="\n".join(reasons) or None, caption_justify="left")
    others = list(found[0]["others"]) if found else []
    for column in (wanted.factor, *others, wanted.data, wanted.y, "times the data", "95 %"):
        table.add_column(column, justify="right")
    for entry in found:
        beyond = " (extrapolated)" if entry["extrapolated"] else ""
        times = "-" if entry["times"] is None else f"{entry['times']:.2f}{beyond}"
        ends = "-" if entry["ci95"] is None else "[{:.3f}, {:.3f}]".format(*entry["ci95"])  # an end may be infinite
        table.add_row(
            entry["recipe"], *entry["others"].values(), f"{entry['data']:g}", f"{entry['loss']:.4g}", times, ends
        )
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
        if _is_number(row.get(wanted.y)) and levels.items() <= row["levels"].items()
    ]


def _others(wanted: Efficiency, levels: Mapping[str, str]) -> dict[str, str]:
    return {factor: level for factor, level in levels.items() if factor not in (wanted.factor, wanted.data)}


def _mean_loss(points: Sample) -> float:
    return float(np.mean([loss for _, loss in points]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _distinct(rows: Sequence[Row]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for row in rows:
        if row["levels"] not in found:
            found.append(row["levels"])
    return found
