"""Crops that know where they came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_crop(frames: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut (B, n, H, W, C) to (B, n, h, w, C) at a random place of each sample, the same for its n frames.

    Returns the crops and their top left pixels (B, 2) y, x.
    """
    height, width = crop_size(frames.shape[2:4], fraction)
    room = torch.tensor([frames.shape[2] - height + 1, frames.shape[3] - width + 1])
    draws = torch.rand(len(frames), 2, generator=generator, device=generator.device).cpu()
    corners = (draws * room).long().minimum(room - 1)
    places = zip(frames, corners.tolist(), strict=True)
    crops = torch.stack([frame[:, y : y + height, x : x + width] for frame, (y, x) in places])
    return crops, corners.to(frames.device)


def centre_crop(frames: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """The same in the middle, as at run time."""
    height, width = crop_size(frames.shape[2:4], fraction)
    y, x = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    corners = torch.tensor([y, x], device=frames.device).expand(len(frames), 2)
    return frames[:, :, y : y + height, x : x + width], corners


def crop_size(image_size: Sequence[int], fraction: float) -> tuple[int, int]:
    """Height and width in pixels of a crop that keeps `fraction` of an image's."""
    return max(1, round(image_size[0] * fraction)), max(1, round(image_size[1] * fraction))
