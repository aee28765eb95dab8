"""Crops that know where they came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vla_policy.interfaces import InputError


def random_crop(frames: Tensor, size: Sequence[int] | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut (B, n, H, W, C) to (B, n, h, w, C) at a random place of each sample, the same for its n frames.

    Returns the crops and their top left pixels (B, 2) y, x. `size` None keeps the whole image.
    """
    height, width = _size(frames, size)
    room = torch.tensor([frames.shape[2] - height + 1, frames.shape[3] - width + 1])
    draws = torch.rand(len(frames), 2, generator=generator, device=generator.device).cpu()
    corners = (draws * room).long().minimum(room - 1)
    if frames.is_cuda:  # one gather; on a CPU copying row by row is faster
        y = (corners[:, :1] + torch.arange(height)).to(frames.device)
        x = (corners[:, 1:] + torch.arange(width)).to(frames.device)
        sample = torch.arange(len(frames), device=frames.device)[:, None, None]
        crops = frames[sample, :, y[:, :, None], x[:, None, :]].movedim(3, 1)
    else:
        crops = torch.stack(
            [frame[:, y : y + height, x : x + width] for frame, (y, x) in zip(frames, corners.tolist(), strict=True)]
        )
    return crops, corners.to(frames.device)


def centre_crop(frames: Tensor, size: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """The same in the middle, as at run time."""
    height, width = _size(frames, size)
    y, x = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    corners = torch.tensor([y, x], device=frames.device).expand(len(frames), 2)
    return frames[:, :, y : y + height, x : x + width], corners


def _size(frames: Tensor, size: Sequence[int] | None) -> tuple[int, int]:
    height, width = size if size else frames.shape[2:4]
    if not (0 < height <= frames.shape[2] and 0 < width <= frames.shape[3]):
        raise InputError(
            f"policy.encoder.crop: expected at most the image's {tuple(frames.shape[2:4])}, found {(height, width)}"
        )
    return height, width
