"""Which outcomes of a check the draft prepares for (SSD, arXiv 2603.03251).

An outcome is the number k of kept tokens, out of K drafted ones, and the token that the target puts after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SURE = 0.99  # an acceptance of 1 would leave nothing for any outcome but that of all tokens kept


def shares(length: int, acceptance: float, exponent: float) -> list[float]:
    """The part of the budget for each k in 0..K: of K + 1 numbers whose sum is 1.

    If F guesses of the next token miss it at a rate proportional to F^-r, the misses sum_k P(k) F_k^-r are fewest for
    F_k in proportion to P(k)^(1 / (1 + r)), where P(k) = a^k (1 - a) for k < K and P(K) = a^K: a geometric series, F_k
    = F_0 a^(k / (1 + r)), with more at its end.
    """
    a = min(max(acceptance, 1 - SURE), SURE)
    outcomes = [a**k * (1 - a) for k in range(length)] + [a**length]
    weights = [chance ** (1 / (1 + exponent)) for chance in outcomes]
    return [weight / sum(weights) for weight in weights]


def fan_out(budget: int, length: int, acceptance: float, exponent: float) -> list[int]:
    """Whole numbers of guesses for each k in 0..K, of `budget` in all: `shares`, by largest remainders."""
    exact = [budget * share for share in shares(length, acceptance, exponent)]
    counts = [int(number) for number in exact]
    first = sorted(range(len(exact)), key=lambda k: counts[k] - exact[k])
    for k in first[: budget - sum(counts)]:
        counts[k] += 1
    return counts


def guesses(logits: Tensor, drafted: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    """The outcomes (k, token) for the draft's logits (K + 1, V): after k kept tokens the `counts[k]` likeliest ones.

    Where a drafted token was refused it cannot come again, so it is no guess.
    """
    found = []
    for k, count in enumerate(counts):
        row = logits[k].clone()
        if k < len(drafted):
            row[drafted[k]] = -torch.inf
        likely = row.topk(min(count, len(row) - (k < len(drafted)))).indices
        found += [(k, token) for token in likely.tolist()]
    return found
