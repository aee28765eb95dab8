"""The objectives side by side, from evaluation folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.evaluations import episode, write_run
from rich.console import Console

from vla_policy.evaluation.success.compare import compare
from vla_policy.evaluation.success.objectives import gather_objectives, objectives_table
from vla_policy.interfaces import InputError

FLOW = {"name": "flow", "sampler": "euler", "passes": 10}
MASKED = {"name": "masked", "sampler": "greedy", "passes": 8}
CHECKPOINT: dict[str, Any] = {
    "data": {"dataset": "expert", "demonstrations": 200},
    "training": {"steps": 18000, "batch_size": 64, "seed": 0, "git_commit": "a"},
    "parameters": 1_560_000,
    "policy_seed": 0,
    "chunk_ms": {"p50": 20.0, "p95": 30.0, "device": "cpu", "threads": 1},
}


def run(folder: Path, objective: dict[str, Any], successes: int, **more: Any) -> Path:
    results = [episode(seed, seed <= successes) for seed in range(1, 26)]
    return write_run(folder, results, objective=objective, **{**CHECKPOINT, **more})


def test_rows_keep_their_order_and_are_set_against_the_first(tmp_path: Path) -> None:
    flow = run(tmp_path / "flow", FLOW, 12)
    # What may differ: the objective, its size and speed, and the commit that it was trained at.
    other = {**CHECKPOINT["training"], "git_commit": "b"}
    timed = {**CHECKPOINT["chunk_ms"], "p50": 25.0}
    masked = run(tmp_path / "masked", MASKED, 18, parameters=1_700_000, training=other, chunk_ms=timed)
    found = gather_objectives([masked, flow])
    first, second = found["runs"]
    assert (first["objective"], second["objective"]) == (MASKED, FLOW)
    assert (first["parameters"], second["chunk_ms"]["p50"]) == (1_700_000, 20.0)
    assert first["minus_first"] is None
    paired = compare(masked, flow)
    assert second["minus_first"] == {key: paired[key] for key in ("difference", "ci95", "p_value")}
    assert second["minus_first"]["difference"] == pytest.approx(-6 / 25)
    assert found["same"]["training.steps"] == 18000
    assert found["same"]["data.demonstrations"] == 200

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(objectives_table(found))
    text = console.export_text()
    for words in ("18000 steps of batch 64", "masked", "greedy, 8 passes", "12 / 25 = 48.0 %", "25.0 / 30.0", "1.70 M"):
        assert words in text
    assert "minus masked" in text
    assert "-24.0 %" in text


def test_a_run_without_a_latency_has_none_in_the_table(tmp_path: Path) -> None:
    untimed = {"p50": None, "p95": None, "device": "cpu", "threads": 1}
    found = gather_objectives([run(tmp_path / "oracle", FLOW, 12, chunk_ms=untimed)])
    assert list(objectives_table(found).columns[3].cells) == ["-"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": {**CHECKPOINT["data"], "demonstrations": 100}}, "one data.demonstrations, found 200 in"),
        ({"data": {**CHECKPOINT["data"], "windows": 7}}, "one data.windows, found None in .*, 7 in"),
        ({"training": {**CHECKPOINT["training"], "steps": 9000}}, "one training.steps, found 18000 in .*, 9000 in"),
        ({"training": {**CHECKPOINT["training"], "batch_size": 32}}, "one training.batch_size, found 64 in .*, 32 in"),
        ({"training": {**CHECKPOINT["training"], "seed": 1}}, "one training.seed, found 0 in .*, 1 in"),
        ({"env": "gym_pusht"}, "one env, found 'pybullet' in .*, 'gym_pusht' in"),
        ({"task": "stack"}, "one task, found 'push' in .*, 'stack' in"),
        ({"seed": 5}, "one seed, found 1 in .*, 5 in"),
        ({"chunk_ms": {"p50": 1.0, "p95": 1.0, "device": "GPU", "threads": 1}}, "one chunk_ms.device, found 'cpu' in"),
        (
            {"objective": None},
            "other/summary.json: expected 'objective', as vla-eval writes of a checkpoint, found none",
        ),
    ],
)
def test_what_the_table_claims_to_be_equal_is(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    flow = run(tmp_path / "flow", FLOW, 12)
    with pytest.raises(InputError, match=message):
        gather_objectives([flow, run(tmp_path / "other", **{"objective": MASKED, "successes": 12, **more})])


def test_other_starts_are_refused(tmp_path: Path) -> None:
    flow = run(tmp_path / "flow", FLOW, 12)
    fewer = write_run(tmp_path / "fewer", [episode(1, True)], objective=MASKED, **CHECKPOINT)
    with pytest.raises(InputError, match=r"one n_episodes, found 25 in .*, 1 in"):
        gather_objectives([flow, fewer])
    moved = run(tmp_path / "moved", MASKED, 12)
    rows = (moved / "episodes.csv").read_text().splitlines()
    (moved / "episodes.csv").write_text("\n".join([*rows[:-1], rows[-1].rpartition(",")[0] + ",1.5"]) + "\n")
    with pytest.raises(InputError, match="expected the same start for seed 25"):
        gather_objectives([flow, moved])
