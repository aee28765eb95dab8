"""The study of surprise in tables: events by detectors, and what happens without any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from rich.table import Table

from vla_policy.evaluation.report import interval, percent

matplotlib.use("Agg")

MAIN = "prediction error"
BEFORE = 15  # control steps shown before an event


def surprise_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Detections and AUROC; nominal alarms and failure prediction."""
    detectors = list(summary["nominal"])
    events = Table(
        title=f"Events, detected within {summary['window']} steps (AUROC); n episodes each; prediction error's delay",
        title_justify="left",
    )
    for column in ("event", "n", *detectors, "delay p50 / p95", "within 2"):
        events.add_column(column, justify="left" if column == "event" else "right")
    for kind, found in summary["events"].items():
        main = found[MAIN]
        size = summary["magnitudes"][kind]
        events.add_row(
            kind if size is None else f"{kind} {size:g}",
            str(main["n"]),
            *(_detection(found[name]) for name in detectors),
            "-" if main["delay_steps_p50"] is None else f"{main['delay_steps_p50']:g} / {main['delay_steps_p95']:g}",
            str(main["within_2_steps"]),
        )
    nominal = Table(title=f"Undisturbed episodes, alpha {summary['alpha']:g}", title_justify="left")
    for column in ("detector", "false alarms of successes", "95 %", "expected, 95 %", "failures: balanced", "weighted"):
        nominal.add_column(column, justify="left" if column == "detector" else "right")
    for name in detectors:
        quiet, failing = summary["nominal"][name], summary["failure_prediction"][name]
        low, high = quiet["expected_count_ci95"]
        nominal.add_row(
            name,
            f"{quiet['false_alarms']} / {quiet['n']} = {percent(quiet['false_alarms'] / quiet['n'])}",
            interval(quiet["ci95"], 100, 1),
            f"{low} to {high}",
            *(
                "-" if failing["balanced_accuracy"] is None else f"{failing[key]:.2f}"
                for key in ("balanced_accuracy", "time_weighted_accuracy")
            ),
        )
    return [events, nominal]


def _detection(found: Mapping[str, Any]) -> str:
    if found["auroc"] is None or found["tpr"] is None:
        return "-"
    return f"{100 * found['tpr']:.0f} % ({found['auroc']:.2f})"
