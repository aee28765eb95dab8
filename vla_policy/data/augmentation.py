"""Random crops with known position, and colour jitter, for batches of image histories.

All frames of a sample get the same transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def random_crop(frames: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop (B, n, H, W, C) to (B, n, h, w, C) at a random position per sample, the same for its n frames.

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
    """The centre crop, as used at inference; same returns as `random_crop`."""
    height, width = crop_size(frames.shape[2:4], fraction)
    y, x = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    corners = torch.tensor([y, x], device=frames.device).expand(len(frames), 2)
    return frames[:, :, y : y + height, x : x + width], corners


def crop_size(image_size: Sequence[int], fraction: float) -> tuple[int, int]:
    """Height and width in pixels of a crop that keeps `fraction` of an image's."""
    return max(1, round(image_size[0] * fraction)), max(1, round(image_size[1] * fraction))


class ColorJitter(nn.Module):
    """Brightness, contrast and saturation of float RGB images (B, T, H, W, 3) in [0, 1], each scaled by 1 +- strength.

    A sample's T frames share their factors. The identity in evaluation mode.
    """

    def __init__(self, brightness: float = 0.1, contrast: float = 0.1, saturation: float = 0.1) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if not self.training:
            return images
        brightness, contrast, saturation = (
            1 + strength * self._uniform(images, generator)
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        images = images * brightness
        mean = images.mean((1, 2, 3, 4), keepdim=True)
        images = mean + (images - mean) * contrast
        grey = (images * images.new_tensor([0.299, 0.587, 0.114])).sum(-1, keepdim=True)
        return (grey + (images - grey) * saturation).clamp(0, 1)

    @staticmethod
    def _uniform(images: Tensor, generator: torch.Generator | None) -> Tensor:
        device = generator.device if generator is not None else images.device
        draw = torch.rand(len(images), generator=generator, device=device) * 2 - 1
        return draw.to(images)[:, None, None, None, None]
