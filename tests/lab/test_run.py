"""One run after the other or side by side: budgets, failures and what is kept of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from vla_policy.data import IMITATED
from vla_policy.interfaces import InputError
from vla_policy.lab import run
from vla_policy.lab.run import RESULT, RUNS, begin, imitated_windows, run_cell
from vla_policy.lab.study import Study
from vla_policy.rollouts.workers import RolloutError
from vla_policy.training.loop import TrainingDiverged

STUDY = {"factors": {"decay": {"none": "a=0", "some": "a=1", "much": "a=2", "more": "a=3"}}, "core_hours": 0.5}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "decay.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return begin(path, tmp_path)


def trains(monkeypatch: pytest.MonkeyPatch, **result: object) -> None:
    monkeypatch.setattr(run, "_train_and_evaluate", lambda *_: {"core_hours": 0.2, **result})


def raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "_train_and_evaluate", fails)


def test_results_of_other_overrides_are_not_mixed(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch)
    run_cell(study, 0, tmp_path, ["data.root=A"])
    assert run_cell(study, 0, tmp_path, ["data.root=A"]) is not None
    for cell in (0, 1):
        with pytest.raises(InputError, match=r"overrides \['data.root=B'\], found one with \['data.root=A'\]"):
            run_cell(study, cell, tmp_path, ["data.root=B"])


def test_runs_side_by_side_leave_room_for_one_another(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch)
    run_cell(study, 0, tmp_path)
    folders = [tmp_path / RUNS / cell.name for cell in study.cells()[1:]]
    with ThreadPoolExecutor(3) as pool:  # 0.2 of 0.5 core hours are spent, and a run costs 0.2
        locks = list(pool.map(lambda folder: run._admit(study, tmp_path, folder), folders))
    (lock,) = [lock for lock in locks if lock is not None]
    assert sum(folder.exists() for folder in folders) == 1
    lock.close()  # it was killed, and leaves its room to others
    trains(monkeypatch)
    assert run_cell(study, 3, tmp_path) is not None
    assert run_cell(study, 2, tmp_path) is None


def test_a_run_is_not_begun_twice_at_once(study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = run._admit(study, tmp_path, tmp_path / RUNS / study.cells()[0].name)
    assert lock is not None
    with lock:
        assert run_cell(study, 0, tmp_path) is None
    assert "seed=0: not begun, another process is at it" in caplog.text


def test_a_dead_simulation_leaves_the_run_to_be_continued(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raises(monkeypatch, RolloutError("worker 0 died", []))
    with pytest.raises(RolloutError):
        run_cell(study, 1, tmp_path)
    assert not (tmp_path / RUNS / study.cells()[1].name / RESULT).exists()
    trains(monkeypatch)
    assert run_cell(study, 1, tmp_path) is not None


def test_a_run_that_diverges_before_its_first_save_costs_what_it_took(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([100.0, 460.0])
    monkeypatch.setattr(run, "_processor_seconds", lambda: next(seconds))
    raises(monkeypatch, TrainingDiverged("training stopped at step 7"))
    kept = run_cell(study, 0, tmp_path)
    assert kept is not None
    assert kept["failed"] == "training stopped at step 7"
    assert kept["core_hours"] == pytest.approx(0.1)
    assert json.loads((tmp_path / RUNS / study.cells()[0].name / RESULT).read_text()) == kept


def test_the_study_is_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path, target: Path) -> None:
        target.write_text("title: ha")
        raise KeyboardInterrupt

    path = tmp_path / "decay.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    monkeypatch.setattr(run.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("imitated", "expected"), [([False, False, True, False, True, True], [2, 4]), (None, [0, 1])])
def test_operations_are_counted_on_windows_whose_actions_count(imitated: list | None, expected: list[int]) -> None:
    batch = {} if imitated is None else {IMITATED: torch.tensor(imitated)}

    class Windows(SimpleNamespace):
        def __len__(self) -> int:
            return 6

    assert imitated_windows(Windows(vectors=lambda _: batch), 2) == expected
