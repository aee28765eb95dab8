"""Error of predicted chunks on recorded actions, for data without a simulator.

It shows whether a policy has learnt anything, not whether it succeeds; the baseline repeats the last action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.data import LeRobotDataset
from vla_policy.data.format.findings import listed
from vla_policy.evaluation.formats import interval
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.interfaces import ACTION, InputError, Observation, Policy
from vla_policy.runtime import History
from vla_policy.utils.files import write_csv, write_json
from vla_policy.utils.provenance import git_commit


@dataclass
class OpenLoopConfig:
    """Error of predicted chunks on recorded episodes."""

    episodes: list[int] | None = None  # e.g. [0,3,7]; null: the held-out ones that the checkpoint states
    policy_seed: int = 0  # of the policy's noise
    batch_size: int = 32  # chunks computed at once
    device: str = "auto"  # auto | cpu | cuda
    out: str = "outputs/open_loop/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results


Window = tuple[int, list[Observation]]  # frame of the newest observation, history


@dataclass(frozen=True)
class EpisodeError:
    """Mean absolute errors of one episode in the action's units; (n_action_steps, D) arrays, NaN for unused steps."""

    episode: int
    chunks: int
    policy: np.ndarray
    hold: np.ndarray


def open_loop(
    policy: Policy,
    dataset: LeRobotDataset,
    episodes: Sequence[int],
    seed: int = 0,
    batch_size: int = 32,
    on_episode: Callable[[EpisodeError], None] | None = None,
) -> list[EpisodeError]:
    """Predict a chunk every `n_action_steps` frames and compare its executed steps with the recorded actions.

    `InputError` if the policy and the dataset do not fit, or an episode has fewer than two frames.
    """
    policy.interface.require(dataset.interface, "the policy", str(dataset.root))
    generator = np.random.default_rng(seed)
    errors = []
    for index in episodes:
        errors.append(_episode_error(policy, dataset, index, generator, batch_size))
        if on_episode is not None:
            on_episode(errors[-1])
    return errors


def _episode_error(
    policy: Policy, dataset: LeRobotDataset, index: int, generator: np.random.Generator, batch_size: int
) -> EpisodeError:
    actions = dataset.episode(index).columns[ACTION].astype(float)
    every = list(windows(policy, dataset, index))
    if not every:
        raise InputError(f"{dataset.root}, episode {index}: expected at least 2 frames, found {len(actions)}")
    shape = (len(every), policy.n_action_steps, actions.shape[1])
    ours, held = np.full(shape, np.nan), np.full(shape, np.nan)
    for first in range(0, len(every), batch_size):
        batch = every[first : first + batch_size]
        chunks = policy.predict([history for _, history in batch], generator)
        for row, ((frame, _), chunk) in enumerate(zip(batch, chunks, strict=True), start=first):
            truth = actions[frame : frame + policy.n_action_steps]
            ours[row, : len(truth)] = np.abs(chunk.actions[: len(truth)] - truth)
            held[row, : len(truth)] = np.abs(actions[frame - 1] - truth)
    return EpisodeError(index, len(every), _mean(ours), _mean(held))


def _mean(errors: np.ndarray) -> np.ndarray:
    """Mean over chunks; NaN for steps that no chunk reaches."""
    count = np.isfinite(errors).sum(axis=0)
    return np.where(count > 0, np.nansum(errors, axis=0) / np.maximum(count, 1), np.nan)


def windows(policy: Policy, dataset: LeRobotDataset, index: int) -> Iterator[Window]:
    """The policy's inputs where it is asked for a chunk; the first frame has no last action to hold."""
    for frame, window in histories(policy, dataset, index):
        if frame >= 1 and (frame - 1) % policy.n_action_steps == 0:
            yield frame, window


def histories(policy: Policy, dataset: LeRobotDataset, index: int) -> Iterator[Window]:
    """The policy's inputs at every frame, as the runtime would form them."""
    episode = dataset.episode(index)
    cameras = policy.interface.cameras
    vectors = {key: episode.columns[key] for key in policy.interface.observations if key not in cameras}
    pictures = {key: dataset.iter_frames(index, key) for key in cameras}
    history = History(policy.n_obs_steps, 1.0 / dataset.fps)
    for frame in range(episode.length):
        values = {key: column[frame].astype(np.float32) for key, column in vectors.items()}
        values |= {key: next(frames) for key, frames in pictures.items()}
        history.append(Observation(values, episode.tasks[frame], frame / dataset.fps))
        yield frame, history.window()


def held_out_episodes(chosen: Sequence[int] | None, card: Mapping[str, Any], dataset: LeRobotDataset) -> list[int]:
    """The chosen episodes, or the held-out ones that the checkpoint's card states; `InputError` if there are none."""
    if chosen is None:
        chosen = stated_episodes(card, dataset)
    wrong = [index for index in chosen if index not in dataset.episodes]
    if wrong:
        raise InputError(f"episodes: expected an episode from {listed(dataset.episodes)}, found {wrong[0]}")
    if not chosen:
        raise InputError(
            f"episodes: the checkpoint states no held-out episodes, expected episodes=[...] out of "
            f"{listed(dataset.episodes)}, found none"
        )
    return list(chosen)


def stated_episodes(card: Mapping[str, Any], dataset: LeRobotDataset) -> list[int]:
    """The held-out episodes of this dataset that the checkpoint's card states, if any."""
    stated = (card.get("data") or {}).get("held_out_episodes")
    if isinstance(stated, Mapping):  # by dataset, for a mix
        stated = stated.get(dataset.root.name, stated.get(str(dataset.root)))
    return list(stated or [])


def summarize_open_loop(errors: Sequence[EpisodeError], policy: Policy, **more: Any) -> dict[str, Any]:
    """Means over episodes with bootstrap intervals, and means per channel and per step of the chunk."""
    ours = np.array([np.nanmean(e.policy) for e in errors])
    held = np.array([np.nanmean(e.hold) for e in errors])
    action = policy.interface.action
    names = list(action.names) or [str(i) for i in range(action.shape[0])]
    by_policy, by_hold = np.stack([e.policy for e in errors]), np.stack([e.hold for e in errors])
    return {
        "n_episodes": len(errors),
        "episodes": [e.episode for e in errors],
        "n_chunks": sum(e.chunks for e in errors),
        "n_action_steps": policy.n_action_steps,
        "measure": "mean absolute error of the executed steps, over channels, in the action's units",
        "units": list(action.units),
        "mean_error": float(ours.mean()),
        "mean_error_ci95": mean_interval(ours),
        "mean_error_hold": float(held.mean()),
        "mean_error_hold_ci95": mean_interval(held),
        "difference": float((ours - held).mean()),
        "difference_ci95": mean_interval(ours - held),
        "ratio": float(ours.mean() / held.mean()) if held.mean() > 0 else None,
        "ci95_method": "bootstrap (BCa, 9999 resamples of the episodes)",
        "channels": {
            name: {"policy": float(np.nanmean(by_policy[..., i])), "hold": float(np.nanmean(by_hold[..., i]))}
            for i, name in enumerate(names)
        },
        "by_step": {
            "policy": np.nanmean(by_policy, axis=(0, 2)).tolist(),
            "hold": np.nanmean(by_hold, axis=(0, 2)).tolist(),
        },
        "git_commit": git_commit(),
        **more,
    }


def write_open_loop(out: Path, errors: Sequence[EpisodeError], summary: Mapping[str, Any]) -> None:
    """Write summary.json and episodes.csv, a row per episode, to `out`."""
    rows = [
        {"episode": e.episode, "chunks": e.chunks, "policy": np.nanmean(e.policy), "hold": np.nanmean(e.hold)}
        for e in errors
    ]
    write_csv(out / "episodes.csv", ["episode", "chunks", "policy", "hold"], rows)
    write_json(out / "summary.json", summary)


def open_loop_table(summary: dict[str, Any]) -> Table:
    title = f"Open-loop error, {summary['n_episodes']} episodes, {summary['n_chunks']} chunks"
    table = Table(title=title, title_justify="left")
    for column in ("mean absolute error", "policy", "hold the last action"):
        table.add_column(column, justify="right" if column != "mean absolute error" else "left")
    table.add_row("all channels", f"{summary['mean_error']:.4g}", f"{summary['mean_error_hold']:.4g}")
    spans = [interval(summary[key], digits=5) for key in ("mean_error_ci95", "mean_error_hold_ci95")]
    table.add_row("  95 % interval over episodes", *spans)
    for name, channel in summary["channels"].items():
        table.add_row(f"  {name}", f"{channel['policy']:.4g}", f"{channel['hold']:.4g}")
    table.add_row(
        "policy - hold  [95 %]", f"{summary['difference']:+.4g}  {interval(summary['difference_ci95'], digits=5)}"
    )
    return table
