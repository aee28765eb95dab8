"""Ensembles, and policies that learn from others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_diffusion import batch_of, objective, small_policy

from vla_policy.interfaces import ACTION, InputError
from vla_policy.jobs.distill import composed, sampled_actions
from vla_policy.models import DiffusionPolicy, TransformerConfig, join_policies
from vla_policy.models.heads import DenoisingHead
from vla_policy.models.teaching import predictions, without_backbone_output


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"seed{seed}" for seed in range(3)]
    for seed, folder in enumerate(found):
        policy = small_policy()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        policy.save_pretrained(folder)
    return found


def test_the_velocity_is_the_members_mean_at_every_step(folders: list[Path], tmp_path: Path) -> None:
    members = [DiffusionPolicy.from_pretrained(folder) for folder in folders]
    join_policies(folders).save_pretrained(tmp_path / "joint")
    joint = DiffusionPolicy.from_pretrained(tmp_path / "joint")
    assert joint.config == replace(members[0].config, ensemble=3)
    batch, noisy = batch_of(4), torch.randn(4, 1, 16, 2)
    time = torch.full((4, 1), 0.3)
    each = torch.stack([predictions(member, batch)(noisy, time) for member in members])
    torch.testing.assert_close(predictions(joint, batch)(noisy, time), each.mean(0))
    head = joint.head
    assert isinstance(head, DenoisingHead)
    steps = head.objective.times()
    x = torch.randn(4, 1, 16, 2, generator=torch.Generator().manual_seed(0))
    for k, start in enumerate(steps):  # Euler's method by hand
        velocity = predictions(joint, batch)(x, torch.full((4, 1), start))
        x = x + ([*steps, 1.0][k + 1] - start) * velocity
    expected = joint.normalizer.unnormalize(ACTION, x[:, 0].clamp(-1, 1))[:, 1:]
    torch.testing.assert_close(joint.sample(batch, torch.Generator().manual_seed(0)), expected)


def test_an_ensemble_of_one_policy_is_that_policy(folders: list[Path]) -> None:
    joint, alone = join_policies([folders[0]] * 2), DiffusionPolicy.from_pretrained(folders[0])
    batch = batch_of(2)
    sampled = [policy.sample(batch, torch.Generator().manual_seed(1)) for policy in (joint, alone)]
    torch.testing.assert_close(*sampled)


def test_what_cannot_be_joined_is_named(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected two or more checkpoints, found 1"):
        join_policies(folders[:1])
    small_policy(transformer=TransformerConfig(width=16, depth=1, heads=2, time_width=16)).save_pretrained(
        tmp_path / "w"
    )
    with pytest.raises(InputError, match=r"/w: expected the configuration and interface of"):
        join_policies([folders[0], tmp_path / "w"])
    small_policy(seed=5).save_pretrained(tmp_path / "data")
    with pytest.raises(InputError, match=r"/data: expected the normalisation of"):
        join_policies([folders[0], tmp_path / "data"])
    join_policies(folders).save_pretrained(tmp_path / "joint")
    with pytest.raises(InputError, match=r"/joint: expected a single policy, found an ensemble of 3"):
        join_policies([tmp_path / "joint", tmp_path / "joint"])
    with pytest.raises(InputError, match=r"policy\.ensemble: expected 1 for a policy with action tokens, found 2"):
        small_policy(ensemble=2, **objective("masked"))


def test_a_student_aims_at_its_teachers_predictions_in_training_alone() -> None:
    teacher, student = small_policy(), small_policy()
    student.learn_from(teacher)
    batch = batch_of(4)
    loss, _ = student.train().loss(batch, torch.Generator().manual_seed(0))
    assert float(loss.detach()) == pytest.approx(
        0.0, abs=1e-6
    )  # it is its teacher already, whose attention is rounded otherwise
    assert set(student.state_dict()) == set(teacher.state_dict())
    held_out, _ = student.eval().loss(batch, torch.Generator().manual_seed(0))
    expected, _ = teacher.loss(batch, torch.Generator().manual_seed(0))
    assert float(held_out) == float(expected) > 0.1


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ({}, objective("ddpm"), r"expected policy\.objective\.name 'flow', found 'ddpm'"),
        (objective("masked"), objective("masked"), "expected flow or ddpm, which have outputs to match, found masked"),
        ({}, {"seed": 3}, "expected this policy's normalisation of actions, found another"),
        ({"predict_past": False}, {}, r"expected policy\.predict_past False, found True"),
    ],
)
def test_a_teacher_of_something_else_is_refused(student: dict, teacher: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"teacher: {message}"):
        small_policy(**student).learn_from(small_policy(**teacher))


def test_any_teacher_can_be_learned_from_by_its_samples() -> None:
    teacher = small_policy(**objective("autoregressive"), predict_past=False)
    batch = batch_of(3)
    added = sampled_actions(teacher, 2)(batch, np.random.default_rng(0))
    assert list(added) == [ACTION]
    assert torch.equal(added[ACTION][:, 0], batch[ACTION][:, 0])  # the past row is what was done
    expected = teacher.sample(batch, torch.Generator())  # greedy
    torch.testing.assert_close(added[ACTION][:, 1:], expected)


def test_a_teacher_that_sees_other_observations_gives_no_samples() -> None:
    with pytest.raises(InputError, match=r"teacher: expected policy\.n_obs_steps 3, found 2"):
        sampled_actions(small_policy(), 3)


def test_a_teacher_encodes_with_its_own_backbone() -> None:
    batch = batch_of(2) | {"backbone_hidden": torch.zeros(2, 1, 4), "backbone_real": torch.ones(2, 1, dtype=torch.bool)}
    assert set(without_backbone_output(batch)) == set(batch_of(2))


def test_annotations_build_on_each_other() -> None:
    first = lambda batch, generator: {"a": batch["a"] + 1}  # noqa: E731
    second = lambda batch, generator: {"b": batch["a"] * 10}  # noqa: E731
    both = composed(None, first, second)
    assert both is not None
    assert both({"a": 1}, np.random.default_rng(0)) == {"a": 2, "b": 20}
    assert composed(None, first) is first
    assert composed(None, None) is None
