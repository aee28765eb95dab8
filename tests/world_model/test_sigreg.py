"""SIGReg against the values that follow from its definition."""

import math

import pytest
import torch

from vla_policy.world_model import sigreg
from vla_policy.world_model.sigreg import FARTHEST, KNOTS, epps_pulley


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_gaussian_has_the_expected_statistic_at_any_batch_size() -> None:
    # E T = sum_k w_k (1 - exp(-t_k^2)): one over B is the variance of the empirical characteristic function
    knots = torch.linspace(0, FARTHEST, KNOTS)
    weights = torch.full_like(knots, 2 * FARTHEST / (KNOTS - 1))
    weights[[0, -1]] /= 2
    expected = float((weights * torch.exp(-0.5 * knots**2) * (1 - torch.exp(-(knots**2)))).sum())
    assert expected == pytest.approx(1.05, abs=0.01)
    for batch in (64, 128, 512):
        found = epps_pulley(torch.randn(batch, 20_000, generator=generator())).mean()
        assert float(found) == pytest.approx(expected, abs=0.03)


def test_total_collapse_costs_the_reference_value() -> None:
    assert float(epps_pulley(torch.zeros(100, 3))[0]) == pytest.approx(0.402 * 100, rel=2e-3)
    for batch in (16, 128, 500):
        assert float(sigreg(torch.zeros(4, batch, 8), generator())) == pytest.approx(51.5, abs=0.1)


def test_normalisation_to_the_papers_batch() -> None:
    z = torch.randn(2, 64, 16, generator=generator(1))
    assert float(sigreg(z, generator(), 5000)) == pytest.approx(2 * 1.05, rel=0.15)  # 128 / 64 times as much


def test_every_time_step_is_judged_by_itself() -> None:
    """Two time steps, one far left and one far right, look Gaussian to nobody, although their union is centred."""
    apart = torch.randn(2, 128, 4, generator=generator()) + torch.tensor([-3.0, 3.0])[:, None, None]
    centred = torch.randn(2, 128, 4, generator=generator())
    assert sigreg(apart, generator()) > 10 * sigreg(centred, generator())


def test_directions_are_fresh_and_repeatable() -> None:
    z = torch.randn(1, 128, 16, generator=generator()) * torch.linspace(0.2, 2, 16)
    one = generator(3)
    first, second = sigreg(z, one, 16), sigreg(z, one, 16)
    assert first != second
    assert sigreg(z, generator(3), 16) == first


def test_its_gradient_undoes_a_collapse() -> None:
    z = torch.nn.Parameter(0.01 * torch.randn(1, 256, 4, generator=generator()))
    optimizer, draws = torch.optim.Adam([z], 0.05), generator()
    for _ in range(150):
        optimizer.zero_grad()
        sigreg(z, draws, 64).backward()
        optimizer.step()
    covariance = torch.cov(z.detach()[0].T)
    assert torch.allclose(covariance, torch.eye(4), atol=0.25)
    assert float(sigreg(z.detach(), draws)) < 2.0
    assert not math.isnan(float(z.detach().sum()))
