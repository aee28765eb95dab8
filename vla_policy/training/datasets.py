"""From `data` in the configuration to windows to train on, windows held out, and what to say about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla_policy.conf.training_config import DataConfig
from vla_policy.data import LeRobotDataset, MixedWindows, WindowDataset, Windows, common_interface
from vla_policy.data.takeovers import Takeovers
from vla_policy.interfaces import InputError
from vla_policy.models import PolicyConfig
from vla_policy.training.batches import ModelConfig, make_windows, split_episodes
from vla_policy.utils.recordings import RECORDINGS

SHOWN_TASKS = 12  # sentences in a description

Split = tuple[list[int], list[int]]  # episodes to train on, held-out ones


def open_data(
    config: DataConfig, model: ModelConfig, led: bool = False
) -> tuple[Windows, Windows | None, dict[str, Any]]:
    """Training windows, held-out ones (None if no episodes are held out), and the model card's section on the data.

    A model is `led` if another one says what to do for any observation, those of play included, or if it learns from
    actions that are not to be imitated nothing but what was seen. `InputError` naming dataset and difference if one
    lacks what `model` sees, or if several do not fit together.
    """
    excluded = config.excluded
    datasets = [LeRobotDataset(root, exclude=some) for root, some in zip(config.roots, excluded, strict=True)]
    keys = [*model.observation_keys, *model.auxiliary_keys]
    accept_unnamed = config.unnamed_channels == "accept"
    interface = common_interface(datasets, keys, config.missing_cameras == "pad", accept_unnamed)
    missing = [set(keys) - dataset.interface.observations.keys() for dataset in datasets]
    filled = [[index for index in dataset.episodes if dataset.length(index)] for dataset in datasets]
    splits = [split_episodes(episodes, config, which) for which, episodes in enumerate(filled)]

    _require_takeovers(config, datasets)

    def windows(which: int, episodes: list[int], weight: float = 1.0) -> WindowDataset:
        reading = config.cache_dir, config.cache, missing[which], config.pad_after
        past = isinstance(model, PolicyConfig) and model.predict_past
        takeovers = Takeovers(weight, config.drop_before_intervention, past)
        return make_windows(datasets[which], model, episodes, *reading, takeovers)

    def joined(parts: list[WindowDataset], *mixing: Sequence[Any] | None) -> Windows:
        return parts[0] if len(datasets) == 1 else MixedWindows(parts, interface, *mixing)

    if not all(config.action_loss or []) and not model.auxiliary_keys and not led:
        raise InputError("data.action_loss: expected policy.auxiliary_keys, which play is to teach, found none")
    parts = [windows(which, episodes, config.intervention_weight) for which, (episodes, _) in enumerate(splits)]
    if config.shuffle_actions:
        for part in parts:
            part.shuffle_actions(config.split_seed)
    training = joined(parts, config.weights, config.action_loss)
    imitated = config.action_loss or [True] * len(splits)
    tested = [windows(k, episodes) for k, (_, episodes) in enumerate(splits) if imitated[k] and episodes]
    held_out = joined(tested) if tested else None
    return training, held_out, _description(config, datasets, splits, training) | _takeovers(config, parts)


def _require_takeovers(config: DataConfig, datasets: Sequence[LeRobotDataset]) -> None:
    """`InputError` for options about takeovers where none are recorded."""
    options = {
        "intervention_weight": config.intervention_weight != 1,
        "drop_before_intervention": config.drop_before_intervention > 0,
    }
    asked = [f"data.{name}" for name, given in options.items() if given]
    if asked and not any(dataset.interventions for dataset in datasets):
        where = " or ".join(str(dataset.root / RECORDINGS) for dataset in datasets)
        raise InputError(f"{asked[0]}: expected recorded interventions in {where}, found none")


def _takeovers(config: DataConfig, parts: Sequence[WindowDataset]) -> dict[str, str]:
    """What the model card says of recorded takeovers, where an option is about them."""
    if config.intervention_weight == 1 and not config.drop_before_intervention:
        return {}
    led, dropped, count = (
        sum(values) for values in zip(*((p.led.sum(), p.dropped, len(p)) for p in parts), strict=True)
    )
    weight, seconds = config.intervention_weight, config.drop_before_intervention
    return {
        "interventions": f"{100 * led / count:.1f} % of the windows, each sampled {weight:g} times as often; {dropped} "
        f"left out, with actions of the last {seconds:g} s before one"
    }


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
        "demonstrations": sum(
            len(episodes)
            for (episodes, _), imitated in zip(splits, config.action_loss or [True] * len(splits), strict=True)
            if imitated
        ),
        "split": f"{' and '.join(counts)} episodes, split seed {config.split_seed}",
        "held_out_episodes": held_out if len(names) > 1 else held_out[names[0]],
        "windows": len(windows),
        "fingerprints": [dataset.fingerprint() for dataset in datasets],
    }
    if excluded:
        description["excluded_episodes"] = excluded if len(names) > 1 else excluded[names[0]]
    if isinstance(windows, MixedWindows):
        shares = zip(names, windows.shares, strict=True)
        description["samples"] = ", ".join(f"{100 * share:.1f} % from {name}" for name, share in shares)
        if windows.imitated is not None:
            acting = [name for name, imitated in zip(names, windows.imitated, strict=True) if imitated]
            description["imitated"] = ", ".join(acting)
    if config.symmetries:
        description["symmetries"] = ", ".join(config.symmetries)
    if config.shuffle_actions:
        description["actions"] = "shuffled among the windows, a control"
    if config.state_noise:
        description["state_noise"] = f"{config.state_noise:g} standard deviations, on half of the samples"
    return description
