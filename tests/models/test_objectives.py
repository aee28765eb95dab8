"""Targets, schedules and samplers against closed forms."""

import math

import pytest
import torch

from vla_policy.conf.policy_config import ObjectiveConfig
from vla_policy.interfaces import InputError
from vla_policy.models.objectives import Ddpm, FlowMatching, make_objective

SHAPE = (8, 3, 5, 2)
DDPM = ("epsilon", "sample", "v_prediction")


def draws(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(SHAPE, generator=generator) * 2 - 1
    return actions, torch.randn(SHAPE, generator=generator), generator


def alpha_bar(step: torch.Tensor, steps: int = 100) -> torch.Tensor:
    """Product of the capped alphas of cos^2((t / T + 0.008) / 1.008 * pi / 2)."""

    def f(t: float) -> float:
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = torch.tensor([min(1 - f(t + 1) / f(t), 0.999) for t in range(steps)], dtype=torch.float64)
    return torch.cumprod(1 - betas, 0)[step]


def test_flow_mixes_linearly_and_its_target_is_the_velocity() -> None:
    actions, noise, generator = draws()
    pair = FlowMatching(ObjectiveConfig()).corrupt(actions, noise, generator)
    t = pair.time[:, :, None, None]
    torch.testing.assert_close(pair.noisy, (1 - t) * noise + t * actions)
    torch.testing.assert_close(pair.noisy + (1 - t) * pair.target, actions)
    assert pair.time.shape == SHAPE[:2]


@pytest.mark.parametrize(("sampling", "mean"), [("uniform", 0.5), ("logit_normal", 0.5), ("beta", 0.4)])
def test_flow_times_have_the_mean_of_their_distribution(sampling: str, mean: float) -> None:
    objective = FlowMatching(ObjectiveConfig(time_sampling=sampling))
    times = objective.draw_time(torch.Size((200, 200)), torch.Generator().manual_seed(0))
    assert ((times >= 0) & (times <= 1)).all()  # 1 - Beta(1.5, 1) has mean 1 - 1.5 / 2.5
    assert float(times.mean()) == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("prediction", DDPM)
def test_ddpm_targets_and_noise_follow_the_cosine_schedule(prediction: str) -> None:
    actions, noise, generator = draws()
    pair = Ddpm(ObjectiveConfig("ddpm", prediction, "ddim")).corrupt(actions, noise, generator)
    bar = alpha_bar((pair.time * 100).round().long())[:, :, None, None].float()
    alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
    torch.testing.assert_close(pair.noisy, alpha * actions + sigma * noise, atol=1e-5, rtol=1e-5)
    expected = {"epsilon": noise, "sample": actions, "v_prediction": alpha * noise - sigma * actions}[prediction]
    torch.testing.assert_close(pair.target, expected, atol=1e-5, rtol=1e-5)


def oracle(objective: Ddpm | FlowMatching, data: torch.Tensor):
    """The exact prediction when every chunk of the data is `data`."""
    times = objective.times()

    def predict(x: torch.Tensor, k: int) -> torch.Tensor:
        if isinstance(objective, FlowMatching):
            return (data - x) / (1 - times[k])
        bar = alpha_bar(torch.tensor(round(times[k] * 100))).float()
        noise = (x - bar.sqrt() * data) / (1 - bar).sqrt()
        return {
            "epsilon": noise,
            "sample": data.expand_as(x),
            "v_prediction": bar.sqrt() * noise - (1 - bar).sqrt() * data,
        }[objective.config.prediction]

    return predict


SAMPLERS = [("flow", "epsilon", "euler")] + [
    ("ddpm", prediction, sampler) for prediction in DDPM for sampler in ("ddpm", "ddim", "dpm_solver")
]


@pytest.mark.parametrize(("name", "prediction", "sampler"), SAMPLERS)
def test_every_sampler_recovers_the_only_data_there_is(name: str, prediction: str, sampler: str) -> None:
    objective = make_objective(ObjectiveConfig(name, prediction, sampler))
    data = torch.tensor([[0.3, -0.8]])
    _, noise, generator = draws()
    sampled = objective.sample(oracle(objective, data), noise, generator)  # type: ignore[arg-type]
    torch.testing.assert_close(sampled, data.expand_as(noise), atol=2e-2, rtol=0)
    assert len(objective.times()) == 10


def test_euler_carries_noise_to_the_gaussian_whose_velocity_it_is_given() -> None:
    """For data N(m, s^2) the optimal velocity is linear in x, and the flow maps z to m + s z."""
    mean, spread = 0.2, 0.1
    objective = FlowMatching(ObjectiveConfig(inference_steps=200))

    def velocity(x: torch.Tensor, k: int) -> torch.Tensor:
        t = k / 200
        variance = (1 - t) ** 2 + (t * spread) ** 2
        return mean + (t * spread**2 - (1 - t)) / variance * (x - t * mean)

    noise = torch.randn(4, 1, 50, 2, generator=torch.Generator().manual_seed(0))
    sampled = objective.sample(velocity, noise, None)
    torch.testing.assert_close(sampled, mean + spread * noise, atol=0.01, rtol=0)


def test_unknown_choices_name_their_option() -> None:
    with pytest.raises(InputError, match=r"policy\.objective\.sampler.*'euler'.*'ddim'"):
        make_objective(ObjectiveConfig("flow", sampler="ddim"))
    with pytest.raises(InputError, match=r"policy\.objective\.name.*'gan'"):
        make_objective(ObjectiveConfig("gan"))
