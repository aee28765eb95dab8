"""Prompt formats and image inputs of the families of vision-language models.

A family defines the text around images, instruction and answer, the shape of the pixels, and the language model's
attribute. Prompts are those of the models' own chat templates and processors; the processors themselves need
torchvision and are not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig


@dataclass(frozen=True)
class Family(ABC):
    """`language_model` names the attribute with the decoder layers; pixels are (x - mean) / std of [0, 1]."""

    language_model: str
    image_token: str
    mean: float = 0.5
    std: float = 0.5
    first_position: int = 0  # of the position ids

    def image_size(self, config: PretrainedConfig) -> int:
        size: int = config.vision_config.image_size
        return size

    @abstractmethod
    def tokens_per_image(self, config: PretrainedConfig) -> int:
        """Number of language model tokens per image."""

    @abstractmethod
    def prompt(self, text: str, images: int, per_image: int) -> str:
        """A user's turn with `images` images, up to the model's answer."""

    @abstractmethod
    def answer(self, text: str) -> str:
        """The answer with its end token."""

    @abstractmethod
    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images (B, cameras, 3, H, W) in the model's input format."""

    def features(self, model: Any, images: Tensor) -> Any:
        """Vision features of normalised images, for `model`'s forward."""
        return model.get_image_features(self.pixels(images), return_dict=True)

    def more_inputs(self, attention_mask: Tensor, answered: Tensor | None) -> dict[str, Tensor]:
        """Further arguments; `answered` (B, L) is true for tokens of the answer."""
        return {}


class SmolVLM(Family):
    """SmolVLM and SmolVLM2 (Marafioti et al. 2025, arXiv 2504.05299), one global view of each image."""

    def tokens_per_image(self, config: PretrainedConfig) -> int:
        side = config.vision_config.image_size // config.vision_config.patch_size
        count: int = side**2 // config.scale_factor**2
        return count

    def prompt(self, text: str, images: int, per_image: int) -> str:
        around = "<fake_token_around_image>"
        picture = f"{around}<global-img>{self.image_token * per_image}{around}"
        return f"<|im_start|>User:{picture * images}{text}<end_of_utterance>\nAssistant:"

    def answer(self, text: str) -> str:
        return f" {text}<end_of_utterance>"

    def pixels(self, images: Tensor) -> Tensor:
        return images.contiguous()


class PaliGemma(Family):
    """PaliGemma and PaliGemma 2 (Beyer et al. 2024, arXiv 2407.07726): bidirectional attention in the prompt."""

    def tokens_per_image(self, config: PretrainedConfig) -> int:
        count: int = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return count

    def prompt(self, text: str, images: int, per_image: int) -> str:
        return f"{self.image_token * (images * per_image)}<bos>{text}\n"

    def answer(self, text: str) -> str:
        return f"{text}<eos>"

    def pixels(self, images: Tensor) -> Tensor:
        return images.flatten(0, 1)

    def more_inputs(self, attention_mask: Tensor, answered: Tensor | None) -> dict[str, Tensor]:
        return {"token_type_ids": torch.zeros_like(attention_mask) if answered is None else answered.long()}


FAMILIES: dict[str, Family] = {
    "smolvlm": SmolVLM("text_model", "<image>"),
    "idefics3": SmolVLM("text_model", "<image>"),
    "paligemma": PaliGemma("language_model", "<image>", first_position=1),
}
