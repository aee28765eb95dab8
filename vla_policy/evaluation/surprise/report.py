"""Tables of the study of surprise: detections of events, and alarms in undisturbed episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from rich.table import Table

from vla_policy.evaluation.formats import interval
from vla_policy.world_model.monitors import DETECTOR

matplotlib.use("Agg")


def surprise_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Detections and AUROC; nominal alarms and failure prediction."""
    return [_events(summary), _undisturbed(summary)]


def _events(summary: Mapping[str, Any]) -> Table:
    detectors = list(next(iter(summary["events"].values())))
    table = Table(
        title=f"episodes detected within {summary['window']} control steps, and AUROC; of {DETECTOR}: delay in steps",
        title_justify="left",
    )
    for column in ("event", "n", *detectors, "p50 / p95", "<= 2"):
        table.add_column(column.replace("_", " "), justify="left" if column == "event" else "right")
    for event, found in summary["events"].items():
        kind, main, size = event.partition("@")[0], found[DETECTOR], summary["magnitudes"][event]
        delays = (main["delay_steps_p50"], main["delay_steps_p95"])
        table.add_row(
            kind.replace("_", " ") + ("" if size is None else f" {size:g}"),
            str(main["n"]),
            *(_detection(found[name]) for name in detectors),
            "-" if None in delays else "{:g} / {:.0f}".format(*delays),
            str(main["within_2_steps"]),
        )
    widths = [
        high - low
        for found in summary["events"].values()
        for low, high in (found[name]["auroc_ci95"] for name in detectors)
        if low is not None
    ]
    if widths:
        table.caption = f"95 % intervals are in surprise.json; those of the AUROCs are at most {max(widths):.2f} wide"
    return table


def _undisturbed(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"undisturbed episodes, alpha {summary['alpha']:g}", title_justify="left")
    table.add_column("detector")
    alarms = ("successes\nwith an alarm", "exact 95 %\ninterval, %", "predicted,\n95 %")
    for column in (*alarms, "failures:\nbalanced acc.", "time-\nweighted"):
        table.add_column(column, justify="right")
    for name, quiet in summary["nominal"].items():
        failing = summary["failure_prediction"][name]
        accuracies = (failing.get(key) for key in ("balanced_accuracy", "time_weighted_accuracy"))
        table.add_row(
            name.replace("_", " "),
            f"{quiet['false_alarms']} / {quiet['n']}",
            interval(quiet["ci95"], 100, 1),
            "{} to {}".format(*quiet["expected_count_ci95"]),
            *("-" if value is None else f"{value:.2f}" for value in accuracies),
        )
    return table


def _detection(found: Mapping[str, Any]) -> str:
    if found["auroc"] is None or found["tpr"] is None:
        return "-"
    return f"{100 * found['tpr']:.0f} % {found['auroc']:.2f}"
