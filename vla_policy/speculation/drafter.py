"""The draft: proposes tokens after each outcome of a check and, while the next one runs, for outcomes that may come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vla_policy.interfaces import InputError
from vla_policy.speculation.acceptance import Draft, chances, draw
from vla_policy.speculation.decoder import Decoder, OpenDecoder
from vla_policy.speculation.fan_out import fan_out, guesses

PRIOR = (4.0, 5.0)  # tokens kept and tokens judged, before any were


@dataclass
class DrafterConfig:
    """How far ahead a draft looks."""

    length: int = 4  # tokens drafted a round
    branches: int = 8  # outcomes of a check that are prepared for while it runs
    exponent: float = 1.0  # r, if F guesses of the next token miss it at a rate proportional to F^-r

    def __post_init__(self) -> None:
        if self.length < 1 or self.branches < 1 or not self.exponent > 0:
            raise InputError(
                "length, branches, exponent: expected at least 1, at least 1, and more than 0, found "
                f"{self.length}, {self.branches} and {self.exponent}"
            )


class Task(NamedTuple):
    """A sequence to draft for: its prompt, its length at most, the sampling temperature (None: greedy), a seed."""

    prompt: Any
    limit: int
    temperature: float | None
    seed: int


class Proposal(NamedTuple):
    """A draft, and how many of its tokens were there when it was asked for; None: for another outcome, if any."""

    draft: Draft
    ready: int | None = None


class Drafter(Protocol):
    """Proposes tokens for one sequence after the other."""

    def begin(self, task: Task) -> None:
        """Read a prompt."""
        ...

    def propose(self, position: int, token: int) -> Proposal | None:
        """A draft of what follows `token`, which the target has put at `position`; None if there is no draft any more.

        The first position is 0, that of the decoder's `start`.
        """
        ...


class LocalDrafter:
    """A draft model in this process.

    Equal seeds give equal drafts, prepared ones or not: the token at a position is drawn with a number that belongs to
    the position. That keeps the target's distribution, since a check looks at each position once.
    """

    def __init__(self, open_decoder: OpenDecoder, config: DrafterConfig) -> None:
        self.config = config
        self._open = open_decoder
        self._kept, self._judged = PRIOR
        self._ready: dict[tuple[int, int], Draft] = {}  # drafts, as far as they are there, by position and token
        self._asked: tuple[int, int, Draft] | None = None  # the last outcome, and the draft for it
        self._known: list[int] = []  # the sequence up to that outcome's token
        self._read = 0  # how many tokens the decoder has

    @property
    def acceptance(self) -> float:
        """The share of judged tokens that was kept, up to now."""
        return self._kept / self._judged

    @torch.inference_mode()
    def begin(self, task: Task) -> None:
        self._task = task
        self._uniform = torch.rand(task.limit, generator=torch.Generator().manual_seed(task.seed))
        self._decoder: Decoder = self._open(task.prompt)
        self._known, self._read = [], 0
        self._asked, self._ready = None, {}

    @torch.inference_mode()
    def prepare_first(self) -> None:
        """Draft what follows the prompt, before it is asked for."""
        first = 0, self._decoder.start
        self._ready = {first: self._complete(*first, Draft([]))}

    @torch.inference_mode()
    def propose(self, position: int, token: int) -> Proposal:
        self._judge(position)
        begun = self._ready.get((position, token))
        self._ready = {}
        draft = self._complete(position, token, begun or Draft([]))
        self._asked = position, token, draft
        return Proposal(draft, None if begun is None else len(begun.tokens))

    @torch.inference_mode()
    def prepare(self, wanted: Callable[[], bool]) -> None:
        """Draft for likely outcomes of the check of the last draft, until one is `wanted`."""
        if self._asked is None or wanted():
            return
        position, token, draft = self._asked
        logits = self._follow(position, [token, *draft.tokens])
        counts = fan_out(self.config.branches, len(draft.tokens), self.acceptance, self.config.exponent)
        outcomes = [(position + 1 + k, guess) for k, guess in guesses(logits, draft.tokens, counts)]
        outcomes = [(place, guess) for place, guess in outcomes if self._length(place) > 0]
        if outcomes:
            self._branch(outcomes, wanted)

    def _branch(self, outcomes: list[tuple[int, int]], wanted: Callable[[], bool]) -> None:
        """Draft for all outcomes (position, token), a token of each in one pass."""
        places, tokens = torch.tensor(outcomes).unbind(1)
        fork = self._decoder.fork(places.tolist())
        drafted: list[Tensor] = []
        drawn_from: list[Tensor] = []
        latest = tokens
        for step in range(max(self._length(place) for place in places.tolist())):
            if wanted():
                break
            row = chances(fork.extend(latest[:, None])[:, -1], self._task.temperature)
            latest = draw(row, self._uniform[(places + step).clamp(max=self._task.limit - 1)])
            drafted.append(latest)
            drawn_from.append(row)
        if not drafted:
            return
        every, rows = torch.stack(drafted, 1).tolist(), torch.stack(drawn_from, 1)
        for k, outcome in enumerate(outcomes):
            count = self._length(outcome[0])
            self._ready[outcome] = self._draft(every[k][:count], rows[k, :count])

    def _complete(self, position: int, token: int, begun: Draft) -> Draft:
        """A whole draft for what follows `token` at `position`, of which some tokens may be there already."""
        tokens, count = list(begun.tokens), self._length(position)
        if len(tokens) >= count:
            return begun
        rows = [] if begun.chances is None else list(begun.chances)
        logits = self._follow(position, [token, *tokens])[-1]
        while True:
            rows.append(chances(logits, self._task.temperature))
            tokens.append(int(draw(rows[-1], self._uniform[position + len(tokens)])))
            if len(tokens) == count:
                break
            logits = self._follow(position + len(tokens), tokens[-1:])[-1]
        return self._draft(tokens, rows)

    def _draft(self, tokens: list[int], rows: list[Tensor] | Tensor) -> Draft:
        if self._task.temperature is None:
            return Draft(tokens)
        return Draft(tokens, rows if isinstance(rows, Tensor) else torch.stack(rows))

    def _length(self, position: int) -> int:
        """How many tokens may be drafted after one at `position`: the target adds one to them."""
        return min(self.config.length, self._task.limit - position - 1)

    def _judge(self, position: int) -> None:
        """What the outcome of the last check says about the sequence and about the acceptance."""
        if self._asked is not None:
            last, token, draft = self._asked
            self._known = [*self._known[:last], token, *draft.tokens][:position]
            self._read = min(self._read, position)  # what follows there was refused
            kept = position - last - 1
            self._kept += kept
            self._judged += min(kept + 1, len(draft.tokens))

    def _follow(self, position: int, tokens: list[int]) -> Tensor:
        """The logits (n, V) of what follows each of these tokens from `position` on."""
        start = min(self._read, position)
        missing = self._known[start:position]
        self._decoder.rewind(start)
        self._read = position + len(tokens)
        return self._decoder.extend(torch.tensor([[*missing, *tokens]]))[0, len(missing) :]
