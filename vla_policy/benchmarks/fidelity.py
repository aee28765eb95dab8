"""Simulator fidelity: the block's error when recorded episodes are replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.table import Table

from sim import GymPushTEnv, PushTEnv
from sim.geometry import pose_from_features
from sim.replay import Replay, replay, summarize_replays
from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.statistics import mean_interval, success_interval
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE

SECONDS = (1, 2, 4, 6, 8, 10, 12, 16, 20)  # rows of the table; the summary has every second


def replay_episode(
    dataset: LeRobotDataset,
    index: int,
    env: PushTEnv | GymPushTEnv,
    on_frame: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> Replay:
    """Replay an episode of the dataset; `InputError` if the dataset lacks a needed feature."""
    needed = env.interface.select([STATE, ENVIRONMENT_STATE])
    needed.require(dataset.interface, "a replay", str(dataset.root))
    episode = dataset.episode(index)
    poses = pose_from_features(episode.columns[ENVIRONMENT_STATE])
    return replay(env, episode.columns[STATE][0], poses, episode.executed, on_frame)


def replay_dataset(dataset: LeRobotDataset, episodes: Iterable[int], env: PushTEnv | GymPushTEnv) -> dict[str, Any]:
    """The summary of these episodes replayed, with intervals of success and coverage."""
    replays = [replay_episode(dataset, index, env) for index in episodes]
    summary = summarize_replays(replays)
    maxima, n_episodes = summary.pop("max_coverages"), len(replays)
    return summary | {
        "success_rate": summary["n_success"] / n_episodes,
        "success_ci95": success_interval(summary["n_success"], n_episodes),
        "mean_max_coverage": sum(maxima) / n_episodes,
        "mean_max_coverage_ci95": mean_interval(maxima),
    }


def fidelity_table(summaries: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One column per simulator, named by its key."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in summaries:
        table.add_column(name, justify="right")

    def row(label: str, show: Callable[[Mapping[str, Any]], str]) -> None:
        table.add_row(label, *(show(summary) for summary in summaries.values()))

    over_time = next(iter(summaries.values()))["over_time"]
    for second in [s for s in SECONDS if s < len(over_time)]:
        errors = [summary["over_time"][second] for summary in summaries.values()]
        table.add_row(f"after {second} s, n = {over_time[second]['n']}", *map(_error, errors))
    row("at the end", lambda s: _error(s["end"]))
    row("over all frames", lambda s: _error(s["all_frames"]))
    row("success", lambda s: f"{s['n_success']} / {s['n_episodes']} = {percent(s['success_rate'])}")
    row("  exact 95 % interval", lambda s: interval(s["success_ci95"], 100, 1) + " %")
    row("  in the recorded frames", lambda s: f"{s['n_success_recorded']} / {s['n_episodes']}")
    row("mean max coverage", lambda s: f"{s['mean_max_coverage']:.3f}  {interval(s['mean_max_coverage_ci95'])}")
    row("  in the recorded frames", lambda s: f"{s['mean_max_coverage_recorded']:.3f}")
    row("mean final coverage", lambda s: f"{s['mean_final_coverage']:.3f}")
    row("  in the recorded frames", lambda s: f"{s['mean_final_coverage_recorded']:.3f}")
    return table


def _error(medians: Mapping[str, float]) -> str:
    return f"{medians['position_mm']:.2f} mm  {medians['angle_deg']:.2f} deg"
