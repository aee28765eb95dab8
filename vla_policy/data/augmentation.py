"""Random crops and colours for batches of image histories: the same change for all frames of a sample."""

from __future__ import annotations

import torch
from torch import nn

from vla_policy.interfaces import InputError


class RandomCrop(nn.Module):
    """Crop (B, T, H, W, C) to (B, T, size, size, C).

    Training draws a place for every sample, shared by its T frames; evaluation takes the centre.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """`generator` draws on its own device: a seed gives the same crops wherever the images are."""
        batch, _, height, width, _ = images.shape
        down, right = height - self.size, width - self.size
        if min(down, right) < 0:
            raise InputError(f"crop: expected images of at least {self.size} x {self.size}, found {height} x {width}")
        if not self.training:
            top, left = down // 2, right // 2
            return images[:, :, top : top + self.size, left : left + self.size]
        span = torch.arange(self.size, device=images.device)
        rows = _draw(down + 1, batch, generator).to(images.device)[:, None] + span
        columns = _draw(right + 1, batch, generator).to(images.device)[:, None] + span
        sample = torch.arange(batch, device=images.device)[:, None, None]
        return (
            images.transpose(1, 2).transpose(2, 3)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2, 4)
        )


class ColorJitter(nn.Module):
    """Brightness, contrast and saturation of float RGB images (B, T, H, W, 3) in [0, 1], each scaled by 1 +- strength.

    A sample's T frames share their change. Evaluation changes nothing.
    """

    def __init__(self, brightness: float = 0.1, contrast: float = 0.1, saturation: float = 0.1) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
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
    def _uniform(images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        device = generator.device if generator is not None else images.device
        draw = torch.rand(len(images), generator=generator, device=device) * 2 - 1
        return draw.to(images)[:, None, None, None, None]


def _draw(below: int, count: int, generator: torch.Generator | None) -> torch.Tensor:
    device = generator.device if generator is not None else "cpu"
    return torch.randint(below, (count,), generator=generator, device=device)
