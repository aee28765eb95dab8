"""Objectives whose runs are known curves."""

from pathlib import Path
from typing import Any

import pytest

from vla_policy.lab import objectives
from vla_policy.lab.fits import RepeatedData
from vla_policy.lab.objectives import compare_objectives, draw_frontiers, objectives_tables
from vla_policy.lab.run import RUNS, TRAINING
from vla_policy.lab.study import Cell, Objectives

WANTED = Objectives("objective", ["autoregressive", "masked"])
STEPS = (10, 20, 40, 80)


def trained(out: Path, objective: str, losses: list[float], seed: int = 0, **more: float) -> dict[str, Any]:
    levels = {"objective": objective}
    folder = out / RUNS / Cell(levels, seed, []).name / TRAINING
    folder.mkdir(parents=True)
    lines = [f"{step},val/loss,{loss}" for step, loss in zip(STEPS, losses, strict=True)]
    (folder / "metrics.csv").write_text("\n".join(["step,metric,value", *lines, ""]))
    sizes = {"parameters": 100, "windows": 20, "batch_size": 2, "flops_per_step": 1000}
    return {"levels": levels, "seed": seed, **sizes, **more}


def test_one_objective_overfits_and_the_other_overtakes_it(tmp_path: Path) -> None:
    rows = [
        trained(tmp_path, "autoregressive", [3.0, 2.0, 2.2, 2.6]),
        trained(tmp_path, "masked", [5.0, 4.0, 1.9, 1.5]),
        trained(tmp_path, "flow", [0.4, float("nan"), 0.2, 0.3]),
    ]
    found = compare_objectives(WANTED, rows, tmp_path)
    lowest = {run["level"]: (run["epochs"], run["loss"], run["overfits"]) for run in found["runs"]}
    assert lowest == {"autoregressive": (2.0, 2.0, True), "masked": (8.0, 1.5, False), "flow": (4.0, 0.2, True)}
    assert found["overtaken"] == [{"level": "autoregressive", "by": "masked", "windows": 20, "flops": 40_000}]
    frontiers = {entry["level"]: entry["flops_and_loss"] for entry in found["frontiers"]}
    assert frontiers["autoregressive"] == [(10_000, 3.0), (20_000, 2.0)]
    assert found["repeated_data"][0]["r"] is None
    assert "expected 7 or more runs" in found["repeated_data"][0]["unavailable"]
    draw_frontiers(WANTED, found["frontiers"]).savefig(tmp_path / "objectives.png")
    assert [table.row_count for table in objectives_tables(found, WANTED)] == [3, 3]


def test_objectives_are_compared_on_the_same_data_alone(tmp_path: Path) -> None:
    rows = [
        trained(tmp_path, "autoregressive", [3.0, 2.0, 2.2, 2.6]),
        trained(tmp_path, "masked", [2.0, 1.9, 1.8, 1.5], windows=200),
    ]
    assert compare_objectives(WANTED, rows, tmp_path)["overtaken"] == []


def test_the_worth_of_repeated_data_has_an_interval_over_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "RESAMPLES", 20)
    law, rows = RepeatedData(20.0, 0.3, 40.0, 0.5, 0.5, 15.0), []
    for parameters in (1e4, 1e5):
        for windows in (1000, 4000, 16000):
            for epochs in (2.0, 10.0, 60.0):
                losses = [float(law(parameters, windows, epochs * step / STEPS[-1])) for step in STEPS]
                sizes = {"parameters": parameters, "windows": windows, "batch_size": windows * epochs / STEPS[-1]}
                rows.append(trained(tmp_path, "masked", losses, len(rows), **sizes))
    (found,) = compare_objectives(WANTED, rows, tmp_path)["repeated_data"]
    assert found["r"] == pytest.approx(15.0, rel=0.05)
    low, high = found["ci95"]
    assert low <= 15.5
    assert high >= 14.5
