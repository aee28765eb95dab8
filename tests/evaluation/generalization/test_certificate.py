"""Sizes and bounds against numbers that can be computed by hand."""

import math

import pytest
import torch

from vla_policy.evaluation.generalization.certificate import (
    BITS_OF_A_LEVEL,
    compressed_bits,
    finite_hypothesis_bound,
    quantized,
)
from vla_policy.interfaces import InputError


@pytest.mark.parametrize(("episodes", "excess"), [(200, 0.49), (50, 0.98)])
def test_the_bound_at_a_hundred_and_thirty_four_bits(episodes: int, excess: float) -> None:
    # 134 bits are the whole code; the bound adds the code of its length, so start from what gives 134.
    bits = 134 - 2 * math.log2(120.2)
    assert bits + 2 * math.log2(bits) == pytest.approx(134, abs=0.2)
    assert finite_hypothesis_bound(0.0, bits, episodes) == pytest.approx(excess, abs=0.01)
    assert finite_hypothesis_bound(0.1, bits, episodes) == pytest.approx(excess + 0.1, abs=0.01)


def test_levels_are_stored_by_their_entropy() -> None:
    half = torch.tensor([0.0, 1.0]).repeat(500)  # one bit a weight
    rounded, size = quantized({"w": half}, 4)
    assert torch.equal(rounded["w"], half)
    assert size == pytest.approx(1000 + 4 * BITS_OF_A_LEVEL)
    rare = torch.cat([torch.zeros(990), torch.ones(10)])
    entropy = -(0.99 * math.log2(0.99) + 0.01 * math.log2(0.01))
    assert quantized({"w": rare}, 4)[1] == pytest.approx(1000 * entropy + 4 * BITS_OF_A_LEVEL)
    constant, size = quantized({"w": torch.full((7,), 3.0)}, 2)
    assert torch.equal(constant["w"], torch.full((7,), 3.0))
    assert size == 3 * BITS_OF_A_LEVEL


def test_compression_stops_where_the_loss_rises() -> None:
    weights = {"w": torch.rand(2000, generator=torch.Generator().manual_seed(0))}

    def loss(changed: dict) -> float:
        return 1e-5 + float((changed["w"] - weights["w"]).square().mean())

    bits, size = compressed_bits(weights, loss, tolerance=0.5)
    step = 1 / (2**bits - 1)
    assert step**2 / 12 < 0.5e-5 < (2 * step) ** 2 / 12 * 1.2
    assert size == pytest.approx(bits * 2000 + BITS_OF_A_LEVEL * (2**bits + 2), rel=0.05)
    with pytest.raises(InputError, match="expected 12 bits a weight to keep the loss"):
        compressed_bits(weights, lambda changed: float((changed["w"] != weights["w"]).any()) + 1e-9)
