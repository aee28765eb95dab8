"""How many guesses each outcome of a check gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vla_policy.speculation.fan_out import fan_out, guesses, shares


@pytest.mark.parametrize(("acceptance", "exponent"), [(0.5, 1.0), (0.8, 0.5), (0.9, 2.0)])
def test_shares_are_the_papers_geometric_series_with_more_at_the_end(acceptance: float, exponent: float) -> None:
    found = shares(5, acceptance, exponent)
    assert sum(found) == pytest.approx(1)
    for k in range(5):
        assert found[k] / found[0] == pytest.approx(acceptance ** (k / (1 + exponent)))
    assert found[5] / found[0] == pytest.approx((acceptance**5 / (1 - acceptance)) ** (1 / (1 + exponent)))


def test_no_other_allocation_misses_less() -> None:
    """Expected misses, sum_k P(k) F_k^-r, of the shares and of thousands of others with the same sum."""
    a, r, length = 0.7, 0.8, 4
    outcomes = np.array([a**k * (1 - a) for k in range(length)] + [a**length])
    best = float((outcomes * np.array(shares(length, a, r)) ** -r).sum())
    others = np.random.default_rng(0).dirichlet(np.full(length + 1, 2.0), 5000)
    assert ((outcomes * others**-r).sum(1) > best).all()


def test_whole_numbers_sum_to_the_budget_and_follow_the_shares() -> None:
    for budget in (1, 2, 5, 8, 27):
        for acceptance in (0.0, 0.3, 0.8, 1.0):
            counts = fan_out(budget, 4, acceptance, 1.0)
            assert sum(counts) == budget
            exact = np.array(shares(4, acceptance, 1.0)) * budget
            assert (np.abs(np.array(counts) - exact) < 1).all()
    assert fan_out(4, 0, 0.5, 1.0) == [4]  # nothing was drafted: only what follows is open


def test_guesses_are_the_likeliest_tokens_and_never_the_refused_one() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    assert guesses(logits, [0, 1], [1, 2, 2]) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]
    assert guesses(logits, [0, 1], [9, 0, 9]) == [(0, 1), (0, 2), (2, 1), (2, 2), (2, 0)]
