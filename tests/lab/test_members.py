"""Ensembles and students as runs of a study."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers.small_dataset import make_small_dataset

from vla_policy.interfaces import STATE, InputError
from vla_policy.jobs.trainer import make_trainer
from vla_policy.lab.members import trained, without_ensemble
from vla_policy.lab.run import RESULT, RUNS, begin, read_results, run_cell, training_flops
from vla_policy.models import DiffusionPolicy
from vla_policy.models.checkpoint import POLICY, read_checkpoint
from vla_policy.training import validate_policy
from vla_policy.utils.configuration import load_config

SMALL = [
    f"policy.observation_keys=[{STATE}]",
    "policy.transformer.width=16",
    "policy.transformer.depth=1",
    "policy.transformer.heads=2",
    "trainer.steps=3",
    "trainer.batch_size=4",
    "trainer.warmup_steps=1",
    "trainer.val_windows=8",
    "trainer.compile=false",
    "data.val_episodes=1",
]
STUDY = {
    "overrides": SMALL,
    "factors": {"recipe": {"single": [], "joint": "policy.ensemble=2", "student": []}},
    "teachers": {"factor": "recipe", "of": {"student": "joint"}},
    "seeds": [3],
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "recipes.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


@pytest.mark.slow
def test_members_differ_in_their_seed_and_a_student_learns_from_all_of_them(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "data", (), ("push",), episodes=4)
    data, out = [f"data.root={tmp_path / 'data'}"], tmp_path / "out"
    study = begin(written(tmp_path), out)
    assert run_cell(study, 2, out, data) is None  # its teacher comes first
    for number in range(3):
        assert run_cell(study, number, out, data) is not None
    single, joint, student = read_results(out)

    folder = out / RUNS / "recipe=joint,seed=3"
    cards = [read_checkpoint(folder / f"training-{k}/checkpoints/last", POLICY).card for k in (0, 1)]
    assert [card["training"]["seed"] for card in cards] == [3000, 3001]
    policy = DiffusionPolicy.from_pretrained(folder / "ensemble")
    assert len(policy.members) == 2
    assert joint["parameters"] == 2 * single["parameters"]
    assert joint["flops_per_step"] == 2 * single["flops_per_step"]
    trainer = make_trainer(load_config("train", [*SMALL, *data]), tmp_path)
    assert trainer.val_windows is not None
    assert joint["val/loss"] == pytest.approx(validate_policy(policy, trainer.val_windows, 8)["val/loss"], rel=1e-4)

    assert f"distill.teacher={folder / 'ensemble'}" in student["overrides"]
    assert student["val/loss"] != single["val/loss"]
    assert json.loads((folder / RESULT).read_text()) == run_cell(study, 1, out, data)  # nothing is trained again


def test_the_cost_of_a_step_has_the_teachers_passes_in_it(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "data", (), ("push",), episodes=4)
    words = [*SMALL, f"data.root={tmp_path / 'data'}"]
    plain = make_trainer(load_config("train", words), tmp_path / "plain")
    plain.model.save_pretrained(tmp_path / "teacher")
    for target in ("outputs", "samples"):
        taught = [*words, f"distill.teacher={tmp_path / 'teacher'}", f"distill.target={target}"]
        student = make_trainer(load_config("train", taught), tmp_path / target)
        assert training_flops(student) > training_flops(plain)


@pytest.mark.slow
def test_the_loss_of_an_ensemble_is_that_of_its_mean_prediction(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "data", (), ("push",), episodes=4)
    words = [*SMALL, f"data.root={tmp_path / 'data'}", "trainer.wandb=null"]
    joint = DiffusionPolicy.from_pretrained(trained([*words, "policy.ensemble=2"], 0, tmp_path / "joint"))
    batch = {STATE: torch.rand(8, 2, 2), "action": torch.rand(8, 16, 2), "task": ["push"] * 8}
    losses = []
    for policy in joint.members:
        alone = (
            policy
            if policy is not joint
            else DiffusionPolicy.from_pretrained(tmp_path / "joint/training-0/checkpoints/last")
        )
        losses.append(float(alone.loss(batch, torch.Generator().manual_seed(0))[0].detach()))
    together = float(joint.loss(batch, torch.Generator().manual_seed(0))[0])
    assert together <= sum(losses) / 2 + 1e-6  # the error of a mean is at most the mean error
    assert together not in losses


def test_sizes_of_ensembles() -> None:
    assert without_ensemble(["a=1", "policy.ensemble=3", "b=2"]) == (["a=1", "b=2"], 3)
    assert without_ensemble(["a=1"]) == (["a=1"], 1)
    for bad in ("0", "two"):
        with pytest.raises(InputError, match=f"policy.ensemble: expected a number of policies, found '{bad}'"):
            without_ensemble([f"policy.ensemble={bad}"])


def test_nobody_learns_from_a_teacher_that_diverged(tmp_path: Path) -> None:
    study = begin(written(tmp_path), tmp_path)
    folder = tmp_path / RUNS / study.cells()[1].name
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps({"given": [], "overrides": [], "failed": "diverged", "core_hours": 0.1}))
    assert run_cell(study, 2, tmp_path) is None
    assert not (tmp_path / RUNS / study.cells()[2].name).exists()


def test_results_along_a_run_need_single_trainings(tmp_path: Path) -> None:
    along = [{"y": "val/loss", "x": "epochs"}]
    with pytest.raises(InputError, match=r"factors\.recipe\.joint: expected no policy\.ensemble in a study with"):
        begin(written(tmp_path, figures=along), tmp_path / "out")


def test_teachers_come_first(tmp_path: Path) -> None:
    early = {"recipe": {"student": [], "joint": "policy.ensemble=2"}}
    with pytest.raises(InputError, match=r"teachers.of: expected 'joint' before its student 'student'"):
        begin(written(tmp_path, factors=early), tmp_path / "out")
    with pytest.raises(InputError, match=r"teachers.of: expected one of .*, found 'pair'"):
        begin(written(tmp_path, teachers={"factor": "recipe", "of": {"student": "pair"}}), tmp_path / "out")
