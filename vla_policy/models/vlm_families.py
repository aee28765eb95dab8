"""How the families of vision-language models write a prompt and take their pictures.

A family knows the text around pictures, instruction and answer, the shape of the pixels, and where the language model
is inside. Prompts are those of the models' own chat templates and processors; the processors themselves need
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

    def image_size(self, config: PretrainedConfig) -> int:
        size: int = config.vision_config.image_size
        return size

    @abstractmethod
    def tokens_per_image(self, config: PretrainedConfig) -> int:
        """How many tokens of the language model a picture becomes."""

    @abstractmethod
    def prompt(self, text: str, images: int, per_image: int) -> str:
        """A user's turn with so many pictures, up to where the model is to answer."""

    @abstractmethod
    def answer(self, text: str) -> str:
        """What the model is to say, with the token that ends it."""

    @abstractmethod
    def pixels(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, cameras, 3, H, W) as the model wants them."""

    def features(self, model: Any, images: Tensor) -> Any:
        """What the vision tower makes of normalised pictures, to be handed to `model`'s forward."""
        return model.get_image_features(self.pixels(images), return_dict=True)

    def more_inputs(self, attention_mask: Tensor, answered: Tensor | None) -> dict[str, Tensor]:
        """Further arguments; `answered` (B, L) is true where the answer is."""
        return {}


class SmolVLM(Family):
    """SmolVLM and SmolVLM2 (Marafioti et al. 2025, arXiv 2504.05299), one global view of each picture."""

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
    """PaliGemma and PaliGemma 2 (Beyer et al. 2024, arXiv 2407.07726): the prompt is seen in both directions."""

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
    "paligemma": PaliGemma("language_model", "<image>"),
}
