"""The action transformer: action tokens, conditioned on time by adaLN-zero (DiT, Peebles & Xie 2023,
arXiv 2212.09748) and on the observation by cross-attention. The head defines the meaning of its tokens.

Shapes: B observations, S draws of noise an observation, n action tokens, N observation tokens, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.policy_config import TransformerConfig


@dataclass(frozen=True)
class Prefix:
    """An encoded observation: keys and values (B, heads, N, W / heads) per layer, an attention bias (B, 1, 1, N), -inf
    for padding, and a context (B, 1, time_width) that is added to the time embedding.
    """

    layers: list[tuple[Tensor, Tensor]]
    bias: Tensor | None = None
    context: Tensor | None = None


@dataclass
class LayerCache:
    """Keys and values (B * S, heads, n, W / heads) of a layer's self-attention for the tokens seen so far."""

    key: Tensor | None = None
    value: Tensor | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], dim=2), torch.cat([self.value, value], dim=2)
        self.key, self.value = key, value
        return key, value


@dataclass
class Cache:
    """The key-value cache of causal passes over S sequences of an observation.

    A fork's sequences share their first tokens, the trunk: each has the first `shared` (S,) of `trunk` tokens.
    """

    layers: list[LayerCache] = field(default_factory=list)
    length: int = 0
    trunk: int = 0
    shared: Tensor | None = None

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.length = length
        for layer in self.layers:
            if layer.key is not None and layer.value is not None:
                layer.key, layer.value = layer.key[:, :, :length], layer.value[:, :, :length]

    def fork(self, lengths: Tensor) -> Cache:
        """Sequences (S,) that go on after the first `lengths` (S,) tokens of this one, of a single observation."""
        layers = []
        for layer in self.layers:
            assert layer.key is not None
            assert layer.value is not None
            key, value = (part.expand(len(lengths), -1, -1, -1) for part in (layer.key, layer.value))
            layers.append(LayerCache(key, value))
        return Cache(layers, self.length, self.length, lengths)

    def positions(self, count: int, most: int) -> Tensor | slice:
        """Those of the next `count` tokens: of all sequences, or of each (S, count). Below `most`: a fork's shorter
        sequences go on after their end as long as others do.
        """
        if self.shared is None:
            return slice(self.length, self.length + count)
        after = self.length - self.trunk + torch.arange(count, device=self.shared.device)
        return (self.shared[:, None] + after).clamp(max=most - 1)

    def bias(self, count: int, device: torch.device) -> Tensor | None:
        """What hides from the next `count` tokens those after them, and a fork's from those of the trunk that are not
        theirs: (count, length + count), or (S, 1, count, length + count).
        """
        if count == 1 and self.shared is None:
            return None
        hidden = torch.ones(count, self.length + count, dtype=torch.bool, device=device).triu(1 + self.length)
        if self.shared is not None:
            at = torch.arange(self.length + count, device=device)
            others = (at >= self.shared[:, None]) & (at < self.trunk)
            hidden = hidden | others[:, None, None]
        return torch.zeros(hidden.shape, device=device).masked_fill(hidden, -torch.inf)


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Sinusoids of diffusion time (...,) in [0, 1] as (..., width), with DiT's frequencies for times up to 1000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
    angles = 1000 * time.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation whose affine part depends on time (adaLN)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class Layer(nn.Module):
    """Self-attention over action tokens, cross-attention to the observation, MLP; each behind an adaLN-zero gate."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.modulation = nn.Linear(config.time_width, 9 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """(batch, tokens, W) to (batch, heads, tokens, W / heads)."""
        parts: Tensor = x.unflatten(-1, (self.heads, -1))
        return parts.transpose(1, 2)

    def prefix(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values of observation tokens (B, N, W)."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return self.split_heads(key), self.split_heads(value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Multi-head attention with a bias on its scores, heads joined again: (batch, tokens, W)."""
        bias = None if bias is None else bias.to(query.dtype)
        if query.is_cuda or not query.requires_grad:
            mixed = F.scaled_dot_product_attention(query, key, value, bias)
        else:  # written out: a CPU's fused bfloat16 backward pass is up to ten times slower on so few tokens
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            mixed = (scores if bias is None else scores + bias).softmax(-1) @ value
        return mixed.transpose(1, 2).flatten(2)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        prefix: tuple[Tensor, Tensor],
        prefix_bias: Tensor | None = None,
        bias: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Action tokens (B, S, n, W), this layer's modulation (B or 1, S, 1, 9 W) and `prefix` to tokens.

        `bias` is added to the scores of self-attention; with a cache, tokens attend to its tokens as well.
        """
        batch, draws, count, _ = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = modulation.chunk(9, dim=-1)

        qkv = self.qkv(modulate(x, shift1, scale1)).flatten(0, 1).chunk(3, dim=-1)
        query, key, value = (self.split_heads(part) for part in qkv)
        if cache is not None:
            key, value = cache.extend(key, value)
        mixed = self.attend(query, key, value, bias).unflatten(0, (batch, draws))
        x = torch.addcmul(x, gate1, F.dropout(self.self_out(mixed), self.dropout, self.training))

        # The draws of one observation are additional queries to the same keys and values.
        query = self.split_heads(self.query(modulate(x, shift2, scale2)).flatten(1, 2))
        mixed = self.attend(query, *prefix, prefix_bias).unflatten(1, (draws, count))
        x = torch.addcmul(x, gate2, F.dropout(self.cross_out(mixed), self.dropout, self.training))

        hidden = F.gelu(self.mlp_in(modulate(x, shift3, scale3)))
        return torch.addcmul(x, gate3, F.dropout(self.mlp_out(hidden), self.dropout, self.training))


class ActionTransformer(nn.Module):
    """`length` action tokens in, as many features out.

    `prefix` is computed once an observation and reused by every denoising step and every draw of noise.
    """

    def __init__(self, length: int, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.time_width = config.time_width
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.time_mlp = nn.Sequential(
            nn.Linear(config.time_width, config.time_width * 4),
            nn.SiLU(),
            nn.Linear(config.time_width * 4, self.time_width),
        )
        self.prefix_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.final_modulation = nn.Linear(config.time_width, 2 * width)
        nn.init.zeros_(self.final_modulation.weight)
        nn.init.zeros_(self.final_modulation.bias)

    def prefix(self, tokens: Tensor, real: Tensor | None = None, context: Tensor | None = None) -> Prefix:
        """Keys and values of observation tokens (B, N, W) for every layer; `real` (B, N) bool is false for padding.

        `context` (B, time_width) is added to the time embedding, like the class label in DiT.
        """
        tokens = self.prefix_norm(tokens.to(self.position.dtype))
        bias = None
        if real is not None:
            bias = torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)[:, None, None]
        layers = [cast(Layer, layer).prefix(tokens) for layer in self.layers]
        return Prefix(layers, bias, None if context is None else context[:, None])

    def modulations(self, time: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Shifts, scales and gates (B, S, 1, 9 W or 2 W) of the layers for times (B or 1, S) in [0, 1] and a prefix's
        context.

        When sampling, the times of all denoising steps go through here at once.
        """
        embedded = self.time_mlp(time_embedding(time, self.time_width).to(self.position.dtype))
        if context is not None:
            embedded = embedded + context.to(embedded.dtype)
        embedded = F.silu(embedded)[:, :, None]
        return [*(cast(Layer, layer).modulation(embedded) for layer in self.layers), self.final_modulation(embedded)]

    def new_cache(self) -> Cache:
        return Cache([LayerCache() for _ in self.layers])

    def forward(
        self, x: Tensor, modulations: list[Tensor], prefix: Prefix, causal: bool = False, cache: Cache | None = None
    ) -> Tensor:
        """Embedded action tokens (B, S, n, W), `modulations` of their times and a prefix to features (B, S, n, W).

        `causal`: a token attends to itself and its predecessors. With a cache, `x` are the next tokens.
        """
        *layered, final = modulations
        count, seen = x.shape[2], Cache() if cache is None else cache
        bias = None if cache is None and not causal else seen.bias(count, x.device)
        x = x + self.position[seen.positions(count, len(self.position))]
        for k, (layer, modulation) in enumerate(zip(self.layers, layered, strict=True)):
            x = layer(x, modulation, prefix.layers[k], prefix.bias, bias, cache.layers[k] if cache else None)
        if cache is not None:
            cache.length += count
        shift, scale = final.chunk(2, dim=-1)
        return modulate(x, shift, scale)
