"""The statistics of an edited dataset's episodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla_policy.data.dataset import Episode, LeRobotDataset
from vla_policy.data.editing.plan import Part, Plan
from vla_policy.data.format.features import read_features
from vla_policy.data.format.layout import BOOKKEEPING
from vla_policy.data.format.stats import ImageStats, Stats, vector_stats


def episode_stats(
    plan: Plan, part: Part, episode: Episode, counted: Mapping[str, np.ndarray], stored: Mapping[str, Stats]
) -> dict[str, Stats]:
    """The statistics of an episode: of vectors from their values, of cameras those that are `stored`, if any are."""
    cameras, values = read_features(part.dataset.features).cameras, {**episode.columns, **counted}
    stats: dict[str, Stats] = {}
    for key in dict.fromkeys([*part.dataset.features, *BOOKKEEPING]):
        name = plan.name(key)
        if name is None:
            continue
        if key in values:
            stats[name] = vector_stats(values[key])
        elif _is_usable(stored.get(key, {})) and not (plan.fresh_stats and key in cameras):
            stats[name] = stored[key]
        elif key in cameras:
            stats[name] = _camera_stats(part.dataset, part.index, key)
    return stats


def _is_usable(stats: Mapping[str, np.ndarray]) -> bool:
    return {"min", "max", "mean", "std", "count"} <= stats.keys() and all(v.dtype.kind in "iuf" for v in stats.values())


def _camera_stats(dataset: LeRobotDataset, index: int, key: str) -> Stats:
    watch = ImageStats()
    for _ in watch.watch(dataset.iter_frames(index, key)):
        pass
    return watch.result()
