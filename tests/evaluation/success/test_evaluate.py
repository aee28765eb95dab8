"""One evaluation from policy to files, on the point environment."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from helpers.point_env import OwnScripted, PointEnv, Scripted

from vla_policy.evaluation.success.evaluate import EvalConfig, evaluate
from vla_policy.evaluation.success.report import read_episodes
from vla_policy.interfaces import InputError
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.workers import RolloutError
from vla_policy.utils.files import read_json

CONFIG = EvalConfig(n_episodes=4, seed=50000, num_envs=2, num_workers=1, videos=0, latency_repeats=5)
run = functools.partial(evaluate, config=CONFIG, checkpoint="scripted", task=PointEnv.task)


def test_summary_and_episodes_agree(tmp_path: Path) -> None:
    steps: list[int] = []
    callbacks = ProgressCallbacks(on_steps=steps.append)
    summary = run(Scripted(), PointEnv, out=tmp_path, callbacks=callbacks, timing={"threads": 1}, training={"seed": 7})
    rows = read_episodes(tmp_path)
    assert [row["seed"] for row in rows] == summary["seeds"] == [50000, 50001, 50002, 50003]
    assert summary["success_rate"] == 1.0
    assert summary["mean_steps"] == sum(row["steps"] for row in rows) / 4 == sum(steps) / 4
    assert (summary["chunk_ms"]["n"], summary["chunk_ms"]["threads"]) == (5, 1)
    assert (summary["training"], summary["policy_seed"]) == ({"seed": 7}, 0)
    assert read_json(tmp_path / "summary.json")["n_success"] == 4


def test_policies_of_the_workers_are_not_timed(tmp_path: Path) -> None:
    summary = run(OwnScripted(0), PointEnv, out=tmp_path, policy_factory=OwnScripted)
    assert summary["chunk_ms"] == {"p50": None, "p95": None}


def test_a_lost_worker_leaves_what_was_finished_and_no_summary(tmp_path: Path) -> None:
    run(Scripted(), PointEnv, out=tmp_path)
    (tmp_path / "best.mp4").touch()
    with pytest.raises(RolloutError, match="died"):
        run(Scripted(), functools.partial(PointEnv, kill_at_seed=50003), out=tmp_path)
    assert 0 < len(read_episodes(tmp_path)) < 4
    assert [path.name for path in tmp_path.iterdir()] == ["episodes.csv"]  # and nothing of the run before


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(InputError, match="videos: expected at least 0, found -1"):
        EvalConfig(videos=-1)
