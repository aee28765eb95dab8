"""Muon in float32 against torch's in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from vla_policy.training.muon import Muon, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def parameters(*shapes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def steps(optimizer: torch.optim.Optimizer, values: list[Tensor], count: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = parameters(shape)[0].detach()
    found = orthogonalised(matrix, COEFFICIENTS, 1e-7)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    singular = u.T @ found @ v.T
    assert singular.diagonal().min() > 0.5
    assert singular.diagonal().max() < 1.5
    assert (singular - singular.diagonal().diag()).abs().max() < 1e-4


def test_steps_are_those_of_torch_up_to_its_bfloat16() -> None:
    ours, theirs = parameters((8, 24), (24, 8)), parameters((8, 24), (24, 8))
    begin = copy.deepcopy(ours)
    mine = Muon(ours, lr=0.1, weight_decay=0.5)
    steps(mine, ours)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    steps(reference, theirs)
    for value, other, first in zip(ours, theirs, begin, strict=True):
        assert (value - other).norm() < 0.02 * (other - first).norm()
    assert mine.state_dict()["state"].keys() == reference.state_dict()["state"].keys()
    mine.load_state_dict(reference.state_dict())  # trainings that began with torch's go on


def test_what_has_no_gradient_stays() -> None:
    (value,) = parameters((4, 4))
    before = value.detach().clone()
    Muon([value], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(value, before)
