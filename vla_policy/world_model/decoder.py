"""A decoder for visualising latents, trained afterwards on the frozen world model.

As in LeWorldModel (arXiv 2603.19312) one query per patch attends to the latent, which is split into a few tokens. The
output is the difference from the mean image.

Shapes: B latents, D latent, C cameras, S image side, P patches of all cameras, W width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vla_policy.conf.checks import DEEPEST, LARGEST_IMAGE, WIDEST, check_ranges
from vla_policy.interfaces import InputError, within
from vla_policy.models.checkpoint import check_header, read_header, sizes_only

Batch = Callable[[], tuple[Tensor, Tensor]]  # latents (B, D) and their images (B, C, S, S, 3), 0 to 255


@dataclass(frozen=True)
class DecoderConfig:
    """From `latent` dimensions to images of `cameras` cameras, `image_size` x `image_size` pixels each."""

    latent: int
    image_size: int
    cameras: int = 1
    patch_size: int = 8  # pixels, or the next smaller divisor of image_size
    width: int = 64
    depth: int = 2
    heads: int = 4
    tokens: int = 16  # that the latent is split into

    @property
    def patch(self) -> int:
        return next(size for size in range(self.patch_size, 0, -1) if self.image_size % size == 0)


class Layer(nn.Module):
    """Cross-attention of the queries to the latent's tokens, and an MLP."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries (B, P, W) and tokens (B, K, W) to queries."""
        queries = queries + self.attention(self.norm1(queries), tokens, tokens, need_weights=False)[0]
        drawn: Tensor = queries + self.mlp(self.norm2(queries))
        return drawn


class Decoder(nn.Module):
    """Latents to images. `background` (C, S, S, 3), 0 to 1, is the mean image."""

    def __init__(self, config: DecoderConfig, background: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        patches = config.cameras * (config.image_size // config.patch) ** 2
        self.tokens = nn.Sequential(nn.Linear(config.latent, config.tokens * config.width), nn.GELU())
        self.queries = nn.Parameter(torch.randn(patches, config.width) * 0.5)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.pixels = nn.Linear(config.width, config.patch**2 * 3)
        nn.init.zeros_(self.pixels.weight)
        nn.init.zeros_(self.pixels.bias)
        shape = (config.cameras, config.image_size, config.image_size, 3)
        self.background: Tensor
        self.register_buffer("background", torch.full(shape, 0.5) if background is None else background)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, D) to images (B, C, S, S, 3), 0 to 1 but for what overshoots."""
        tokens = self.tokens(latents).unflatten(-1, (self.config.tokens, self.config.width))
        queries = self.queries.expand(len(latents), -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        drawn: Tensor = self.background + self._assembled(self.pixels(self.norm(queries)))
        return drawn

    @torch.inference_mode()
    def pictures(self, latents: Tensor) -> Tensor:
        """Images (B, C, S, S, 3) uint8 of latents (B, D), for viewing."""
        return (255 * self(latents)).round().clamp(0, 255).to(torch.uint8)

    def save(self, path: Path) -> None:
        """One safetensors file; its metadata holds the configuration."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path, {"decoder": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path) -> Decoder:
        """Load a file of `save`; `InputError` for other files."""
        with within(f"{path}: expected a decoder"):
            header = read_header(path)
        with safe_open(path, "pt") as file:
            config = _stored_config((file.metadata() or {}).get("decoder", ""), path)
            with within(path), sizes_only(header):
                state = cls(config).state_dict()
            check_header(path, header, state, state)
            decoder = cls(config)
            decoder.load_state_dict({name: file.get_tensor(name) for name in header})
        return decoder.eval()

    def _assembled(self, patches: Tensor) -> Tensor:
        """Patches (B, P, patch * patch * 3) as images (B, C, S, S, 3)."""
        side, size = self.config.image_size // self.config.patch, self.config.patch
        grid = patches.unflatten(-1, (size, size, 3)).unflatten(1, (self.config.cameras, side, side))
        return grid.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _stored_config(text: str, path: Path) -> DecoderConfig:
    names = {field.name for field in fields(DecoderConfig)}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or set(config) != names or not all(type(size) is int for size in config.values()):
        raise InputError(f"{path}: expected a decoder, with {sorted(names)} as whole numbers, found {text[:100]!r}")
    found = DecoderConfig(**config)
    with within(path):
        sizes = dict.fromkeys(names - {"depth", "image_size", "patch_size"}, (1, WIDEST))
        images = dict.fromkeys(("image_size", "patch_size"), (1, LARGEST_IMAGE))
        check_ranges(found, "decoder", depth=(0, DEEPEST), **images, **sizes)
        if found.width % found.heads:
            raise InputError(f"decoder.width: expected a multiple of heads {found.heads}, found {found.width}")
    return found


def train_decoder(
    decoder: Decoder, batch: Batch, steps: int, lr: float = 2e-3, on_step: Callable[[float], None] | None = None
) -> Decoder:
    """Train on a `batch()` per step; `on_step` is called with the squared error (pixels 0 to 1)."""
    optimiser = torch.optim.AdamW(decoder.parameters(), lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(steps, 2), pct_start=0.1)
    decoder.train()
    for _ in range(steps):
        latents, images = batch()
        loss = F.mse_loss(decoder(latents), images.float() / 255)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(float(loss.detach()))
    return decoder.eval()
