"""Policies that take a teacher's path from noise to a chunk in fewer passes."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from helpers.small_diffusion import batch_of, objective, small_policy
from helpers.small_vlm import TINY, small_backbone
from torch import Tensor

from vla_policy.data import IMITATED
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, InputError
from vla_policy.models import BackboneConfig, DiffusionPolicy, EncoderConfig, PolicyConfig, TransformerConfig
from vla_policy.models.heads import DenoisingHead
from vla_policy.models.objectives import Predict
from vla_policy.models.teaching import shortcuts

FAST = TransformerConfig(width=32, depth=1, heads=2, time_width=16, patch=4)
MEAN, SPREAD = 0.3, 0.4  # of the toy's chunks, all rows independent


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_passes(config: PolicyConfig, passes: int) -> PolicyConfig:
    return replace(config, objective=replace(config.objective, inference_steps=passes))


def gaussian(head: DenoisingHead) -> Predict:
    """The velocity whose flow takes noise x to MEAN + SPREAD * x: with the standard deviation s(t) of noise and data
    mixed, MEAN + s'(t) / s(t) * (x - t MEAN).
    """

    def predict(x: Tensor, k: int) -> Tensor:
        t = head.objective.times()[k]
        ratio = (SPREAD**2 * t - (1 - t)) / ((1 - t) ** 2 + (SPREAD * t) ** 2)
        return MEAN + ratio * (x - t * MEAN)

    return predict


def toy_teacher(monkeypatch: pytest.MonkeyPatch, passes: int = 40) -> DiffusionPolicy:
    teacher = small_policy(transformer=FAST, **objective("flow", inference_steps=passes, clip_sample=False))
    head = cast(DenoisingHead, teacher.head)
    monkeypatch.setattr(head, "predictor", lambda *_: gaussian(head))
    return teacher


@pytest.mark.parametrize("passes", [1, 2])
def test_a_student_learns_where_the_flow_leads(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = toy_teacher(monkeypatch)
    student = DiffusionPolicy.follower(teacher, replace(in_passes(teacher.config, passes), noise_samples=16)).train()
    batch = batch_of(8)
    optimizer = torch.optim.Adam([value for value in student.parameters() if value.requires_grad], lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        loss, _ = student(batch, seeded(step))
        loss.backward()
        optimizer.step()

    def chunks(policy: DiffusionPolicy) -> Tensor:
        sampled = policy.eval().sample(batch_of(64, 1), seeded(7))
        return policy.normalizer.normalize(ACTION, sampled)

    def error(policy: DiffusionPolicy) -> float:
        return float((chunks(policy) - chunks(teacher)).square().mean().sqrt())

    noise = cast(DenoisingHead, teacher.head).noise(64, 1, seeded(7), torch.device("cpu"))[:, 0, 1:]
    known = float((chunks(teacher) - (MEAN + SPREAD * noise)).square().mean().sqrt())
    plain = error(toy_teacher(monkeypatch, passes))
    assert known < 0.1 * SPREAD
    assert error(student) < 0.1 * plain, (error(student), plain)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_shortcuts_lead_from_noise_to_the_teachers_chunk(passes: int) -> None:
    teacher, batch = small_policy(), batch_of(3)
    head, prefix = cast(DenoisingHead, teacher.head), teacher.prefix(batch_of(3))
    noise = head.noise(3, 2, seeded(4), torch.device("cpu"))
    pair = shortcuts(teacher, prefix, noise, passes)
    assert pair.noisy.shape == pair.target.shape == (3, 2 * passes, 16, 2)
    ends = pair.noisy + pair.target / passes
    starts, ends = (part.unflatten(1, (2, passes)) for part in (pair.noisy, ends))
    torch.testing.assert_close(starts[:, :, 0], noise)
    torch.testing.assert_close(starts[:, :, 1:], ends[:, :, :-1])
    sampled = teacher.propose(batch, seeded(4), 2)
    torch.testing.assert_close(teacher.normalizer.unnormalize(ACTION, ends[:, :, -1])[:, :, 1:], sampled)
    expected = [k / passes for k in range(passes)] * 2
    torch.testing.assert_close(pair.time, torch.tensor([expected]))


def test_it_is_an_ordinary_policy_that_begins_as_its_teacher(tmp_path: Path) -> None:
    teacher = small_policy(image=True)
    student = DiffusionPolicy.follower(teacher, in_passes(teacher.config, 1))
    student.save_pretrained(tmp_path / "student")
    stored = DiffusionPolicy.from_pretrained(tmp_path / "student")
    assert stored.config == in_passes(teacher.config, 1)
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in stored.state_dict().items())
    trained = {name.partition(".")[0] for name, value in student.named_parameters() if value.requires_grad}
    assert trained == {"transformer", "head"}
    assert stored.sample(batch_of(2), seeded(0)).shape == (2, 15, 2)


def test_a_backbone_is_left_alone_and_stored_whole(tmp_path: Path) -> None:
    teacher = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    student = DiffusionPolicy.follower(teacher, in_passes(teacher.config, 2)).train()
    loss, _ = student.loss(batch_of(2), seeded(0))
    loss.backward()
    trained = {name.partition(".")[0] for name, value in student.named_parameters() if value.grad is not None}
    assert trained == {"transformer", "head"}
    student.save_pretrained(tmp_path / "student")
    stored = DiffusionPolicy.from_pretrained(tmp_path / "student")
    assert torch.equal(stored.sample(batch_of(2), seeded(1)), student.eval().sample(batch_of(2), seeded(1)))


def test_recorded_actions_do_not_count() -> None:
    teacher, batch = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE]), batch_of(4)
    student = DiffusionPolicy.follower(teacher, in_passes(teacher.config, 1)).train()
    expected, _ = student.loss(batch, seeded(0))
    del batch[ENVIRONMENT_STATE]  # nor what the encoder has learnt to estimate
    play = batch | {ACTION: torch.full_like(batch[ACTION], torch.nan), IMITATED: torch.zeros(4, dtype=torch.bool)}
    assert float(student.loss(play, seeded(0))[0].detach()) == float(expected.detach()) > 0


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ({}, {}, r"policy\.objective\.inference_steps: expected a smaller divisor of the teacher's 10, found 10"),
        (objective("flow", inference_steps=3), {}, "expected a smaller divisor of the teacher's 10, found 3"),
        ({}, objective("ddpm"), r"distill\.target: expected flow policies for endpoint, found ddpm"),
        (objective("masked"), {}, r"distill\.target: expected flow policies for endpoint, found masked"),
        ({}, {"ensemble": 2}, "teacher: expected a single policy for endpoint, found an ensemble of 2"),
        ({}, {"prefix_steps": 4}, r"teacher: expected policy\.prefix_steps 0 for endpoint, found 4"),
        (
            {
                "encoder": EncoderConfig(channels=[8, 16], keypoints=4, grid=2, crop=0.5),
                **objective("flow", inference_steps=1),
            },
            {},
            r"policy\.encoder\.crop: expected the teacher's 0\.875, found 0\.5",
        ),
        (
            {"horizon": 12, **objective("flow", inference_steps=1)},
            {},
            r"policy\.horizon: expected the teacher's 16, found 12",
        ),
        (
            objective("flow", inference_steps=1, clip_sample=False),
            {},
            r"policy\.objective\.clip_sample: expected the teacher's True, found False",
        ),
    ],
)
def test_a_teacher_that_cannot_be_followed_is_refused(student: dict, teacher: dict, message: str) -> None:
    config = small_policy(**student).config
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.follower(small_policy(**teacher), config)
