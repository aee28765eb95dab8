"""Drawing tokens, and the check of drafted ones that keeps the target's distribution (Leviathan et al. 2023,
arXiv 2211.17192, algorithm 1).

Shapes: n drafted tokens, V tokens of the vocabulary. Greedy decoding is the case of one-hot distributions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_policy.interfaces import InputError


@dataclass(frozen=True)
class Draft:
    """Drafted tokens and the distributions (n, V) that they were drawn from; None: each was certain."""

    tokens: list[int]
    chances: Tensor | None = None

    def distribution(self, k: int, size: int) -> Tensor:
        """What token k was drawn from (V,)."""
        if self.chances is not None:
            return self.chances[k]
        return F.one_hot(torch.tensor(self.tokens[k]), size).float()


def chances(logits: Tensor, temperature: float | None) -> Tensor:
    """Distributions (..., V) of logits (..., V), on the CPU; one-hot without a temperature."""
    if temperature is None:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).float().cpu()
    return (logits.float() / temperature).softmax(-1).cpu()


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (...) in proportion to weights (..., V), by inverting their cumulative sum at uniform (...) in [0, 1).

    `InputError` for weights that are not finite, as those of damaged models.
    """
    cumulative = weights.double().cumsum(-1)
    if not bool(cumulative[..., -1].isfinite().all()):
        raise InputError("tokens: expected finite probabilities, found others; the model's weights are damaged")
    wanted = uniform.double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, wanted, right=True)[..., 0]


def verify(target: Tensor, draft: Draft, generator: torch.Generator) -> tuple[int, int]:
    """How many drafted tokens are kept, and the token after them.

    `target` (n + 1, V) are the target's distributions for each drafted token and for the one after the last. Token k is
    kept with probability min(1, p / q); the first that is not is replaced by a draw from max(0, p - q), normalised.
    """
    count, size = len(draft.tokens), target.shape[-1]
    uniforms = torch.rand(count + 1, generator=generator)
    rest = target[count]
    kept = count
    for k, token in enumerate(draft.tokens):
        proposed = draft.distribution(k, size)
        if float(uniforms[k] * proposed[token]) >= float(target[k, token]):
            difference = (target[k] - proposed).clamp(min=0)
            rest = difference if bool(difference.any()) else target[k]  # nothing is left of equal ones but rounding
            kept = k
            break
    return kept, int(draw(rest, uniforms[count]))
