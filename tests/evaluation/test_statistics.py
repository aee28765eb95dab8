"""Intervals and tests against published and hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vla_policy.evaluation.statistics import (
    auroc_interval,
    balanced_interval,
    compare_paired,
    mean_interval,
    paired_difference_interval,
    success_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(9, 10, 0.555, 0.998), (45, 50, 0.78, 0.97), (180, 200, 0.85, 0.94)]
)
def test_exact_intervals_of_the_literature(k: int, n: int, low: float, high: float) -> None:
    assert success_interval(k, n) == pytest.approx((low, high), abs=0.005)


def test_exact_interval_at_the_ends_has_a_closed_form() -> None:
    assert success_interval(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert success_interval(20, 20) == pytest.approx((0.025 ** (1 / 20), 1.0))


def test_the_exact_interval_covers_at_least_its_nominal_rate() -> None:
    from scipy.stats import binom

    n, p = 20, 0.8
    covered = sum(
        binom.pmf(k, n, p) for k in range(n + 1) if success_interval(k, n)[0] <= p <= success_interval(k, n)[1]
    )
    assert covered >= 0.95


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3290),  # Newcombe 1998
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland et al. 2013
    ],
)
def test_paired_interval_of_the_literature(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_difference_interval(*counts) == pytest.approx((low, high), abs=6e-4)


def test_paired_comparison_by_hand() -> None:
    a = np.array([1] * 10 + [1] * 2 + [0] * 8 + [0] * 5, bool)
    b = np.array([1] * 10 + [0] * 2 + [1] * 8 + [0] * 5, bool)
    found = compare_paired(a, b)
    assert (found.both, found.only_a, found.only_b, found.neither) == (10, 2, 8, 5)
    assert found.difference == pytest.approx(6 / 25)
    # Of 10 discordant pairs 2 or fewer on one side: 2 (1 + 10 + 45) / 2^10.
    assert found.p_value == pytest.approx(2 * 56 / 1024)
    assert found.ci95[0] < 6 / 25 < found.ci95[1]
    swapped = compare_paired(b, a)
    assert swapped.p_value == pytest.approx(found.p_value)
    assert swapped.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))


def test_equal_runs_do_not_differ() -> None:
    found = compare_paired([True, False], [True, False])
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.ci95[0] <= 0.0 <= found.ci95[1]


def test_bootstrap_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20  # the normal approximation, good at n = 400
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert mean_interval(values) == (low, high)  # repeatable
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert all(math.isnan(edge) for edge in mean_interval([1.0]))


def test_bootstrap_interval_of_two_groups_is_that_of_large_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 400), rng.normal(5, 1, 100)
    centre, half = (a.mean() + b.mean()) / 2, 1.96 * math.sqrt(a.var() / 400 + b.var() / 100) / 2
    assert balanced_interval(a, b) == pytest.approx((centre - half, centre + half), abs=0.05 * half)
    assert balanced_interval([True] * 5, [True] * 3) == (1.0, 1.0)


def test_the_interval_of_an_auroc_has_its_nominal_coverage() -> None:
    rng, true = np.random.default_rng(0), 0.9214  # of normals two apart: Phi(2 / sqrt(2))
    covered = []
    for _ in range(300):
        found = float((rng.normal(2, 1, (30, 1)) > rng.normal(0, 1, 40)).mean())
        low, high = auroc_interval(found, 30, 40)
        assert low <= found <= high
        covered.append(low < true < high)
    assert 0.92 < np.mean(covered) < 0.99


def test_interval_of_an_auroc_is_not_empty_at_its_ends_and_symmetric() -> None:
    low, high = auroc_interval(1.0, 50, 50)
    assert (0.9 < low < 0.97, high) == (True, 1.0)
    assert auroc_interval(0.0, 50, 50) == pytest.approx((1 - high, 1 - low))
    assert auroc_interval(0.3, 20, 60) == pytest.approx([1 - bound for bound in reversed(auroc_interval(0.7, 60, 20))])
