"""From `data` in the configuration to windows to train on, windows held out, and what to say about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla_policy.conf.training_config import DataConfig
from vla_policy.data import LeRobotDataset, MixedWindows, Windows, common_interface
from vla_policy.training.batches import ModelConfig, make_windows, split_episodes

SHOWN_TASKS = 12  # sentences in a description

Split = tuple[list[int], list[int]]  # episodes to train on, held-out ones


def open_data(config: DataConfig, model: ModelConfig) -> tuple[Windows, Windows | None, dict[str, Any]]:
    """Training windows, held-out ones (None if no episodes are held out), and the model card's section on the data.

    `InputError` naming dataset and difference if one lacks what `model` sees, or if several do not fit together.
    """
    excluded = config.excluded
    datasets = [LeRobotDataset(root, exclude=some) for root, some in zip(config.roots, excluded, strict=True)]
    keys = [*model.observation_keys, *model.auxiliary_keys]
    accept_unnamed = config.unnamed_channels == "accept"
    interface = common_interface(datasets, keys, config.missing_cameras == "pad", accept_unnamed)
    missing = [set(keys) - dataset.interface.observations.keys() for dataset in datasets]
    filled = [[index for index in dataset.episodes if dataset.length(index)] for dataset in datasets]
    splits = [split_episodes(episodes, config) for episodes in filled]

    def windows(episodes: Sequence[list[int]]) -> Windows:
        parts = [
            make_windows(dataset, model, chosen, config.cache_dir, config.cache, padded, config.pad_after)
            for dataset, chosen, padded in zip(datasets, episodes, missing, strict=True)
        ]
        return parts[0] if len(parts) == 1 else MixedWindows(parts, interface, config.weights)

    training = windows([episodes for episodes, _ in splits])
    held_out = windows([episodes for _, episodes in splits]) if splits[0][1] else None
    return training, held_out, _description(config, datasets, splits, training)


def _description(
    config: DataConfig, datasets: Sequence[LeRobotDataset], splits: Sequence[Split], windows: Windows
) -> dict[str, Any]:
    names = [dataset.root.name for dataset in datasets]
    if len(set(names)) < len(names):
        names = config.roots
    held_out = {name: sorted(episodes) for name, (_, episodes) in zip(names, splits, strict=True)}
    counts = [f"{len(split[0])} of {dataset.num_episodes}" for dataset, split in zip(datasets, splits, strict=True)]
    excluded = {name: sorted(some) for name, some in zip(names, config.excluded, strict=True) if some}
    more = len(windows.tasks) - SHOWN_TASKS
    description = {
        "dataset": ", ".join(names),
        "tasks": " / ".join(windows.tasks[:SHOWN_TASKS]) + (f" / and {more} more" if more > 0 else ""),
        "demonstrations": sum(len(episodes) for episodes, _ in splits),
        "split": f"{' and '.join(counts)} episodes, split seed {config.split_seed}",
        "held_out_episodes": held_out if len(names) > 1 else held_out[names[0]],
        "windows": len(windows),
    }
    if excluded:
        description["excluded_episodes"] = excluded if len(names) > 1 else excluded[names[0]]
    if isinstance(windows, MixedWindows):
        shares = zip(names, windows.shares, strict=True)
        description["samples"] = ", ".join(f"{100 * share:.1f} % from {name}" for name, share in shares)
    return description
