"""Plots of surprise over time: around the events of many episodes, and during single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sim.disturbances import KINDS
from vla_policy.evaluation.surprise.detection import Scored
from vla_policy.rollouts.results import EpisodeResult

BEFORE = 15  # control steps shown before an event


def plot_watched(episodes: Mapping[str, EpisodeResult], fps: float, path: Path) -> None:
    """A monitor's score during each of these episodes, its threshold, the event and the halt."""
    figure = Figure(figsize=(8, 0.6 + 2.2 * len(episodes)))
    axes = figure.subplots(len(episodes), 1, squeeze=False)[:, 0]
    for axis, (name, episode) in zip(axes, episodes.items(), strict=True):
        scores, threshold = episode.watched["surprise"], float(episode.watched["threshold"])
        seconds = np.arange(len(scores)) / fps
        axis.plot(seconds, np.where(np.isfinite(scores), scores, np.nan), color="tab:red", label="surprise")
        axis.axhline(threshold, color="k", linestyle=":", linewidth=0.8, label="threshold")
        if episode.aftermath is not None:
            axis.axvline((episode.aftermath.event_step + 1) / fps, color="tab:blue", label="event is visible")
        above = np.flatnonzero(scores > threshold)
        if len(above):
            axis.axvspan(above[0] / fps, seconds[-1], color="0.85", label="holding")
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_title(f"{name.replace('_', ' ')}: seed {episode.seed}", fontsize=9)
        axis.legend(fontsize=7, loc="upper right")
        axis.set_ylabel("standardised")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def plot_surprise(
    disturbed: Mapping[str, Sequence[Scored]], nominal: Sequence[Scored], threshold: float, window: int, path: Path
) -> None:
    """Mean and central 80 % of the standardised score around each event, and without it."""
    events = list(disturbed)
    columns = min(4, len(events))
    rows = -(-len(events) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    by_seed = {scored.trace.seed: scored for scored in nominal}
    steps = np.arange(-BEFORE, window)
    for axis, event in zip(axes.flat, events, strict=False):
        begun = [(s, s.trace.event_step + 1) for s in disturbed[event] if s.trace.event_step is not None]
        beside = [(by_seed[s.trace.seed], begin) for s, begin in begun if s.trace.seed in by_seed]
        _band(axis, steps, _aligned(beside, steps), "0.5", "undisturbed")
        _band(axis, steps, _aligned(begun, steps), "tab:red", "disturbed")
        axis.axhline(threshold, color="k", linewidth=0.8, linestyle=":", label="threshold")
        axis.axvline(0, color="k", linewidth=0.5)
        axis.set_yscale("symlog", linthresh=1.0)
        kind, at, magnitude = event.partition("@")
        axis.set_title(kind.replace("_", " ") + (f", {magnitude} {KINDS[kind].unit}" if at else ""), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(events) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("control steps since the event", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("surprise (standardised)", fontsize=8)
    axes.flat[0].legend(fontsize=6, loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _aligned(episodes: Sequence[tuple[Scored, int]], steps: np.ndarray) -> np.ndarray:
    """Scores (episodes, steps) around an observation of each; NaN outside an episode and where there is no score."""
    rows = np.full((len(episodes), len(steps)), np.nan)
    for row, (scored, begin) in zip(rows, episodes, strict=True):
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
