"""Results of an evaluation: summary.json, episodes.csv, and a table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from vla_policy.evaluation.formats import interval, percent, success_rate
from vla_policy.evaluation.statistics import mean_interval, success_interval
from vla_policy.interfaces import InputError
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.utils.files import read_json, write_csv
from vla_policy.utils.provenance import git_commit

_ELSEWHERE = (
    "pusher",
    "block_pose",
    "actions",
    "path",
    "seams",
    "plans",
    "reached",
    "aftermath",
    "watched",
)  # not columns of episodes.csv
_TEXT = ("task", "goal")
_LATER = (*_TEXT, "refused")  # missing in older files
COLUMNS = [f.name for f in fields(EpisodeResult) if f.name not in _ELSEWHERE] + [
    "pusher_x",
    "pusher_y",
    "block_x",
    "block_y",
    "block_angle",
]


def summarize(
    results: Sequence[EpisodeResult],
    *,
    env: str,
    task: str,
    seed: int,
    checkpoint: str,
    chunk_ms: Mapping[str, Any] | None,
    **more: Any,
) -> dict[str, Any]:
    """The content of summary.json; `more` is added to it, `chunk_ms` is None if no latency was measured.

    `instructions` counts the episodes with each; `by_goal` has the success by commanded goal if there are several.
    """
    n, n_success = len(results), sum(r.success for r in results)
    if n == 0:
        raise InputError("evaluation: expected at least one episode, found none")
    max_rewards = [r.max_reward for r in results]
    max_coverages = [r.max_coverage for r in results]
    steps = [float(r.steps) for r in results]
    return {
        "n_episodes": n,
        "n_success": n_success,
        "success_rate": n_success / n,
        "success_ci95": success_interval(n_success, n),
        "success_ci95_method": "exact (Clopper-Pearson)",
        "mean_max_reward": float(np.mean(max_rewards)),
        "mean_max_reward_ci95": mean_interval(max_rewards),
        "mean_max_coverage": float(np.mean(max_coverages)),
        "mean_max_coverage_ci95": mean_interval(max_coverages),
        "mean_final_coverage": float(np.mean([r.final_coverage for r in results])),
        "mean_sum_reward": float(np.mean([r.sum_reward for r in results])),
        "mean_steps": float(np.mean(steps)),
        "mean_steps_ci95": mean_interval(steps),
        "mean_ci95_method": "bootstrap (BCa, 9999 resamples of the episodes)",
        "median_steps_of_successes": float(np.median([r.steps for r in results if r.success])) if n_success else None,
        "clipped_steps": sum(r.clipped_steps for r in results),
        "held_steps": sum(r.held_steps for r in results),
        "chunk_ms": dict(chunk_ms) if chunk_ms is not None else {"p50": None, "p95": None},
        "env": env,
        "task": task,
        "instructions": dict(Counter(r.task for r in results if r.task)),
        "by_goal": _by_goal(results),
        "seed": seed,
        "seeds": [r.seed for r in results],
        "checkpoint": checkpoint,
        "git_commit": git_commit(),
        **more,
    }


def _by_goal(results: Sequence[EpisodeResult]) -> dict[str, dict[str, Any]]:
    goals = sorted({r.goal for r in results} - {""})
    return {goal: success_rate([r.success for r in results if r.goal == goal]) for goal in goals}


def refusal_rate(refused: Sequence[bool]) -> dict[str, Any]:
    """Number, rate and exact interval of the refusals."""
    n, n_refused = len(refused), sum(refused)
    ci95 = success_interval(n_refused, n)
    return {"n": n, "n_refused": n_refused, "refusal_rate": n_refused / n, "refusal_ci95": ci95}


def write_episodes(path: Path, results: Sequence[EpisodeResult]) -> None:
    """Write a row per episode, initial conditions included; floats read back exactly."""
    write_csv(path, COLUMNS, [episode_row(result) for result in results])


def episode_row(result: EpisodeResult) -> dict[str, Any]:
    """An episode's values by column."""
    row = {key: value for key, value in asdict(result).items() if key not in _ELSEWHERE}
    row["success"], row["refused"] = int(result.success), int(result.refused)
    row["pusher_x"], row["pusher_y"] = result.pusher
    row["block_x"], row["block_y"], row["block_angle"] = result.block_pose
    return row


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary in an evaluation's folder; `InputError` naming the file if it is missing or broken.

    Older ones do not state their `chunking`, of which there was one.
    """
    return {"chunking": "async", **read_json(folder / "summary.json")}


def read_episodes(folder: Path) -> list[dict[str, Any]]:
    """The rows of an evaluation's episodes.csv: `seed` an int, `task` and `goal` text, all others floats."""
    path = folder / "episodes.csv"
    if not path.exists():
        raise InputError(f"{folder}: expected an evaluation's folder with episodes.csv, found none")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted(set(COLUMNS) - set(_LATER) - set(reader.fieldnames or ()))
        if missing:
            raise InputError(f"{path}: expected the columns {COLUMNS}, found {missing} missing")
        try:
            return [{key: _value(key, row) for key in COLUMNS} for row in reader]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: expected numbers, found {error}") from None


def _value(key: str, row: Mapping[str, str]) -> Any:
    if key in _TEXT:
        return row.get(key) or ""
    if key in _LATER and key not in row:
        return 0.0
    return int(row[key]) if key == "seed" else float(row[key])


def summary_table(summaries: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """A column per summary, named by its key; the caption has the instructions, and a warning if they name no goal."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("")
    for name in summaries:
        table.add_column(name, justify="right")
    for label, show in _ROWS.items():
        table.add_row(label, *(show(summary) for summary in summaries.values()))
    if any("monitor" in summary or "aftermath" in summary for summary in summaries.values()):
        for label, show in _WATCHED_ROWS.items():
            table.add_row(label, *(show(summary) for summary in summaries.values()))
    if any("refusals" in summary for summary in summaries.values()):
        table.add_row(
            "refused to start  [95 %]", *(_refusals(summary.get("refusals")) for summary in summaries.values())
        )
    if any("entered_disc_ci95" in summary for summary in summaries.values()):
        table.add_row("entered the disc  [95 %]", *(_entered(summary) for summary in summaries.values()))
    goals = {goal: None for summary in summaries.values() for goal in summary["by_goal"]}
    for goal in goals if len(goals) > 1 else ():
        table.add_row(f"success, {goal}  [95 %]", *(_goal(s["by_goal"].get(goal)) for s in summaries.values()))
    given = _instructions({text: None for summary in summaries.values() for text in summary["instructions"]})
    drawn = max(summary.get("episodes_naming_no_goal", 0) for summary in summaries.values())
    warning = f"in {drawn} episodes it names no goal in the task's own words, and one was drawn" if drawn else None
    table.caption = "\n".join(line for line in (given, warning) if line) or None
    return table


def _mean(summary: Mapping[str, Any], key: str, digits: int) -> str:
    return f"{summary[key]:.{digits}f}  {interval(summary[key + '_ci95'], digits=digits)}"


def _smooth(summary: Mapping[str, Any], key: str, scale: float, digits: int) -> str:
    if summary.get(key) is None:  # an older file, or episodes with a single chunk
        return "-"
    return f"{scale * summary[key]:.{digits}f}  {interval(summary[key + '_ci95'], scale, digits)}"


def _goal(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['n_success']} / {found['n']}  {interval(found['success_ci95'], 100, 1)} %"


def _refusals(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['n_refused']} / {found['n']}  {interval(found['refusal_ci95'], 100, 1)} %"


def _entered(summary: Mapping[str, Any]) -> str:
    if "entered_disc_ci95" not in summary:
        return "-"
    return f"{summary['n_entered_disc']} / {summary['n_episodes']}  {interval(summary['entered_disc_ci95'], 100, 1)} %"


def _instructions(given: Collection[str]) -> str | None:
    """The first one, and the number of others."""
    if not given:
        return None
    others = f" and {len(given) - 1} more" if len(given) > 1 else ""
    return escape(f'instruction: "{next(iter(given))}"{others}')


def milliseconds(summary: Mapping[str, Any]) -> str:
    """A summary's latency of a chunk, p50 / p95; "-" if none was measured."""
    chunk_ms = summary["chunk_ms"]
    return "-" if chunk_ms["p50"] is None else f"{chunk_ms['p50']:.1f} / {chunk_ms['p95']:.1f}"


_ROWS = {
    "success": lambda s: f"{s['n_success']} / {s['n_episodes']} = {percent(s['success_rate'])}",
    "  exact 95 % interval": lambda s: interval(s["success_ci95"], 100, 1) + " %",
    "mean max reward  [95 %]": lambda s: _mean(s, "mean_max_reward", 3),
    "mean max coverage  [95 %]": lambda s: _mean(s, "mean_max_coverage", 3),
    "mean steps  [95 %]": lambda s: _mean(s, "mean_steps", 1),
    "seam jump, mm  [95 %]": lambda s: _smooth(s, "mean_seam_jump", 1e3, 2),
    "jerk, m / s^3  [95 %]": lambda s: _smooth(s, "mean_jerk", 1.0, 1),
    "action chunk, p50 / p95 ms": milliseconds,
}


def _halted(summary: Mapping[str, Any]) -> str:
    return f"{summary['halted_episodes']} / {summary['n_episodes']}" if "monitor" in summary else "-"


def _after(summary: Mapping[str, Any], *keys: str) -> str:
    """Values of the aftermath, for the episodes with an event."""
    if "aftermath" not in summary:
        return "-"
    values = [summary["aftermath"][key] for key in keys]
    return " / ".join("-" if value is None else f"{value:g}" for value in values)


def _mean_after(summary: Mapping[str, Any], key: str, digits: int) -> str:
    return _mean(summary["aftermath"], key, digits) if "aftermath" in summary else "-"


_WATCHED_ROWS = {
    "halted by the monitor": _halted,
    "event happened in / halted after it": lambda s: _after(s, "n", "stopped_after_event"),
    "  control steps to the halt, p50 / p95": lambda s: _after(s, "steps_to_stop_p50", "steps_to_stop_p95"),
    "  mean steps acted after it  [95 %]": lambda s: _mean_after(s, "mean_acted_steps", 1),
    "  mean wrong pushes after it  [95 %]": lambda s: _mean_after(s, "mean_wrong_pushes", 2),
}
