"""One cell of a study: an ordinary training, resumed where it stopped, then its evaluation and its result."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vla_policy.evaluation.success.checkpoint import evaluate_checkpoint
from vla_policy.interfaces import Failure, InputError
from vla_policy.jobs.train import train
from vla_policy.jobs.trainer import make_trainer
from vla_policy.lab.study import Study, read_study
from vla_policy.models import DiffusionPolicy
from vla_policy.models.checkpoint import POLICY, read_checkpoint
from vla_policy.utils.configuration import load_config
from vla_policy.utils.files import read_json, write_json

log = logging.getLogger(__name__)

STUDY, RUNS, RESULT, TRAINING = "study.yaml", "runs", "result.json", "training"
MEASURED = ("n_episodes", "n_success", "success_rate", "success_ci95", "mean_max_reward", "mean_max_reward_ci95")


def begin(path: Path, out: Path) -> Study:
    """The study of a file, kept in `out` for resumption and report; `InputError` if `out` has another one."""
    study = read_study(path)
    kept = out / STUDY
    if kept.is_file() and read_study(kept) != study:
        raise InputError(f"out: {out} holds another study than {path}; name another folder with out=")
    out.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        shutil.copyfile(path, kept)
    return study


def run_cell(study: Study, number: int, out: Path, overrides: Sequence[str] = ()) -> dict[str, Any] | None:
    """Train and evaluate the cell with this number, or go on where it stopped; its result, None if the budget is spent.

    A cell that has a result is not run again. `overrides` of vla-train come last. A training that fails, as one that
    diverges, is a result too: `failed` says why.
    """
    cell = study.cells()[number]
    folder = out / RUNS / cell.name
    if (folder / RESULT).is_file():
        return dict(read_json(folder / RESULT))
    if not _affordable(study, out, folder):
        log.warning("%s: not begun, the budget of %g core hours would be exceeded", cell.name, study.core_hours)
        return None
    log.info("%s: %s", out.name, cell.name)
    words = [*study.overrides, *cell.overrides, *overrides, f"seed={cell.seed}", f"run_dir={folder / TRAINING}"]
    about: dict[str, Any] = {"levels": cell.levels, "seed": cell.seed, "overrides": words}
    try:
        result = about | _train_and_evaluate(study, folder, words)
    except Failure as error:
        result = about | {"failed": str(error), "core_hours": core_hours(folder)}
    write_json(folder / RESULT, result)
    return result


def core_hours(folder: Path) -> float:
    """What a run has cost so far: of its result or, before there is one, of its last saved checkpoint."""
    if (folder / RESULT).is_file():
        return float(read_json(folder / RESULT)["core_hours"])
    last = folder / TRAINING / "checkpoints" / "last"
    return _trained(last) / 60 if last.is_dir() else 0.0


def _train_and_evaluate(study: Study, folder: Path, words: list[str]) -> dict[str, Any]:
    begun = (folder / TRAINING / "config.yaml").is_file()
    last = train([*words, "resume=true"] if begun else words)
    parts = read_checkpoint(last, POLICY)
    metrics = read_metrics(folder)
    found: dict[str, Any] = {
        "parameters": sum(_count(stored.shape) for stored in parts.header.values()),
        "windows": parts.card["data"]["windows"],
        "batch_size": parts.card["training"]["batch_size"],
        "flops_per_step": training_flops(words, folder),
        **{name: values[-1][1] for name, values in metrics.items() if values},
    }
    hours = _trained(last) / 60
    if study.evaluate is not None:
        before = _processor_seconds()
        summary = evaluate_checkpoint(last, [*study.evaluate, f"out={folder / 'evaluation'}"])
        found |= {key: summary[key] for key in MEASURED}
        hours += (_processor_seconds() - before) / 3600
    return found | {"core_hours": hours}


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of everything that a run's metrics.csv has, by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / TRAINING / "metrics.csv").read_text().splitlines()[1:]:
        step, name, value = line.split(",")
        found.setdefault(name, []).append((int(step), float(value)))
    return found


def training_flops(words: Sequence[str], folder: Path) -> int:
    """Floating-point operations of one training step, forward and backward, as torch counts them."""
    trainer = make_trainer(load_config("train", [*words, "trainer.compile=false"]), folder / TRAINING)
    model, count = trainer.model, min(2, len(trainer.windows))
    assert isinstance(model, DiffusionPolicy)
    with FlopCounterMode(display=False) as counter:
        loss, _ = model.loss(trainer.windows.__getitems__(range(count)), torch.Generator().manual_seed(0))
        loss.backward()
    return round(counter.get_total_flops() * trainer.config.batch_size / count)


def _affordable(study: Study, out: Path, folder: Path) -> bool:
    """Whether the dearest finished run, less what this one has cost already, still fits into the budget."""
    folders = [path for path in (out / RUNS).glob("*") if path.is_dir()]
    finished = [core_hours(path) for path in folders if (path / RESULT).is_file()]
    ahead = max(max(finished, default=0.0) - core_hours(folder), 0.0)
    return sum(map(core_hours, folders)) + ahead <= study.core_hours


def _trained(checkpoint: Path) -> float:
    """Core minutes of its training, as its card has them."""
    return float(read_checkpoint(checkpoint, POLICY).card.get("training", {}).get("core_minutes", 0.0))


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
