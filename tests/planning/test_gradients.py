"""Objectives in torch say what they say in numpy, and their gradients are what finite differences find."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sim.objectives import Progress
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError, Objective
from vla_policy.planning.gradients import differentiable
from vla_policy.planning.objectives import KeepOut, LearnedReturn, Reach, Sum


def layers(*sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in pairwise(sizes)]


OBJECTIVES: dict[str, Objective] = {
    "progress": Progress((0.5, 0.1, 0.6)),
    "return": LearnedReturn((STATE, ENVIRONMENT_STATE), layers(6, 8, 8, 1), 0.9),
    "reach": Reach((0.3, 0.2)),
}
OBJECTIVES["sum"] = Sum(list(OBJECTIVES.values()))


def futures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {STATE: rng.uniform(0.2, 0.6, (2, 3, 2)), ENVIRONMENT_STATE: rng.uniform(-1, 1, (2, 3, 4))}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_gradient_is_what_finite_differences_find(name: str) -> None:
    objective, future = OBJECTIVES[name], futures()
    states = {key: torch.from_numpy(values).requires_grad_() for key, values in future.items()}
    found = differentiable(objective)(states)
    np.testing.assert_allclose(found.detach(), objective(future), rtol=1e-5)
    keys = list(states)
    gradients = torch.autograd.grad(found.sum(), [states[key] for key in keys], materialize_grads=True)
    for key, gradient in zip(keys, gradients, strict=True):
        np.testing.assert_allclose(gradient, differences(objective, future, key), rtol=1e-4, atol=1e-7)


def differences(objective: Objective, future: dict[str, np.ndarray], key: str, step: float = 1e-5) -> Any:
    """Central ones, of the sum of scores, by each number of a key."""
    found = np.zeros_like(future[key])
    for place in np.ndindex(found.shape):
        moved = [{**future, key: future[key].copy()} for _ in range(2)]
        for sign, one in zip((1, -1), moved, strict=True):
            one[key][place] += sign * step
        found[place] = (objective(moved[0]).sum() - objective(moved[1]).sum()) / (2 * step)
    return found


def test_a_wish_without_a_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="planner=diffuser, which needs their gradient, found KeepOut"):
        differentiable(Sum([Reach((0.0, 0.0)), KeepOut((0.4, 0.0), 0.03)]))
