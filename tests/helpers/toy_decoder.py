"""A language of a few tokens whose next-token distribution depends on the last two, with the cache's book-keeping."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vla_policy.speculation import DrafterConfig, LocalDrafter, OpenDecoder, Proposal

VOCABULARY = 5


def table(seed: int, sharpness: float = 1.5) -> Tensor:
    """Logits (V, V + 1, V) by the last token, the one before it (V: none) and the next."""
    generator = torch.Generator().manual_seed(seed)
    return sharpness * torch.randn(VOCABULARY, VOCABULARY + 1, VOCABULARY, generator=generator)


class ToyDecoder:
    """Its `start` is token 0. Like a cache it can neither rewind to what it has not read nor extend what it forgot."""

    def __init__(self, logits: Tensor) -> None:
        self.start, self._logits = 0, logits
        self.tokens: list[list[int]] = [[]]
        self.passes = 0

    def extend(self, tokens: Tensor) -> Tensor:
        assert len(tokens) == len(self.tokens)
        self.passes += 1
        return torch.stack([self._after(seen, more) for seen, more in zip(self.tokens, tokens.tolist(), strict=True)])

    def rewind(self, length: int) -> None:
        assert length <= len(self.tokens[0])
        self.tokens = [self.tokens[0][:length]]

    def fork(self, lengths: Sequence[int]) -> ToyDecoder:
        fork = ToyDecoder(self._logits)
        assert max(lengths) <= len(self.tokens[0])
        fork.tokens = [self.tokens[0][:length] for length in lengths]
        return fork

    def _after(self, seen: list[int], more: list[int]) -> Tensor:
        rows = []
        for token in more:
            rows.append(self._logits[token, seen[-1] if seen else VOCABULARY])
            seen.append(token)
        return torch.stack(rows)


class AheadDrafter(LocalDrafter):
    """Prepares drafts as the process does, within this one, until it has been asked so many times whether a draft is
    wanted: the first number of `patience` after the first proposal, and so on around; None: until it is done.
    """

    def __init__(
        self, open_decoder: OpenDecoder, config: DrafterConfig, patience: Sequence[int | None] = (None,)
    ) -> None:
        super().__init__(open_decoder, config)
        self.patience = itertools.cycle(patience)

    def propose(self, position: int, token: int) -> Proposal:
        found = super().propose(position, token)
        asked, most = itertools.count(), next(self.patience)
        self.prepare(lambda: most is not None and next(asked) >= most)
        return found


def open_toy(seed: int, sharpness: float = 1.5) -> OpenDecoder:
    """Every prompt is the same to it."""
    logits = table(seed, sharpness)
    return lambda prompt: ToyDecoder(logits)


def load_toy(seed: int, sharpness: float = 1.5) -> Callable[[], OpenDecoder]:
    """For another process."""
    return functools.partial(open_toy, seed, sharpness)


def open_late(seed: int, seconds: float) -> OpenDecoder:
    """A toy whose first pass takes so many seconds more than later ones."""
    logits = table(seed)
    waiting = [seconds]

    class Late(ToyDecoder):
        def extend(self, tokens: Tensor) -> Tensor:
            if waiting:
                time.sleep(waiting.pop())
            return super().extend(tokens)

    return lambda prompt: Late(logits)


def open_misbehaving(seed: int, how: str) -> OpenDecoder:
    """A toy that, at its 6th pass for a prompt `how` (else never), raises, kills or stops its process."""
    logits = table(seed)

    class Misbehaving(ToyDecoder):
        def extend(self, tokens: Tensor) -> Tensor:
            if self.passes == 6:
                if how == "raise":
                    raise RuntimeError("out of memory")
                os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            return super().extend(tokens)

    def decoder(prompt: Any) -> ToyDecoder:
        return Misbehaving(logits) if prompt == how else ToyDecoder(logits)

    return decoder
