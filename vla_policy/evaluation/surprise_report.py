"""The study of surprise for people: a table of events by detectors, and surprise over time around each event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.table import Table

from vla_policy.evaluation.detection import Scored
from vla_policy.evaluation.report import interval, percent
from vla_policy.evaluation.surprise import Findings

matplotlib.use("Agg")
from matplotlib import pyplot as plt

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


def plot_surprise(found: Findings, path: Path, detector: str = MAIN) -> None:
    """Mean and central 80 % of the standardised score around each event, beside the same moments undisturbed."""
    kinds = list(found.disturbed)
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.3 * rows), squeeze=False, sharex=True)
    threshold = found.summary["nominal"][detector]["threshold"]
    nominal = {scored.trace.seed: scored for scored in found.nominal[detector]}
    seconds = np.arange(-BEFORE, found.summary["window"])
    for axis, kind in zip(axes.flat, kinds, strict=False):
        disturbed = [s for s in found.disturbed[kind][detector] if s.trace.event_step is not None]
        begins = [s.trace.event_step + 1 for s in disturbed if s.trace.event_step is not None]
        beside = [(nominal[s.trace.seed], b) for s, b in zip(disturbed, begins, strict=True) if s.trace.seed in nominal]
        _band(axis, seconds, _aligned([s for s, _ in beside], [b for _, b in beside], seconds), "0.5", "undisturbed")
        _band(axis, seconds, _aligned(disturbed, begins, seconds), "tab:red", "disturbed")
        axis.axhline(threshold, color="k", linewidth=0.8, linestyle=":", label="threshold")
        axis.axvline(0, color="k", linewidth=0.5)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_title(kind.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(kinds) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("control steps since the event", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{detector}\n(standardised)", fontsize=8)
    axes.flat[0].legend(fontsize=6, loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _aligned(episodes: Sequence[Scored], begins: Sequence[int], steps: np.ndarray) -> np.ndarray:
    """Scores (episodes, steps) around each beginning; NaN outside an episode and where there is no score."""
    rows = np.full((len(episodes), len(steps)), np.nan)
    for row, scored, begin in zip(rows, episodes, begins, strict=True):
        index = begin + steps
        inside = (index >= 0) & (index < len(scored.scores))
        row[inside] = scored.scores[index[inside]]
    rows[~np.isfinite(rows)] = np.nan
    return rows


def _band(axis: Any, steps: np.ndarray, rows: np.ndarray, colour: str, label: str) -> None:
    some = np.isfinite(rows).any(axis=0)
    if not some.any():
        return
    low, high = np.nanpercentile(rows[:, some], [10, 90], axis=0)
    axis.plot(steps[some], np.nanmean(rows[:, some], axis=0), color=colour, linewidth=1.2, label=label)
    axis.fill_between(steps[some], low, high, color=colour, alpha=0.25, linewidth=0)
