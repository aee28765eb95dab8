"""The text of a transformers language model as a `speculation.Decoder`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


class TextDecoder:
    """Continues a prompt of which all but the last token, `start`, are in `cache`; `first` is its first position id."""

    def __init__(
        self, language: nn.Module, head: nn.Module, cache: DynamicCache, start: int, first: int, prompt: int
    ) -> None:
        self.start = start
        self._language, self._head, self._cache, self._first = language, head, cache, first
        self._prompt = prompt  # tokens in the cache that `rewind` keeps
        self._trunk = prompt
        self._shared: Tensor | None = None  # (B,), a fork's: the first of `trunk` tokens that each sequence has

    @property
    def _length(self) -> int:
        """Tokens in the cache."""
        return int(self._cache.get_seq_length())

    def extend(self, tokens: Tensor) -> Tensor:
        device = next(self._head.parameters()).device
        (rows, count), before = tokens.shape, self._length
        at = torch.arange(before + count, device=device).expand(rows, -1)
        real, positions = torch.ones_like(at), at[:, before:]
        if self._shared is not None:
            real = 1 - ((at >= self._shared[:, None]) & (at < self._trunk)).long()
            positions = positions + self._shared[:, None] - self._trunk
        output = self._language(
            input_ids=tokens.to(device),
            attention_mask=real,
            position_ids=positions + self._first,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = self._head(output.last_hidden_state)
        return logits.float()

    def rewind(self, length: int) -> None:
        self._cache.crop(min(self._prompt + length - self._length, 0))

    def fork(self, lengths: Sequence[int]) -> TextDecoder:
        layers: Any = self._cache.layers  # of keys and values, in a cache that was made without a configuration
        copies: list[Any] = [
            tuple(part.expand(len(lengths), -1, -1, -1) for part in (layer.keys, layer.values)) for layer in layers
        ]
        fork = copy.copy(self)
        fork._cache = DynamicCache(copies)
        fork._trunk = self._length
        fork._shared = self._prompt + torch.tensor(lengths, device=copies[0][0].device)
        return fork
