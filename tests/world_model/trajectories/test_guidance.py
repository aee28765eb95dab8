"""The two ways of guidance, against what is known of Gaussians and against finite differences."""

import pytest
import torch
from torch import Tensor

from vla_policy.models import ObjectiveConfig
from vla_policy.models.objectives import Objective, Predict, make_objective
from vla_policy.world_model.trajectories.guidance import classifier_free, value_guided

SCHEDULES = {
    "flow": ObjectiveConfig(inference_steps=100, clip_sample=False),
    "ddpm": ObjectiveConfig("ddpm", sampler="ddim", inference_steps=100, clip_sample=False),
}


def gaussian(objective: Objective, mean: Tensor, deviation: float) -> Predict:
    """The exact prediction for data (T, D) that are normal around `mean`."""
    levels = objective.levels()

    def predict(x: Tensor, k: int) -> Tensor:
        a, s, of_x, of_prediction = levels[k]
        gain = a * deviation**2 / (a**2 * deviation**2 + s**2)
        data = mean + gain * (x - a * mean)
        return (data - of_x * x) / of_prediction

    return predict


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_guided_gaussian_is_shifted_by_its_variance_times_the_gradient(name: str) -> None:
    """N(m, v) exp(w g x) is N(m + w v g, v), whatever the schedule."""
    objective, mean, slope = make_objective(SCHEDULES[name]), torch.tensor([[0.3, -0.2]]), torch.tensor([[1.0, -2.0]])
    predict = gaussian(objective, mean, deviation=0.5)
    guided = value_guided(predict, objective.levels(), lambda rows: (slope * rows).sum((-2, -1)), 1.5)
    noise = torch.randn(1, 4000, 1, 2, generator=torch.Generator().manual_seed(0))
    found = objective.sample(guided, noise, torch.Generator().manual_seed(1))[0, :, 0]
    torch.testing.assert_close(found.mean(0), (mean + 1.5 * 0.25 * slope)[0], atol=0.04, rtol=0)
    torch.testing.assert_close(found.std(0), torch.full((2,), 0.5), atol=0.04, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_guidance_moves_the_estimate_along_the_gradient_by_finite_differences(name: str) -> None:
    objective = make_objective(SCHEDULES[name])
    levels = objective.levels()
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def predict(x: Tensor, k: int) -> Tensor:
        return torch.tanh(x.flatten(2) @ matrix).view(x.shape)

    def value(rows: Tensor) -> Tensor:
        return -(rows - 0.4).square().sum((-2, -1)) + rows[..., 0, 0] * rows[..., 2, 1]

    x, k, weight = torch.randn(1, 1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), 40, 0.7
    level = levels[k]

    def worth(x: Tensor) -> Tensor:
        return value(level.of_x * x + level.of_prediction * predict(x, k))

    steps = 1e-5 * torch.eye(6, dtype=torch.float64).view(6, 1, 3, 2)
    gradient = torch.stack([(worth(x + step) - worth(x - step)) / 2e-5 for step in steps]).view(x.shape)
    moved = (value_guided(predict, levels, value, weight)(x, k) - predict(x, k)) * level.of_prediction
    torch.testing.assert_close(moved, weight * level.noise**2 / level.data * gradient, rtol=1e-6, atol=1e-9)


def test_pure_noise_is_not_guided() -> None:
    objective = make_objective(SCHEDULES["flow"])
    predict = gaussian(objective, torch.zeros(1, 1), 1.0)
    guided = value_guided(predict, objective.levels(), lambda rows: rows.sum((-2, -1)), 1.0)
    x = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(guided(x, 0), predict(x, 0))


def test_classifier_free_guidance_goes_through_the_condition_and_beyond() -> None:
    def conditional(x: Tensor, k: int) -> Tensor:
        return x + k

    def unconditional(x: Tensor, k: int) -> Tensor:
        return x - 1

    x = torch.zeros(1)
    found = [float(classifier_free(conditional, unconditional, weight)(x, 3)) for weight in (0.0, 1.0, 1.5)]
    assert found == [-1.0, 3.0, 5.0]
