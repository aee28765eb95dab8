"""Image encoders: a CNN for a CPU, a ViT for a GPU, or a frozen pretrained encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, ImageProcessingMixin, ViTConfig, ViTModel

from vla_policy.conf.policy_config import EncoderConfig
from vla_policy.conf.world_model_config import VisionConfig
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.models.encoder import CameraEncoder
from vla_policy.models.vlm.files import quietly, readable


class ConvolutionalVision(nn.Module):
    """The policies' camera encoder without its crop; keypoints localise a block to a fraction of a pixel."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        shape = (config.image_size, config.image_size, 3)
        encoder = EncoderConfig(1.0, list(config.channels), 1, config.keypoints, config.grid, 0.0)
        self.encoder = CameraEncoder(shape, config.width, encoder)
        self.features = config.width * (1 + config.grid**2)

    def forward(self, images: Tensor) -> Tensor:
        """Images (M, size, size, 3), 0 to 255, to features (M, F)."""
        tokens, _ = self.encoder(images, torch.zeros(len(images), 2, device=images.device))
        return cast(Tensor, tokens).flatten(1)


class TransformerVision(nn.Module):
    """A ViT trained from scratch; the feature is its class token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vit = ViTModel(
            ViTConfig(
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                image_size=config.image_size,
                patch_size=config.patch_size,
            ),
            add_pooling_layer=False,
        )
        self.features = config.width

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images / 127.5 - 1.0).movedim(-1, 1)
        return cast(Tensor, self.vit(pixel_values=pixels).last_hidden_state[:, 0])


class FrozenVision(nn.Module):
    """A pretrained vision tower; patch tokens are averaged over a coarse grid, which keeps positions.

    `path` is a hub name or folder of a transformers vision model, or a folder of a policy whose backbone has one.
    """

    GRID = 4

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        assert config.path is not None
        self.tower, mean, std = _tower(config.path)
        self.tower.requires_grad_(False).float()  # many are published in bfloat16
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("std", torch.as_tensor(std))
        with torch.no_grad(), readable(f"world_model.vision.image_size {config.image_size}"):
            size = config.image_size
            self.features = self(torch.zeros(1, size, size, 3)).shape[1]

    def train(self, mode: bool = True) -> FrozenVision:
        """Stay in evaluation mode: frozen also means no dropout."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        pixels = ((images / 255.0 - self.mean) / self.std).movedim(-1, 1)
        with torch.no_grad():
            tokens = self.tower(pixel_values=pixels).last_hidden_state
        side = int(tokens.shape[1] ** 0.5)
        patches = tokens[:, -(side * side) :].transpose(1, 2).unflatten(2, (side, side))  # without class tokens
        return F.adaptive_avg_pool2d(patches, self.GRID).flatten(1)


def make_vision(config: VisionConfig) -> nn.Module:
    """A module from images (M, image_size, image_size, 3), 0 to 255, to `features` numbers each."""
    kinds = {"cnn": ConvolutionalVision, "vit": TransformerVision, "frozen": FrozenVision}
    return kinds[config.kind](config)


def _tower(path: str) -> tuple[nn.Module, Any, Any]:
    """A vision transformer, and the mean and standard deviation of its input pixels (0 to 1)."""
    if (Path(path) / "interface.json").is_file():
        policy = DiffusionPolicy.from_pretrained(path)
        if policy.backbone is None:
            raise InputError(f"world_model.vision.path: expected a policy with a backbone in {path}, found none in it")
        return _vision_part(policy.backbone.base.model, path), policy.backbone.family.mean, policy.backbone.family.std
    with readable(f"world_model.vision.path: expected a vision model, found {path!r}"):
        model = quietly(AutoModel.from_pretrained, path)
        pixels, _ = ImageProcessingMixin.get_image_processor_dict(path)
        mean, std = pixels["image_mean"], pixels["image_std"]
    return _vision_part(model, path), mean, std


def _vision_part(model: Any, path: str) -> nn.Module:
    part = getattr(model, "vision_model", None)
    if part is None and getattr(model, "main_input_name", None) == "pixel_values":
        part = model
    if part is None:
        found = type(model).__name__
        raise InputError(f"world_model.vision.path: expected a vision model in {path}, found {found}")
    return cast(nn.Module, part)
