"""Two evaluations on the same starts, paired seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.statistics import compare_paired, mean_interval
from vla_policy.evaluation.success.report import read_episodes, read_summary
from vla_policy.interfaces import InputError

_START = ("pusher_x", "pusher_y", "block_x", "block_y", "block_angle")


def compare(a: Path, b: Path) -> dict[str, Any]:
    """B minus A for two evaluation folders: success with Newcombe's interval and McNemar's exact test, max reward.

    `InputError` unless both ran in the same environment from the same seeds and starts.
    """
    summary_a, summary_b = read_summary(a), read_summary(b)
    require_same({a: summary_a, b: summary_b}, ["env"], "compare")
    rows_a, rows_b = _by_seed(a), _by_seed(b)
    if rows_a.keys() != rows_b.keys():
        only_a, only_b = sorted(rows_a.keys() - rows_b.keys()), sorted(rows_b.keys() - rows_a.keys())
        raise InputError(
            f"compare: expected the same seeds, found {len(only_a)} only in {a} {_few(only_a)}"
            f" and {len(only_b)} only in {b} {_few(only_b)}"
        )
    seeds = sorted(rows_a)
    for seed in seeds:
        if any(rows_a[seed][key] != rows_b[seed][key] for key in _START):
            raise InputError(f"compare: expected the same start for seed {seed}, found different ones in {a} and {b}")
        goal_a, goal_b = rows_a[seed]["goal"], rows_b[seed]["goal"]
        if goal_a and goal_b and goal_a != goal_b:
            raise InputError(f"compare: expected one goal for seed {seed}, found {goal_a!r} in {a}, {goal_b!r} in {b}")
    pairs = compare_paired([rows_a[s]["success"] > 0 for s in seeds], [rows_b[s]["success"] > 0 for s in seeds])
    gains = np.array([rows_b[s]["max_reward"] - rows_a[s]["max_reward"] for s in seeds])
    return {
        "a": str(a),
        "b": str(b),
        "env": summary_a.get("env"),
        "paraphrases_a": summary_a.get("paraphrases"),
        "paraphrases_b": summary_b.get("paraphrases"),
        "checkpoint_a": summary_a.get("checkpoint"),
        "checkpoint_b": summary_b.get("checkpoint"),
        "success_a": (pairs.both + pairs.only_a) / pairs.n,
        "success_b": (pairs.both + pairs.only_b) / pairs.n,
        **asdict(pairs),
        "ci95_method": "Newcombe's square-and-add for paired proportions",
        "p_value_method": "exact McNemar test, two-sided",
        "max_reward_difference": float(gains.mean()),
        "max_reward_difference_ci95": mean_interval(gains),
        "max_reward_ci95_method": "bootstrap (BCa, 9999 resamples of the pairs)",
    }


def require_same(summaries: Mapping[Path, Mapping[str, Any]], keys: Sequence[str], name: str) -> None:
    """`InputError` naming the first key, dotted, in which a folder's summary differs from the first folder's."""
    (first, expected), *others = summaries.items()
    for key in keys:
        for folder, summary in others:
            if value_at(summary, key) != value_at(expected, key):
                raise InputError(
                    f"{name}: expected one {key}, found {value_at(expected, key)!r} in {first}, "
                    f"{value_at(summary, key)!r} in {folder}"
                )


def value_at(summary: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None if it is missing."""
    value: Any = summary
    for part in key.split("."):
        value = (value or {}).get(part)
    return value


def comparison_table(found: dict[str, Any]) -> Table:
    table = Table(title=f"B - A, paired over {found['n']} starts in {found['env']}", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("A", str(found["a"]))
    table.add_row("B", str(found["b"]))
    if found["paraphrases_a"] != found["paraphrases_b"]:
        paraphrases = (found[key] or "none" for key in ("paraphrases_a", "paraphrases_b"))
        table.add_row("paraphrases of A / of B, which differ", " / ".join(paraphrases))
    table.add_row("success of A", percent(found["success_a"]))
    table.add_row("success of B", percent(found["success_b"]))
    table.add_row("difference in success", f"{100 * found['difference']:+.1f} %")
    table.add_row("  95 % interval", interval(found["ci95"], 100, 1) + " %")
    table.add_row("  exact McNemar test", f"p = {found['p_value']:.3g}")
    counts = (found["both"], found["only_a"], found["only_b"], found["neither"])
    table.add_row("both / only A / only B / neither", " / ".join(map(str, counts)))
    gain = f"{found['max_reward_difference']:+.3f}  {interval(found['max_reward_difference_ci95'])}"
    table.add_row("difference in max reward  [95 %]", gain)
    return table


def _by_seed(folder: Path) -> dict[int, dict[str, Any]]:
    rows = read_episodes(folder)
    by_seed = {int(row["seed"]): row for row in rows}
    if not rows or len(by_seed) != len(rows):
        raise InputError(f"{folder}/episodes.csv: expected one row a seed, found {len(rows)} for {len(by_seed)} seeds")
    return by_seed


def _few(seeds: list[int]) -> str:
    return f"({', '.join(map(str, seeds[:3]))}{', ...' if len(seeds) > 3 else ''})" if seeds else ""
