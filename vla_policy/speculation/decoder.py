"""What speculation needs of a model: the next token's logits for a prefix, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from torch import Tensor


class Decoder(Protocol):
    """Sequences (B,) that continue one prompt, which has been read, with the keys and values of their tokens.

    A position counts tokens after the prompt; the token at position 0 is `start`, and the logits that follow it are
    those of the first token to decode.
    """

    start: int

    def extend(self, tokens: Tensor) -> Tensor:
        """Append tokens (B, n); the logits (B, n, V) of what follows each of them."""
        ...

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens. Not of a fork."""
        ...

    def fork(self, lengths: Sequence[int]) -> Self:
        """Sequences (B,) that share the first `lengths` of these tokens and go on apart, in one pass. Not of a fork."""
        ...


OpenDecoder = Callable[[Any], Decoder]  # reads a prompt
