"""One cell of a study: an ordinary training, resumed where it stopped, then its evaluation and its result."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vla_policy.data import IMITATED
from vla_policy.evaluation.success.checkpoint import evaluate_checkpoint
from vla_policy.interfaces import InputError
from vla_policy.jobs.trainer import make_trainer
from vla_policy.lab.members import ENSEMBLE, TRAINING, card_of, core_minutes, trained, without_ensemble
from vla_policy.lab.study import Cell, Study, read_study
from vla_policy.models import DiffusionPolicy
from vla_policy.models.checkpoint import POLICY, read_checkpoint
from vla_policy.training import FrozenWindows, Trainer, TrainingWindows, validate_policy
from vla_policy.training.loop import TrainingDiverged
from vla_policy.utils.configuration import load_config
from vla_policy.utils.files import read_json, write_json, write_whole
from vla_policy.utils.locks import lock_file

log = logging.getLogger(__name__)

STUDY, RUNS, RESULT = "study.yaml", "runs", "result.json"
LOCK = ".lock"  # held while the budget is looked at, and in a run's folder while it goes on
MEASURED = ("n_episodes", "n_success", "success_rate", "success_ci95", "mean_max_reward", "mean_max_reward_ci95")


def begin(path: Path, out: Path) -> Study:
    """The study of a file, kept in `out` for resumption and report; `InputError` if `out` has another one."""
    study = read_study(path)
    kept = out / STUDY
    if kept.is_file() and read_study(kept) != study:
        raise InputError(f"out: {out} holds another study than {path}; name another folder with out=")
    if not kept.is_file():
        write_whole(kept, lambda temporary: shutil.copyfile(path, temporary))
    return study


def run_cell(study: Study, number: int, out: Path, overrides: Sequence[str] = ()) -> dict[str, Any] | None:
    """Train and evaluate the cell with this number, or go on where it stopped; its result, None if the budget is spent,
    another process is at it, or its teacher has no result yet.

    A cell that has a result is not run again; `InputError` if one in `out` is of other `overrides` of vla-train, which
    come last. A training that diverges is a result too: `failed` says why, and its students never run. Other failures,
    as that of a worker of the simulation, leave the run to be continued.
    """
    _require_same(study, out, overrides)
    cell = study.cells()[number]
    folder = out / RUNS / cell.name
    if (folder / RESULT).is_file():
        return dict(read_json(folder / RESULT))
    taught_by = study.teacher(cell)
    teacher = None if taught_by is None else _teacher(taught_by, out)
    if taught_by is not None and teacher is None:
        log.warning("%s: not begun, its teacher %s has no checkpoint yet", cell.name, taught_by.name)
        return None
    lock = _admit(study, out, folder)
    if lock is None:
        return None
    with lock:
        log.info("%s: %s", out.name, cell.name)
        words = [*study.overrides, *cell.overrides, *overrides]
        words += [] if teacher is None else [f"distill.teacher={teacher}"]
        about = {"levels": cell.levels, "seed": cell.seed, "overrides": words, "given": list(overrides)}
        spent, before = core_hours(folder), _processor_seconds()
        try:
            result = about | _train_and_evaluate(study, folder, words, cell.seed)
        except TrainingDiverged as error:  # its last steps are in no checkpoint
            hours = spent + (_processor_seconds() - before) / 3600
            result = about | {"failed": str(error), "core_hours": hours}
        write_json(folder / RESULT, result)
        return result


def _require_same(study: Study, out: Path, overrides: Sequence[str]) -> None:
    """`InputError` if results in `out` are of other overrides than these."""
    for cell in study.cells():
        path = out / RUNS / cell.name / RESULT
        if path.is_file():
            result = read_json(path)
            before = len(study.overrides) + len(cell.overrides)
            given = result.get("given", result["overrides"][before:-2])  # older results end with seed and run_dir
            if given != list(overrides):
                raise InputError(
                    f"{path}: expected a result with the overrides {list(overrides)}, found one with {given}; "
                    "name another folder with out="
                )


def core_hours(folder: Path) -> float:
    """What a run has cost so far: of its result or, before there is one, of its last saved checkpoint."""
    if (folder / RESULT).is_file():
        return float(read_json(folder / RESULT)["core_hours"])
    return core_minutes(folder) / 60


def _teacher(cell: Cell, out: Path) -> Path | None:
    """The checkpoint of a cell that others learn from; None if it has no result, or has diverged."""
    folder = out / RUNS / cell.name
    if not (folder / RESULT).is_file() or "failed" in read_json(folder / RESULT):
        return None
    joined = folder / ENSEMBLE
    return joined if joined.is_dir() else folder / TRAINING / "checkpoints" / "last"


def _train_and_evaluate(study: Study, folder: Path, words: list[str], seed: int) -> dict[str, Any]:
    checkpoint = trained(words, seed, folder)
    parts, card = read_checkpoint(checkpoint, POLICY), card_of(checkpoint)
    plain, members = without_ensemble(words)
    trainer = _uncompiled([*plain, f"seed={seed}"], folder)
    found: dict[str, Any] = {
        "parameters": sum(_count(stored.shape) for stored in parts.header.values()),
        "windows": card["data"]["windows"],
        "batch_size": card["training"]["batch_size"],
        "flops_per_step": members * training_flops(trainer),
        **(_last_metrics(folder) if members == 1 else _validated(checkpoint, trainer)),
    }
    hours = core_minutes(folder) / 60
    if study.evaluate is not None:
        before = _processor_seconds()
        summary = evaluate_checkpoint(checkpoint, [*study.evaluate, f"out={folder / 'evaluation'}"])
        found |= {key: summary[key] for key in MEASURED} | {"failure_rate": 1.0 - summary["success_rate"]}
        hours += (_processor_seconds() - before) / 3600
    return found | {"core_hours": hours}


def _last_metrics(folder: Path) -> dict[str, float]:
    return {name: values[-1][1] for name, values in read_metrics(folder).items() if values}


def _validated(ensemble: Path, trainer: Trainer) -> dict[str, float]:
    """What a training writes of a single policy, of all members together."""
    if trainer.val_windows is None:
        return {}
    policy = DiffusionPolicy.from_pretrained(ensemble).to(trainer.accelerator.device)
    return validate_policy(policy, trainer.val_windows, trainer.config.val_windows)


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of all that a run's metrics.csv has, by name; `InputError` for an ensemble, which has none."""
    found: dict[str, list[tuple[int, float]]] = {}
    path = folder / TRAINING / "metrics.csv"
    if not path.is_file():
        raise InputError(f"{path}: expected the metrics of a single training, found none")
    for line in path.read_text().splitlines()[1:]:
        step, name, value = line.split(",")
        found.setdefault(name, []).append((int(step), float(value)))
    return found


def trajectory(row: Mapping[str, Any], x: str, y: str, out: Path) -> list[tuple[float, float]]:
    """(epochs or FLOPs, value) of each validation of a run; `InputError` if it has no `y`."""
    metrics = read_metrics(out / RUNS / Cell(row["levels"], row["seed"], []).name)
    if y not in metrics:
        raise InputError(f"{out / STUDY}: y: expected one of {sorted(metrics)}, found {y!r}")
    scale = row["batch_size"] / row["windows"] if x == "epochs" else row["flops_per_step"]
    return [(step * scale, value) for step, value in metrics[y]]


def training_flops(trainer: Trainer) -> int:
    """Floating-point operations of one step, as torch counts them where nothing is compiled: forward and backward, and
    where it learns from a teacher the teacher's passes too.

    All windows of the step are taken as imitated. What a frozen backbone has stored of them is not computed again.
    """
    model, chosen = trainer.model, imitated_windows(trainer.windows, 2)
    assert isinstance(model, DiffusionPolicy)
    batch = trainer.windows.__getitems__(chosen)
    with FlopCounterMode(display=False) as counter:
        if trainer.annotate is not None:  # which may sample the teacher's chunks
            batch = {**batch, **trainer.annotate(batch, np.random.default_rng(0))}
        loss, _ = model.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
    return round(counter.get_total_flops() * trainer.config.batch_size / len(chosen))


def _uncompiled(words: Sequence[str], folder: Path) -> Trainer:
    """A training like those of a run, set up once more, data included."""
    config = load_config("train", [*words, f"run_dir={folder / TRAINING}", "trainer.compile=false"])
    return make_trainer(config, folder / TRAINING)


def imitated_windows(windows: TrainingWindows, count: int) -> list[int]:
    """The first windows whose actions are imitated, up to `count`: those of play do not reach the action head."""
    inner = windows.windows if isinstance(windows, FrozenWindows) else windows
    imitated = inner.vectors(range(len(inner))).get(IMITATED)
    places = range(len(windows)) if imitated is None else imitated.nonzero().flatten().tolist()
    return list(places[:count])


def _admit(study: Study, out: Path, folder: Path) -> IO[str] | None:
    """The lock to hold during this run, None if another process has it or the budget has no room for it.

    A run that is going on counts as much as the dearest finished one, or what it has cost already if that is more, so
    that runs side by side leave room for one another. What the first ones will cost is not known before one has ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a") as budget:
        fcntl.flock(budget, fcntl.LOCK_EX)
        if _is_running(folder):
            log.warning("%s: not begun, another process is at it", folder.name)
            return None
        folders = [path for path in (out / RUNS).glob("*") if path.is_dir() and path != folder]
        dearest = max((core_hours(path) for path in folders if (path / RESULT).is_file()), default=0.0)
        going_on = [folder, *(path for path in folders if _is_running(path))]
        charged = sum(max(core_hours(path), dearest) for path in going_on)
        charged += sum(core_hours(path) for path in folders if path not in going_on)
        if charged > study.core_hours:
            log.warning("%s: not begun, the budget of %g core hours would be exceeded", folder.name, study.core_hours)
            return None
        return lock_file(folder / LOCK, "process of this run")


def _is_running(folder: Path) -> bool:
    if (folder / RESULT).is_file() or not (folder / LOCK).is_file():
        return False
    try:
        lock_file(folder / LOCK, "process of this run").close()
    except InputError:
        return True
    return False


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _count(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def read_results(out: Path) -> list[dict[str, Any]]:
    """The results that a study has so far, in the order of its cells."""
    study = read_study(out / STUDY)
    paths = [out / RUNS / cell.name / RESULT for cell in study.cells()]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]
