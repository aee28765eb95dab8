"""Reports of studies that are half done, or whose results are not all numbers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure as Canvas
from rich.console import Console

from vla_policy.interfaces import InputError
from vla_policy.lab import fits
from vla_policy.lab.report import efficiencies, efficiency_table, groups, report
from vla_policy.lab.run import RESULT, RUNS, STUDY
from vla_policy.lab.study import Efficiency, read_study

WANTED = Efficiency("recipe", "standard", "episodes")
AMOUNTS = (10, 20, 40)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "RESAMPLES", 50)


def row(recipe: str, episodes: int, loss: float | None, seed: int = 0, **levels: str) -> dict[str, Any]:
    levels = {"recipe": recipe, "episodes": str(episodes), **levels}
    return {"levels": levels, "seed": seed, "core_hours": 0.1, "val/loss": loss}


def law(amount: float, c: float = 0.1) -> float:
    return 2 / amount**0.5 + c


def standard(seeds: int = 1, **levels: str) -> list[dict[str, Any]]:
    return [row("standard", n, law(n) * (1 + 0.01 * seed), seed, **levels) for n in AMOUNTS for seed in range(seeds)]


def written(out: Path, rows: list[dict[str, Any]], **changes: object) -> Path:
    factors = {"recipe": {"standard": [], "strong": "a=1"}, "episodes": {n: f"n={n}" for n in AMOUNTS}}
    efficiency = {"factor": "recipe", "standard": "standard", "data": "episodes"}
    study = {"factors": factors, "seeds": [0, 1], "efficiency": efficiency, **changes}
    (out / STUDY).write_text(yaml.safe_dump(study, sort_keys=False))
    names = {(str(cell.levels), cell.seed): cell.name for cell in read_study(out / STUDY).cells()}
    for some in rows:
        folder = out / RUNS / names[str(some["levels"]), some["seed"]]
        folder.mkdir(parents=True)
        (folder / RESULT).write_text(json.dumps(some))
    return out


def test_a_half_finished_study_is_reported_without_an_efficiency(tmp_path: Path) -> None:
    rows = [row("standard", 10, 0.7), row("standard", 20, 0.5), row("strong", 10, 0.5)]
    study, found, paths = report(written(tmp_path, rows))
    (entry,) = found["data_efficiency"]
    assert (entry["times"], entry["ci95"]) == (None, None)
    assert entry["unavailable"] == "standard: power law: expected 3 or more amounts of data, found [10.0, 20.0]"
    assert all(path.is_file() for path in paths)
    console = Console(width=200, record=True)
    assert study.efficiency is not None
    console.print(efficiency_table(found["data_efficiency"], study.efficiency))
    assert entry["unavailable"] in " ".join(console.export_text().split())


def test_a_standard_recipe_that_failed_leaves_the_rest_of_the_report(tmp_path: Path) -> None:
    failed = row("standard", 10, None) | {"failed": "training stopped at step 7"}
    _, found, _ = report(written(tmp_path, [failed, row("strong", 10, 0.5)]))
    assert found["data_efficiency"][0]["unavailable"].endswith("found []")
    assert found["failed"] == {"recipe=standard,episodes=10,seed=0": "training stopped at step 7"}


def test_if_all_failed_the_reasons_are_said(tmp_path: Path) -> None:
    failed = row("standard", 10, None) | {"failed": "training stopped at step 7"}
    with pytest.raises(InputError, match=r"finished run, found recipe=standard,.*: training stopped at step 7"):
        report(written(tmp_path, [failed]))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        (
            {"efficiency": {"factor": "recipe", "standard": "standard", "data": "episodes", "y": "val/los"}},
            "efficiency.y",
        ),
        ({"figures": [{"y": "val/los", "x": "episodes"}]}, "figures.0.y"),
    ],
)
def test_a_result_that_no_run_has_is_named_with_those_there_are(tmp_path: Path, changes: dict, where: str) -> None:
    with pytest.raises(InputError, match=rf"study.yaml: {where}: expected one of \[.*'val/loss'\], found 'val/los'"):
        report(written(tmp_path, standard(), **changes))


def test_results_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    rows = [row("standard", 10, None), row("standard", 10, 0.7, seed=1)]
    assert groups(rows)[0]["val/loss"] == {"mean": 0.7, "low": 0.7, "high": 0.7}
    figure = {"y": "val/loss", "x": "episodes", "line": "recipe"}
    _, found, _ = report(written(tmp_path, [*rows, row("strong", 10, None)], figures=[figure]))
    assert found["data_efficiency"] == []
    assert "val/loss" not in found["groups"][1]


def test_a_picture_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(tmp_path, standard(), figures=[{"y": "val/loss", "x": "episodes"}])
    picture = report(out)[2][-1]
    before = picture.read_bytes()

    def interrupted(_: Canvas, target: Path, **__: object) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Canvas, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report(out)
    assert picture.read_bytes() == before


def test_a_third_factor_has_its_own_standard() -> None:
    narrow, wide = ({"width": width} for width in ("64", "128"))
    rows = [*standard(**narrow), *(row("standard", n, law(n, c=0.4), **wide) for n in AMOUNTS)]
    rows += [row("strong", 10, law(20), **narrow), row("strong", 10, law(40, c=0.4), **wide)]
    found = efficiencies(WANTED, rows)
    assert [(entry["others"], entry["data"]) for entry in found] == [(narrow, 10.0), (wide, 10.0)]
    assert [entry["times"] for entry in found] == pytest.approx([2.0, 4.0], rel=0.02)


def test_there_is_no_interval_below_two_seeds() -> None:
    (entry,) = efficiencies(WANTED, [*standard(), row("strong", 10, law(20)), row("strong", 10, law(21), seed=1)])
    assert entry["ci95"] is None
    (entry,) = efficiencies(WANTED, [*standard(2), row("strong", 10, law(20))])
    assert entry["ci95"] is None
    (entry,) = efficiencies(WANTED, [*standard(2), row("strong", 10, law(20)), row("strong", 10, law(21), seed=1)])
    low, high = entry["ci95"]
    assert 1.9 < low < entry["times"] < high < 2.2


def test_below_the_asymptote_the_interval_is_open(tmp_path: Path) -> None:
    rows = [*standard(2), row("strong", 10, 0.05), row("strong", 10, 0.06, seed=1)]
    study, found, _ = report(written(tmp_path, rows))
    (entry,) = found["data_efficiency"]
    assert entry["ci95"][1] == math.inf
    console = Console(width=200, record=True)
    assert study.efficiency is not None
    console.print(efficiency_table([entry], study.efficiency))
    assert "inf]" in console.export_text()


@pytest.mark.parametrize(
    ("losses", "expected"), [((law(30), law(30)), False), ((law(5), law(5)), True), ((law(39), law(60)), True)]
)
def test_extrapolation_is_seen_at_both_ends_and_from_all_seeds(losses: tuple[float, float], expected: bool) -> None:
    rows = [*standard(), *(row("strong", 10, loss, seed) for seed, loss in enumerate(losses))]
    assert efficiencies(WANTED, rows)[0]["extrapolated"] == expected
