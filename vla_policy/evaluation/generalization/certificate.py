"""Compressed size of a policy, and the bound on its risk that follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vla_policy.interfaces import InputError

BITS_OF_A_LEVEL = 16  # to store a quantised value in the code book


def quantized(weights: Mapping[str, Tensor], bits: int) -> tuple[dict[str, Tensor], float]:
    """Each tensor rounded to 2^bits levels between its extremes, and the bits that it takes to store all of them.

    The levels' indices are counted as an arithmetic coder would: by the entropy of each tensor's histogram; the
    histograms and extremes are part of the code.
    """
    rounded, size = {}, 0.0
    levels = 2**bits
    for name, value in weights.items():
        low, high = float(value.min()), float(value.max())
        step = (high - low) / (levels - 1) if high > low else 1.0
        index = ((value - low) / step).round().clamp(0, levels - 1)
        rounded[name] = index * step + low
        counts = torch.bincount(index.flatten().long(), minlength=levels).double()
        shares = counts[counts > 0] / value.numel()
        size += -float((shares * shares.log2()).sum()) * value.numel() + BITS_OF_A_LEVEL * (int((counts > 0).sum()) + 2)
    return rounded, size


def compressed_bits(
    weights: Mapping[str, Tensor], loss: Callable[[Mapping[str, Tensor]], float], tolerance: float = 0.05
) -> tuple[int, float]:
    """The fewest bits a weight, of 12 down to 1, at which `loss` rises by at most `tolerance` of itself, and the size
    in bits with them; `InputError` if 12 do not suffice.
    """
    allowed, found = loss(weights) * (1 + tolerance), None
    for bits in range(12, 0, -1):
        rounded, size = quantized(weights, bits)
        if loss(rounded) > allowed:
            break
        found = bits, size
    if found is None:
        raise InputError(
            f"compression: expected 12 bits a weight to keep the loss below {allowed:g}, found more needed"
        )
    return found


def finite_hypothesis_bound(risk: float, bits: float, episodes: int, delta: float = 0.05, span: float = 1.0) -> float:
    """R + span * sqrt((K ln 2 + ln(1 / delta)) / (2 n)), which the true risk exceeds with probability at most delta.

    K = bits + 2 log2(bits), the length of a prefix-free code of the hypothesis (Lotfi et al. 2024, arXiv 2312.17173);
    n counts independent things, which are episodes. Above `span` it says nothing.
    """
    length = bits + 2 * math.log2(max(bits, 1.0))
    return risk + span * math.sqrt((length * math.log(2) + math.log(1 / delta)) / (2 * episodes))
