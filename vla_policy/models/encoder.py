"""Observations to tokens: an MLP for each vector, a small convolutional network for each camera.

Shapes: B observations, n = n_obs_steps, M = B * n frames, K keypoints, G = grid, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.policy_config import EncoderConfig
from vla_policy.data import crop_size
from vla_policy.interfaces import InputError, Interface

STEM_STRIDE = 4


class Observed(NamedTuple):
    """The encoding of a batch of observations."""

    tokens: Tensor  # (B, N, W)
    real: Tensor | None  # (B, N) bool, false for padding; None: no padding
    estimates: dict[str, Tensor]  # normalised (B, image_steps, D) of each auxiliary key
    context: Tensor | None  # (B, time_width), pooled backbone features; None without a backbone
    seen: Any  # vision features; None without a backbone or with precomputed hidden states
    pose: Tensor | None  # (B, 1, 4) of the object in whose frame the policy acts; None without one


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place of (M, channels, h, w), as in ConvNeXt (Liu et al. 2022,
    arXiv 2201.03545).

    Like group normalisation and unlike batch normalisation it goes well with averaged weights; on a CPU with images
    in channels-last order it is several times faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Residual block with normalisation in front."""

    def __init__(self, channels: int, out: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, out or channels, 3, stride, 1)
        self.residual = out is None and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.relu(self.norm(x)))
        return x + y if self.residual else y


class CameraEncoder(nn.Module):
    """One camera's frames to tokens: one of spatial-softmax keypoints, G x G of coarse features; without
    `config.tokens` to a summary alone.

    Positions are in coordinates of the whole image ([-1, 1], x right and y down), so that a random crop in training
    does not change them.
    """

    def __init__(self, image_shape: tuple[int, ...], width: int, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.channels
        self.image_size = image_shape[:2]
        self.crop = crop_size(self.image_size, config.crop)
        if min(self.crop) < STEM_STRIDE:
            raise InputError(f"encoder: expected pictures of at least {STEM_STRIDE} pixels a side, found {self.crop}")
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], STEM_STRIDE, STEM_STRIDE)]
        for before, now in zip([None, *channels[:-1]], channels, strict=True):
            if before is not None:
                layers.append(Block(before, now, stride=2))
            layers += [Block(now) for _ in range(config.blocks)]
        self.features = nn.Sequential(*layers, ChannelNorm(channels[-1]), nn.ReLU())
        self.heatmaps = nn.Conv2d(channels[-1], config.keypoints, 1)
        self.tokens, self.grid = config.tokens, config.grid if config.tokens else 0
        if self.tokens:
            self.keypoint_token = nn.Linear(2 * config.keypoints, width)
        if self.grid:
            self.grid_token = nn.Linear(channels[-1], width)
            self.grid_place = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.summary_width = 2 * config.keypoints + channels[-1]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor, top_left: Tensor) -> tuple[Tensor | None, Tensor]:
        """Cropped frames (M, h, w, 3) uint8 or [0, 255] float whose top left pixels lie at `top_left` (M, 2) y, x.

        Returns tokens (M, 1 + G * G, W), if there are any, and a summary (M, 2 K + channels) for auxiliary heads.
        """
        images = (pixels.to(self.heatmaps.weight.dtype) / 127.5 - 1.0).movedim(-1, 1)
        features = self.features(images)
        keypoints = spatial_softmax(self.heatmaps(features), self.places(features.shape[-2:], top_left))
        summary = torch.cat([keypoints, features.mean((2, 3)).float()], dim=1)
        if not self.tokens:
            return None, summary
        tokens = [self.keypoint_token(keypoints)[:, None]]
        if self.grid:
            coarse = F.adaptive_avg_pool2d(features, self.grid).flatten(2).transpose(1, 2)
            places = self.places((self.grid, self.grid), top_left)
            tokens.append(self.grid_token(coarse) + self.grid_place(places))
        return torch.cat(tokens, dim=1), summary

    def places(self, shape: tuple[int, ...], top_left: Tensor) -> Tensor:
        """Centres (M, rows * columns, 2), x and y, of a grid laid over the crop, in coordinates of the whole image."""
        centres = []
        for axis in (0, 1):
            steps = (torch.arange(shape[axis], device=top_left.device) + 0.5) * (self.crop[axis] / shape[axis])
            centres.append((top_left[:, axis, None] + steps) * (2.0 / self.image_size[axis]) - 1.0)
        y, x = centres
        rows, columns = shape
        return torch.stack([x[:, None].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)], -1).flatten(1, 2)


def spatial_softmax(heatmaps: Tensor, places: Tensor) -> Tensor:
    """Expected coordinates (M, 2 K) of K heatmaps (M, K, h, w) over `places` (M, h * w, 2).

    Always in float32: a coordinate has to be finer than bfloat16's three digits. (Levine et al. 2016, arXiv 1504.00702)
    """
    with torch.autocast(heatmaps.device.type, enabled=False):
        weights = heatmaps.float().flatten(2).softmax(-1)
        return (weights @ places.float()).flatten(1)


class ObservationEncoder(nn.Module):
    """All features of an interface, over `n_obs_steps`, to tokens; without a configuration, vectors only."""

    def __init__(self, interface: Interface, n_obs_steps: int, width: int, config: EncoderConfig | None) -> None:
        super().__init__()
        self.cameras = [] if config is None else interface.cameras
        self.vectors = [key for key in interface.observations if key not in interface.cameras]
        self.vector_tokens = nn.ModuleDict(
            {module_name(key): vector_token(interface.observations[key].shape[0], width) for key in self.vectors}
        )
        self.camera_tokens = nn.ModuleDict(
            {
                module_name(key): CameraEncoder(interface.observations[key].shape, width, config)
                for key in self.cameras
                if config is not None
            }
        )
        self.steps = nn.Parameter(torch.randn(n_obs_steps, width) * 0.02)
        self.summary_width = sum(module.summary_width for module in self.camera_tokens.values())  # type: ignore[misc]

    def read(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """Tokens (B, n, W) of each vector, normalised (B, n, D) by key."""
        return [self.vector_tokens[module_name(key)](values[key]) + self.steps for key in self.vectors]

    def look(self, images: Mapping[str, Tensor], top_left: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """Tokens (B, N, W) of each camera that gives any, of cropped newest frames (B, m <= n, h, w, 3) and crops'
        corners (B, 2) by key, and, if there are cameras, their summary (B, m, summary_width).
        """
        tokens, summaries = [], []
        for key in self.cameras:
            frames = images[key]
            corners = top_left[key].repeat_interleave(frames.shape[1], dim=0)
            seen, summary = self.camera_tokens[module_name(key)](frames.flatten(0, 1), corners)
            if seen is not None:
                steps = self.steps[-frames.shape[1] :, None]
                tokens.append((seen.unflatten(0, frames.shape[:2]) + steps).flatten(1, 2))
            summaries.append(summary.unflatten(0, frames.shape[:2]))
        return tokens, torch.cat(summaries, dim=-1) if summaries else None


def vector_token(size: int, width: int) -> nn.Module:
    """Normalised vectors (..., size) to tokens (..., width)."""
    return nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))


def module_name(key: str) -> str:
    """A feature key as a module name, where torch allows no dots."""
    return key.replace(".", "_")
