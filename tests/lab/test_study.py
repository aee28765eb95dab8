"""Studies as files: combinations, mistakes, budgets, and results that are reported."""

import json
from pathlib import Path

import pytest
import yaml

from vla_policy.interfaces import InputError
from vla_policy.lab import fits
from vla_policy.lab.report import report, results_table
from vla_policy.lab.run import RESULT, RUNS, begin, run_cell, trajectory
from vla_policy.lab.study import read_study
from vla_policy.models import PolicyConfig
from vla_policy.utils.configuration import load_config

FACTORS = {
    "recipe": {"standard": [], "strong": "trainer.weight_decay=1.0"},
    "episodes": {10: "data.n_episodes=10", 20: ["data.n_episodes=20"], 40: "data.n_episodes=40"},
}
STUDY = {
    "title": "Decay",
    "overrides": ["scene=pusht"],
    "factors": FACTORS,
    "seeds": [3, 4],
    "core_hours": 2.0,
    "figures": [{"y": "success_rate", "x": "episodes", "line": "recipe", "fit": True}],
    "efficiency": {"factor": "recipe", "standard": "standard", "data": "episodes"},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "decay.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def finished(out: Path, name: str, levels: dict, seed: int, **result: object) -> None:
    folder = out / RUNS / name
    folder.mkdir(parents=True)
    words = [*STUDY["overrides"], *(word for factor, level in levels.items() for word in words_of(factor, level))]
    about = {"levels": levels, "seed": seed, "core_hours": 0.1, "overrides": words, "given": []}
    (folder / RESULT).write_text(json.dumps({**about, **result}))


def words_of(factor: str, level: str) -> list[str]:
    words = {str(key): value for key, value in FACTORS.get(factor, {}).items()}.get(level, [])
    return [words] if isinstance(words, str) else words


def test_every_combination_of_the_first_seed_comes_first(tmp_path: Path) -> None:
    cells = read_study(written(tmp_path)).cells()
    assert len(cells) == 2 * 3 * 2
    assert [cell.seed for cell in cells] == [3] * 6 + [4] * 6
    assert cells[4].name == "recipe=strong,episodes=20,seed=3"
    assert cells[4].overrides == ["trainer.weight_decay=1.0", "data.n_episodes=20"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, r"seeds: expected one or more different numbers from 0 on, found \[1, 1\]"),
        ({"core_hours": 0}, "core_hours: expected a number above 0"),
        ({"factors": {"recipe": {}}}, "factors.recipe: expected levels"),
        (
            {"factors": {"recipe": {"a": "wild"}}},
            "factors.recipe.a: expected key=value or a list of them, found 'wild'",
        ),
        ({"figures": [{"y": "val/loss", "x": "width"}]}, r"figures.0.x: expected one of the factors .*found 'width'"),
        (
            {"efficiency": {"factor": "recipe", "standard": "plain", "data": "episodes"}},
            r"efficiency.standard: expected",
        ),
        ({"budget": 3}, "Key 'budget' not in 'Study'"),
        ({"seeds": [-1]}, r"seeds: expected one or more different numbers from 0 on, found \[-1\]"),
        ({"overrides": ["abc"]}, r"overrides: expected key=value or a list of them, found \['abc'\]"),
        ({"evaluate": ["abc"]}, r"evaluate: expected key=value or a list of them, found \['abc'\]"),
        (
            {"factors": {**FACTORS, "width": {"x/y": "a=1", "x_y": "a=2"}}},
            "factors: expected a folder name for each run, found 2 runs named '.*width=x_y,seed=3'",
        ),
        (
            {"figures": [{"y": "val/loss", "x": "recipe"}]},
            r"figures.0.x: expected a factor with levels that are numbers above 0, found 'standard' in 'recipe'",
        ),
        (
            {"efficiency": {"factor": "recipe", "standard": "standard", "data": "recipe"}},
            r"efficiency.data: expected a factor with levels that are numbers above 0, found 'standard' in 'recipe'",
        ),
        (
            {"objectives": {"factor": "objective"}},
            r"objectives.factor: expected one of the factors .*found 'objective'",
        ),
        (
            {"objectives": {"factor": "recipe", "comparable": ["weak"]}},
            r"objectives.comparable: expected one of \['standard', 'strong'\], found 'weak'",
        ),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=rf"decay.yaml: {message}"):
        read_study(written(tmp_path, **changes))


@pytest.mark.parametrize(("one", "other", "name"), [("0.1", "0.10", "0.1"), ("10", "'10'", "10"), ("a", "a", "a")])
def test_levels_that_are_the_same_are_refused(tmp_path: Path, one: str, other: str, name: str) -> None:
    path = tmp_path / "decay.yaml"
    path.write_text(f"factors:\n  decay:\n    {one}: a=1\n    {other}: a=2\n")
    with pytest.raises(InputError, match=rf"decay.yaml: line 4: expected every key once, found '{name}' again"):
        read_study(path)


def test_a_level_of_zero_needs_a_linear_axis(tmp_path: Path) -> None:
    figure = {"y": "val/loss", "x": "decay"}
    changes = {"factors": {"decay": {0: "a=0", 1: "a=1"}}, "efficiency": None}
    read_study(written(tmp_path, figures=[{**figure, "log": False}], **changes))
    with pytest.raises(InputError, match="numbers above 0, found '0' in 'decay'"):
        read_study(written(tmp_path, figures=[figure], **changes))


def test_interpolations_are_left_to_the_training(tmp_path: Path) -> None:
    word = "policy.horizon=${scene.horizon}"
    study = read_study(written(tmp_path, overrides=[word], factors={**FACTORS, "h": {"1": word, "2": [word]}}))
    assert study.overrides == [word]
    assert study.cells()[0].overrides == ["data.n_episodes=10", word]


def test_a_folder_keeps_to_its_study(tmp_path: Path) -> None:
    begin(written(tmp_path), tmp_path / "out")
    begin(written(tmp_path), tmp_path / "out")
    with pytest.raises(InputError, match="holds another study"):
        begin(written(tmp_path, title="Other"), tmp_path / "out")


def test_nothing_is_begun_beyond_the_budget_and_nothing_done_twice(tmp_path: Path) -> None:
    study = begin(written(tmp_path, core_hours=0.25), tmp_path / "out")
    cells = study.cells()
    finished(tmp_path / "out", cells[0].name, cells[0].levels, 3)
    finished(tmp_path / "out", cells[1].name, cells[1].levels, 3, failed="training stopped at step 7")
    old = tmp_path / "out" / RUNS / cells[0].name / RESULT  # as it was before results told their overrides apart
    result = json.loads(old.read_text())
    del result["given"]
    old.write_text(json.dumps({**result, "overrides": [*result["overrides"], "seed=3", "run_dir=somewhere"]}))
    kept = run_cell(study, 1, tmp_path / "out")
    assert kept is not None
    assert kept["failed"] == "training stopped at step 7"
    assert run_cell(study, 2, tmp_path / "out") is None  # 0.2 spent, the dearest cost 0.1
    assert not (tmp_path / "out" / RUNS / cells[2].name).exists()


def test_the_report_keeps_training_seeds_apart_from_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "RESAMPLES", 50)
    out = tmp_path / "out"
    study = begin(written(tmp_path), out)
    for cell in study.cells():
        amount, strong = float(cell.levels["episodes"]), cell.levels["recipe"] == "strong"
        loss = 2 / (amount * (3 if strong else 1)) ** 0.5 + 0.1  # strong: as with three times the data
        successes = 40 + 10 * (cell.seed == 4)
        more = {"n_episodes": 100, "n_success": successes, "success_rate": successes / 100, "val/loss": loss}
        finished(out, cell.name, cell.levels, cell.seed, **more)
    _, found, paths = report(out)
    first = found["groups"][0]
    assert first["success_rate"] == {"mean": pytest.approx(0.45), "low": 0.4, "high": 0.5}
    assert (first["success"]["n_success"], first["success"]["n_episodes"]) == (90, 200)
    assert first["success"]["ci95"] == pytest.approx([0.3797, 0.5217], abs=2e-3)
    for entry in found["data_efficiency"]:
        assert entry["times"] == pytest.approx(3.0, rel=0.02)
        assert entry["extrapolated"] == (entry["data"] > 14)
    assert all(path.stat().st_size > 0 for path in paths)
    assert [path.name for path in paths] == ["results.csv", "report.json", "figure_0.png"]
    assert results_table(study, found).row_count == 6
    with pytest.raises(InputError, match=r"expected a folder that `vla-lab run` has made, found no study.yaml"):
        report(tmp_path)


def test_along_a_run_steps_become_epochs_or_operations(tmp_path: Path) -> None:
    study = begin(written(tmp_path), tmp_path)
    cell = study.cells()[0]
    training = tmp_path / RUNS / cell.name / "training"
    training.mkdir(parents=True)
    (training / "metrics.csv").write_text("step,metric,value\n10,val/loss,1.5\n10,train/loss,1.0\n20,val/loss,1.25\n")
    row = {"levels": cell.levels, "seed": cell.seed, "batch_size": 32, "windows": 64, "flops_per_step": 1000}
    assert trajectory(row, "epochs", "val/loss", tmp_path) == [(5.0, 1.5), (10.0, 1.25)]
    assert trajectory(row, "flops", "val/loss", tmp_path) == [(10_000, 1.5), (20_000, 1.25)]
    with pytest.raises(InputError, match=r"study.yaml: y: expected one of .*found 'val/los'"):
        trajectory(row, "epochs", "val/los", tmp_path)


SHIPPED = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_level_of_the_shipped_studies_composes(path: Path) -> None:
    study = read_study(path)
    first = {factor: next(iter(levels)) for factor, levels in study.factors.items()}
    wanted = [first | {factor: level} for factor, levels in study.factors.items() for level in levels]
    for cell in study.cells():
        if cell.seed == study.seeds[0] and cell.levels in wanted:
            config = load_config("train", [*study.overrides, *cell.overrides, "data.root=none", f"seed={cell.seed}"])
            PolicyConfig.from_dict(config.policy)
