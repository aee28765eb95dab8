"""The predictor: a causal transformer over latents, conditioned on actions by adaLN-zero (DiT, Peebles & Xie 2023,
arXiv 2212.09748), as in LeWorldModel (arXiv 2603.19312).

Shapes: B sequences, T steps, D latent, W width, A numbers in one step's action.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.world_model_config import PredictorConfig
from vla_policy.models.transformer import modulate


class Layer(nn.Module):
    """Causal self-attention and an MLP, each with an adaLN-zero gate conditioned on the step's action."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads, self.dropout = config.heads, config.dropout
        attended = width if config.head_width is None else config.heads * config.head_width
        self.qkv = nn.Linear(width, 3 * attended)
        self.out = nn.Linear(attended, width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        """Tokens and embedded actions (B, T, W) to tokens; step t sees the steps up to t."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(action)).chunk(6, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(modulate(x, shift1, scale1)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        x = x + gate1 * F.dropout(self.out(mixed), self.dropout, self.training)
        hidden = F.gelu(self.mlp_in(modulate(x, shift2, scale2)))
        return x + gate2 * F.dropout(self.mlp_out(hidden), self.dropout, self.training)


class Predictor(nn.Module):
    """Latents (B, T, D) and the actions taken from each (B, T, A) to the latents that follow each (B, T, D)."""

    def __init__(self, latent: int, action: int, history: int, hidden: int, config: PredictorConfig) -> None:
        super().__init__()
        width = config.width
        self.token = nn.Linear(latent, width)
        self.action = nn.Sequential(nn.Linear(action, width), nn.SiLU(), nn.Linear(width, width))
        self.position = nn.Parameter(torch.randn(history, width) * 0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = projector(width, latent, hidden)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        count = latents.shape[1]
        x = self.token(latents) + self.position[:count]
        action = self.action(actions)
        for layer in self.layers:
            x = layer(x, action)
        predicted: Tensor = self.head(self.norm(x).flatten(0, 1)).unflatten(0, latents.shape[:2])
        return predicted


def projector(features: int, latent: int, hidden: int) -> nn.Module:
    """An MLP with batch normalisation: layer normalisation would prevent the Gaussian that SIGReg requires."""
    return nn.Sequential(nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, latent))
