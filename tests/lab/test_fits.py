"""Fits against known laws and the numbers of the paper they come from."""

import math

import numpy as np
import pytest

from vla_policy.interfaces import InputError
from vla_policy.lab import fits
from vla_policy.lab.fits import (
    PowerLaw,
    RepeatedData,
    critical_cost,
    effective_data,
    fit_power_law,
    fit_repeated_data,
    frontier,
    has_spread,
    percentile_interval,
    resamples,
)

# arXiv 2509.14786: the standard recipe's losses at billions of tokens.
STANDARD = [(0.21, 3.74974), (0.42, 3.48073), (0.84, 3.24516), (1.68, 3.05917)]


def test_the_papers_power_law_and_data_efficiencies() -> None:
    law = fit_power_law(STANDARD)
    assert (law.a, law.b, law.c) == pytest.approx((1.115, 0.258, 2.08), rel=0.02)
    assert law.amount(3.43) / 0.21 == pytest.approx(2.28, rel=0.01)
    assert law.amount(3.17) / 0.21 == pytest.approx(5.23, rel=0.02)


@pytest.mark.parametrize("law", [PowerLaw(2.0, 0.5, 0.1), PowerLaw(30.0, 1.2, 0.0), PowerLaw(0.4, 0.1, 1.5)])
def test_a_power_law_is_found_again_and_inverted(law: PowerLaw) -> None:
    amounts = [10, 25, 50, 100, 200]
    found = fit_power_law([(amount, float(law(amount))) for amount in amounts])
    np.testing.assert_allclose(found(np.array([10, 33, 200])), law(np.array([10, 33, 200])), rtol=1e-3)
    assert found.amount(float(law(60))) == pytest.approx(60, rel=0.02)
    assert math.isinf(law.amount(law.c))


def test_two_amounts_are_too_few() -> None:
    with pytest.raises(InputError, match=r"power law: expected 3 or more amounts of data, found \[10.0, 20.0\]"):
        fit_power_law([(10, 1.0), (20, 0.5), (20, 0.6)])
    with pytest.raises(InputError, match=r"power law: expected 3 or more amounts of data, found \[\]"):
        fit_power_law([])


def test_the_interval_is_of_training_seeds_and_has_none_without_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "RESAMPLES", 200)
    generator = np.random.default_rng(1)
    exact = [(amount, 2 / amount**0.5) for amount in (10, 25, 50, 100) for _ in range(3)]
    noisy = [(amount, loss * generator.normal(1, 0.05)) for amount, loss in exact]

    def at_50(points: list[tuple[float, float]]) -> list[float]:
        drawn = resamples(points, np.random.default_rng(0))
        return percentile_interval([float(fit_power_law(some)(50)) for some in drawn])

    low, high = at_50(exact)
    assert high - low < 1e-6
    low, high = at_50(noisy)
    assert low < 2 / 50**0.5 < high
    assert 0.005 < high - low < 0.1
    assert has_spread(noisy)
    assert not has_spread(noisy[:4])  # the second amount has one seed


def test_an_interval_may_have_an_infinite_end() -> None:
    assert percentile_interval([2.0] * 90 + [math.inf] * 10) == [2.0, math.inf]


def test_repetition_is_worth_less_and_less() -> None:
    worth = effective_data(np.array(100.0), np.array([1.0, 2.0, 5.0, 1000.0]), 15.0)
    assert worth[0] == 100
    assert worth[1] == pytest.approx(100 * (1 + 15 * (1 - math.exp(-1 / 15))))
    assert worth[3] == pytest.approx(1600, rel=1e-6)


@pytest.mark.parametrize("r", [15.0, 400.0])
def test_the_half_life_of_repeated_data_is_found_again(r: float) -> None:
    law = RepeatedData(20.0, 0.3, 40.0, 0.5, 0.5, r)
    runs = [
        (n, u, epochs, float(law(np.array(n), np.array(u), np.array(epochs))))
        for n in (1e4, 1e5, 1e6)
        for u in (1e3, 4e3, 16e3)
        for epochs in (1.0, 10.0, 50.0, 200.0, 800.0)
    ]
    found = fit_repeated_data(runs)
    assert found.r == pytest.approx(r, rel=0.1)
    with pytest.raises(InputError, match="expected 7 or more runs for 6 parameters, found 3"):
        fit_repeated_data(runs[:3])


def test_the_frontier_and_where_it_is_overtaken() -> None:
    quick = [(1.0, 3.0), (2.0, 2.0), (4.0, 2.5), (8.0, 1.9)]
    late = [(1.0, 5.0), (2.0, 4.0), (4.0, 1.5), (8.0, 1.0)]
    assert frontier(quick) == [(1.0, 3.0), (2.0, 2.0), (8.0, 1.9)]
    assert critical_cost(quick, late) == 4.0
    assert critical_cost(late, quick) is None


def test_nothing_is_said_of_costs_at_which_one_was_not_measured() -> None:
    assert critical_cost([(1.0, 3.0), (2.0, 2.0)], [(1.0, 5.0), (2.0, 4.0), (10.0, 1.0)]) is None
    assert critical_cost([(1.0, 3.0), (2.0, 2.0)], [(4.0, 1.0)]) is None
    assert critical_cost([], [(4.0, 1.0)]) is None
    overfitted = [(1.0, 3.0), (2.0, 2.0), (10.0, 2.5)]  # measured up to 10, though it was best at 2
    assert critical_cost(overfitted, [(1.0, 5.0), (5.0, 1.5), (20.0, 1.0)]) == 5.0
    assert critical_cost([(1.0, 3.0), (2.0, 2.0)], [(1.0, 2.0), (2.0, 1.0)]) == 1.0
