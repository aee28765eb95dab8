"""The action diffusion transformer: action tokens, conditioned on time by adaLN-zero (DiT, Peebles & Xie 2023,
arXiv 2212.09748) and on the observation by cross-attention.

Shapes: B observations, S draws of noise an observation, T action steps, N observation tokens, W width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.models.config import TransformerConfig

Prefix = list[tuple[Tensor, Tensor]]  # keys and values (B, heads, N, W / heads) of every layer


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
    """Self-attention over the action steps, cross-attention to the observation, MLP; each behind an adaLN-zero gate."""

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
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def prefix(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values of observation tokens (B, N, W)."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return self.split_heads(key), self.split_heads(value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Multi-head attention, heads joined again: (batch, tokens, W)."""
        if query.is_cuda or not query.requires_grad:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:  # written out: a CPU's fused bfloat16 backward pass is up to ten times slower on so few tokens
            mixed = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value
        return mixed.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, modulation: Tensor, prefix: tuple[Tensor, Tensor]) -> Tensor:
        """Action tokens (B, S, T, W), what time makes of this layer (B or 1, S, 1, 9 W) and `prefix` give tokens."""
        batch, draws, steps, _ = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = modulation.chunk(9, dim=-1)

        qkv = self.qkv(modulate(x, shift1, scale1)).flatten(0, 1).chunk(3, dim=-1)
        mixed = self.attend(*(self.split_heads(part) for part in qkv)).unflatten(0, (batch, draws))
        x = torch.addcmul(x, gate1, F.dropout(self.self_out(mixed), self.dropout, self.training))

        # The draws of one observation are so many more queries to the same keys and values.
        query = self.split_heads(self.query(modulate(x, shift2, scale2)).flatten(1, 2))
        mixed = self.attend(query, *prefix).unflatten(1, (draws, steps))
        x = torch.addcmul(x, gate2, F.dropout(self.cross_out(mixed), self.dropout, self.training))

        hidden = F.gelu(self.mlp_in(modulate(x, shift3, scale3)))
        return torch.addcmul(x, gate3, F.dropout(self.mlp_out(hidden), self.dropout, self.training))


class ActionTransformer(nn.Module):
    """Predicts a denoising target for a chunk of noisy actions.

    `config.patch` consecutive actions are one token, as pixels are in DiT. `prefix` is computed once an observation and
    reused by every denoising step and every draw of noise.
    """

    def __init__(self, action_dim: int, horizon: int, config: TransformerConfig) -> None:
        super().__init__()
        width, self.patch = config.width, config.patch
        self.time_width = config.time_width
        self.action_in = nn.Linear(self.patch * action_dim, width)
        self.position = nn.Parameter(torch.randn(horizon // self.patch, width) * 0.02)
        self.time_mlp = nn.Sequential(
            nn.Linear(config.time_width, config.time_width * 4),
            nn.SiLU(),
            nn.Linear(config.time_width * 4, self.time_width),
        )
        self.prefix_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.final_modulation = nn.Linear(config.time_width, 2 * width)
        self.action_out = nn.Linear(width, self.patch * action_dim)
        for module in (self.final_modulation, self.action_out):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def prefix(self, tokens: Tensor) -> Prefix:
        """Keys and values of observation tokens (B, N, W) for every layer."""
        tokens = self.prefix_norm(tokens)
        return [cast(Layer, layer).prefix(tokens) for layer in self.layers]

    def modulations(self, time: Tensor) -> list[Tensor]:
        """What depends on times (B, S) in [0, 1] alone: shifts, scales and gates (B, S, 1, 9 W or 2 W) of the layers.

        When sampling, the times of all denoising steps go through here at once.
        """
        embedded = F.silu(self.time_mlp(time_embedding(time, self.time_width)))[:, :, None]
        return [*(cast(Layer, layer).modulation(embedded) for layer in self.layers), self.final_modulation(embedded)]

    def forward(self, noisy: Tensor, modulations: list[Tensor], prefix: Prefix) -> Tensor:
        """Noisy actions (B, S, T, D), `modulations` of their times and a prefix give the prediction in float32."""
        *layered, final = modulations
        patches = noisy.unflatten(2, (-1, self.patch)).flatten(3)  # (B, S, T / patch, patch * D)
        x = self.action_in(patches) + self.position
        for layer, modulation, layer_prefix in zip(self.layers, layered, prefix, strict=True):
            x = layer(x, modulation, layer_prefix)
        shift, scale = final.chunk(2, dim=-1)
        out = self.action_out(modulate(x, shift, scale)).float()
        return out.unflatten(3, (self.patch, -1)).flatten(2, 3)
