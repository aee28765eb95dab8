"""Summaries, tables and comparisons of evaluations on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.evaluations import episode, write_run
from rich.console import Console

from vla_policy.evaluation.success.compare import compare, comparison_table
from vla_policy.evaluation.success.report import read_episodes, read_summary, summarize, summary_table, write_episodes
from vla_policy.interfaces import InputError

KEYS = [
    "n_episodes",
    "n_success",
    "success_rate",
    "success_ci95",
    "mean_max_reward",
    "mean_max_coverage",
    "mean_steps",
    "chunk_ms",
    "env",
    "task",
    "seed",
    "checkpoint",
    "git_commit",
]


def test_summary_has_what_readers_rely_on(tmp_path: Path) -> None:
    results = [episode(seed, success=seed < 50009, coverage=(seed - 50000) / 10) for seed in range(50000, 50010)]
    write_run(tmp_path, results)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(KEYS) <= summary.keys()
    assert (summary["n_episodes"], summary["n_success"], summary["success_rate"]) == (10, 9, 0.9)
    assert summary["success_ci95"] == pytest.approx([0.555, 0.998], abs=1e-3)
    assert summary["mean_max_coverage"] == pytest.approx(0.45)
    assert summary["mean_max_coverage_ci95"][0] < 0.45 < summary["mean_max_coverage_ci95"][1]
    assert summary["mean_steps"] == pytest.approx(104.5)
    assert summary["seeds"] == list(range(50000, 50010))


def test_one_episode_has_no_bootstrap_interval_and_json_stays_json(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(1, True)])
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["mean_steps_ci95"] == [None, None]


def test_no_episodes_are_no_summary() -> None:
    with pytest.raises(InputError, match="found none"):
        summarize([], env="pybullet", task="", seed=0, checkpoint="", chunk_ms=None)


def test_episodes_read_back_equal(tmp_path: Path) -> None:
    results = [episode(seed, seed % 2 == 0, coverage=seed / 7) for seed in range(1, 5)]
    write_episodes(tmp_path / "episodes.csv", results)
    rows = read_episodes(tmp_path)
    assert [row["seed"] for row in rows] == [1, 2, 3, 4]
    for row, result in zip(rows, results, strict=True):
        assert row["max_coverage"] == result.max_coverage
        assert (row["pusher_x"], row["pusher_y"]) == result.pusher
        assert (row["block_x"], row["block_y"], row["block_angle"]) == result.block_pose
        assert bool(row["success"]) == result.success


def test_table_shows_numbers_with_their_intervals(tmp_path: Path) -> None:
    results = [episode(seed, success=seed < 50009) for seed in range(50000, 50010)]
    summary = summarize(
        results, env="pybullet", task="", seed=50000, checkpoint="c", chunk_ms={"p50": 20.04, "p95": 31.0}
    )
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table({"policy": summary, "hold": {**summary, "chunk_ms": {"p50": None}}}, "20 episodes"))
    text = console.export_text()
    for words in ("9 / 10 = 90.0 %", "[55.5, 99.7] %", "20.0 / 31.0", "104.5"):
        assert words in text


def test_success_by_goal_and_by_instruction() -> None:
    told = {"red": "push the T to the red goal", "blue": "put the T on the [blue] goal"}
    results = [replace(episode(s, s % 4 > 0), goal=g, task=told[g]) for s in range(1, 21) for g in [list(told)[s % 2]]]
    summary = summarize(results, env="pybullet", task="", seed=1, checkpoint="c", chunk_ms=None)
    assert summary["instructions"] == {told["blue"]: 10, told["red"]: 10}
    assert (summary["by_goal"]["red"]["n"], summary["by_goal"]["red"]["n_success"]) == (10, 5)
    assert summary["by_goal"]["blue"]["success_ci95"] == pytest.approx([0.6915, 1.0], abs=1e-4)
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table({"policy": summary}, "by goal"))
    text = console.export_text()
    for words in ("success, red", "5 / 10  [18.7, 81.3] %", '"put the T on the [blue] goal"', "and 1 more"):
        assert words in text
    assert "names no goal" not in text
    console.print(summary_table({"policy": summary | {"episodes_naming_no_goal": 3}}, "by goal"))
    text = " ".join(console.export_text().split())
    assert "in 3 episodes it names no goal in the task's own words, and one was drawn" in text


def test_files_from_before_there_were_goals_are_read(tmp_path: Path) -> None:
    write_episodes(tmp_path / "episodes.csv", [replace(episode(1, True), goal="red", task="push, then stop")])
    (row,) = read_episodes(tmp_path)
    assert (row["goal"], row["task"]) == ("red", "push, then stop")
    lines = (tmp_path / "episodes.csv").read_text().replace('"push, then stop",red,', "").replace("task,goal,", "")
    (tmp_path / "episodes.csv").write_text(lines)
    (row,) = read_episodes(tmp_path)
    assert (row["goal"], row["task"], row["success"]) == ("", "", 1.0)


def test_a_seed_is_paired_with_its_own_goal(tmp_path: Path) -> None:
    red, single = replace(episode(1, True), goal="red"), episode(1, False)
    a = write_run(tmp_path / "a", [red])
    assert compare(a, write_run(tmp_path / "single", [single]))["n"] == 1
    with pytest.raises(InputError, match=r"one goal for seed 1, found 'red' in .*, 'blue' in"):
        compare(a, write_run(tmp_path / "b", [replace(red, goal="blue")]))


def test_a_comparison_reports_different_paraphrases(tmp_path: Path) -> None:
    results = [episode(s, True) for s in range(1, 5)]
    a = write_run(tmp_path / "a", results, paraphrases="training")
    same = compare(a, write_run(tmp_path / "same", results, paraphrases="training"))
    other = compare(a, write_run(tmp_path / "other", results, paraphrases="held_out"))
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(same))
    assert "paraphrases" not in console.export_text()
    console.print(comparison_table(other))
    assert "training / held_out" in console.export_text()
    assert (other["paraphrases_a"], other["paraphrases_b"]) == ("training", "held_out")


def test_comparison_pairs_the_seeds(tmp_path: Path) -> None:
    a = [episode(s, s < 12, 0.5) for s in range(1, 26)]
    b = [episode(s, s < 10 or 13 <= s < 21, 0.6) for s in range(1, 26)]
    found = compare(write_run(tmp_path / "a", a), write_run(tmp_path / "b", list(reversed(b))))
    assert [found[key] for key in ("n", "both", "only_a", "only_b", "neither")] == [25, 9, 2, 8, 6]
    assert found["success_a"] == pytest.approx(11 / 25)
    assert found["difference"] == pytest.approx(6 / 25)
    assert found["p_value"] == pytest.approx(2 * 56 / 1024)
    assert found["max_reward_difference"] == pytest.approx(0.1 / 0.95)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(found))
    assert "+24.0 %" in console.export_text()


def test_comparison_refuses_what_is_not_paired(tmp_path: Path) -> None:
    results = [episode(s, True) for s in range(1, 5)]
    a = write_run(tmp_path / "a", results)
    with pytest.raises(InputError, match=r"expected one env, found 'pybullet'.*'gym_pusht'"):
        compare(a, write_run(tmp_path / "env", results, env="gym_pusht"))
    with pytest.raises(InputError, match=r"expected the same seeds, found 1 only in .*\(1\) and 0"):
        compare(a, write_run(tmp_path / "seeds", results[1:]))
    moved = [replace(results[0], pusher=(0.0, 0.0)), *results[1:]]
    with pytest.raises(InputError, match="same start for seed 1"):
        compare(a, write_run(tmp_path / "moved", moved))
    with pytest.raises(InputError, match=r"nowhere.*summary\.json"):
        compare(a, tmp_path / "nowhere")
    (tmp_path / "moved" / "episodes.csv").write_text("seed,success\n1,1\n")
    with pytest.raises(InputError, match=r"episodes\.csv: expected the columns"):
        compare(a, tmp_path / "moved")


def test_refused_episodes_are_a_column_and_a_row_and_older_files_are_read(tmp_path: Path) -> None:
    results = [replace(episode(7, False), refused=True), episode(8, True)]
    refusals = {"n": 2, "n_refused": 1, "refusal_rate": 0.5, "refusal_ci95": [0.0126, 0.987]}
    folder = write_run(tmp_path / "run", results, refusals=refusals)
    assert [row["refused"] for row in read_episodes(folder)] == [1.0, 0.0]
    console = Console(record=True, width=100)
    console.print(summary_table({"policy": read_summary(folder)}, "title"))
    (row,) = [line for line in console.export_text().splitlines() if "refused to start" in line]
    assert "1 / 2  [1.3, 98.7] %" in row
    path = folder / "episodes.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    place = rows[0].index("refused")
    path.write_text("\n".join(",".join(row[:place] + row[place + 1 :]) for row in rows) + "\n")
    assert [row["refused"] for row in read_episodes(folder)] == [0.0, 0.0]
