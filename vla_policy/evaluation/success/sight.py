"""How far off a policy's estimates are: what it reads from pictures of its auxiliary keys, against the recorded truth.

What acts on estimates (`policy.auxiliary_keys`) cannot succeed where they are coarser than the task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.formats import interval
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.evaluation.success.open_loop import histories
from vla_policy.interfaces import Interface
from vla_policy.models import DiffusionPolicy


@dataclass(frozen=True)
class EpisodeSight:
    """Absolute errors (T, D) by key in one episode: of the estimates, and of the episode's median truth."""

    episode: int
    estimates: dict[str, np.ndarray]
    constant: dict[str, np.ndarray]


def sight(
    policy: DiffusionPolicy,
    dataset: LeRobotDataset,
    episodes: Sequence[int],
    batch_size: int = 32,
    on_episode: Callable[[EpisodeSight], None] | None = None,
) -> list[EpisodeSight]:
    """Estimates of every frame of the episodes; `InputError` if the dataset lacks what is estimated."""
    policy.full_interface.require(dataset.interface, "the policy's estimates", str(dataset.root))
    found = []
    for index in episodes:
        found.append(_episode_sight(policy, dataset, index, batch_size))
        if on_episode is not None:
            on_episode(found[-1])
    return found


def _episode_sight(policy: DiffusionPolicy, dataset: LeRobotDataset, index: int, batch_size: int) -> EpisodeSight:
    keys, columns = policy.config.auxiliary_keys, dataset.episode(index).columns
    every, parts = [window for _, window in histories(policy, dataset, index)], []
    for first in range(0, len(every), batch_size):
        estimated = policy.eval().estimates(policy.batch(every[first : first + batch_size]))
        parts.append({key: estimated[key][:, -1].cpu().numpy() for key in keys})
    estimates = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    return EpisodeSight(
        index,
        {key: np.abs(estimates[key] - columns[key]) for key in keys},
        {key: np.abs(np.median(columns[key], axis=0) - columns[key]) for key in keys},
    )


def summarize_sight(found: Sequence[EpisodeSight], interface: Interface) -> dict[str, Any]:
    """By key and channel: the episodes' median errors, averaged over episodes with a bootstrap interval; the 90th
    percentile over frames; and the median error of a constant, each episode's own median truth.
    """
    summary: dict[str, Any] = {}
    for key in found[0].estimates:
        feature = interface.observations[key]
        names = list(feature.names) or [str(i) for i in range(feature.shape[0])]
        units = list(feature.units) or [""] * len(names)
        medians = np.array([np.median(each.estimates[key], axis=0) for each in found])  # (episodes, D)
        frames = np.concatenate([each.estimates[key] for each in found])
        constant = np.array([np.median(each.constant[key], axis=0) for each in found])
        summary[key] = {
            name: {
                "unit": units[i],
                "median": float(medians[:, i].mean()),
                "median_ci95": mean_interval(medians[:, i]),
                "p90": float(np.percentile(frames[:, i], 90)),
                "median_constant": float(constant[:, i].mean()),
            }
            for i, name in enumerate(names)
        }
    return summary


def sight_table(summary: dict[str, Any], frames: int) -> Table:
    """The errors of the estimates of `frames` frames."""
    table = Table(title=f"Estimates from pictures, {frames} frames", title_justify="left")
    for column in ("absolute error", "median", "95 % over episodes", "90 % of frames below", "a constant's median"):
        table.add_column(column, justify="left" if column == "absolute error" else "right")
    for key, channels in summary.items():
        table.add_row(key)
        for name, error in channels.items():
            unit = f", {error['unit']}" if error["unit"] not in ("", "1") else ""
            span = interval(error["median_ci95"], digits=5)
            numbers = [f"{error[which]:.4g}" for which in ("p90", "median_constant")]
            table.add_row(f"  {name}{unit}", f"{error['median']:.4g}", span, *numbers)
    return table
