"""The decoding loop: draft, check in one pass of the target, keep what the target would have said."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from vla_policy.speculation.acceptance import Draft, chances, verify
from vla_policy.speculation.decoder import Decoder
from vla_policy.speculation.drafter import Drafter


@dataclass
class Decoded:
    """Decoded tokens, and how they came about."""

    tokens: list[int] = field(default_factory=list)
    passes: int = 0  # of the target
    drafted: int = 0  # tokens that were drafted and judged: those after a refused one are not
    kept: int = 0  # tokens of them
    asked: int = 0  # drafts after the first, which no outcome precedes
    hits: int = 0  # of them, those whose outcome had been guessed
    late: int = 0  # of the hits, those that were not complete when they were asked for


@torch.inference_mode()
def decode(
    target: Decoder,
    limit: int,
    temperature: float | None,
    generator: torch.Generator,
    drafter: Drafter | None = None,
    end: int | None = None,
) -> Decoded:
    """At most `limit` tokens, drawn as from the target alone; greedily without a temperature. `end` is the last one.

    The drafter has read the prompt. Without one, or once it is gone, the target decodes a token a pass.
    """
    found, last = Decoded(), target.start
    tokens: list[int] = []
    while len(tokens) < limit:
        draft, position = Draft([]), len(tokens)
        if drafter is not None and limit - position > 1:
            proposal = drafter.propose(position, last)
            if proposal is None:
                drafter = None
            else:
                draft = proposal.draft
                found.asked += position > 0
                found.hits += position > 0 and proposal.ready is not None
                found.late += position > 0 and proposal.ready is not None and proposal.ready < len(draft.tokens)
        logits = target.extend(torch.tensor([[last, *draft.tokens]]))[0]
        kept, last = verify(chances(logits, temperature), draft, generator)
        target.rewind(position + kept + 1)
        found.passes += 1
        found.kept += kept
        found.drafted += min(kept + 1, len(draft.tokens))
        tokens += [*draft.tokens[:kept], last]
        if end in tokens[position:]:
            tokens = tokens[: tokens.index(end, position) + 1]
            break
    found.tokens = tokens
    return found
