"""Small vision-language models of the real classes, in memory and on disk as a download would be."""

from pathlib import Path
from typing import Any

import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PreTrainedTokenizerFast

from vla_policy.models import Backbone, BackboneConfig, TinyVLMConfig
from vla_policy.models.vlm.tiny import train_tokenizer

TEXTS = ["push the T onto the red goal", "move it to the blue one", "where is the T?", "left of the red goal"] * 3
TINY = TinyVLMConfig(
    width=32, heads=2, vision_depth=2, text_depth=3, image_size=48, patch_size=16, scale_factor=1, vocab_size=400
)


def small_backbone(seed: int = 0, **config: Any) -> Backbone:
    torch.manual_seed(seed)
    return Backbone.create(BackboneConfig(tiny=TINY, **config), TEXTS)


def save_smolvlm(folder: Path) -> Path:
    """A folder with all that the hub's repositories of SmolVLM have and this project reads."""
    backbone = small_backbone()
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def save_paligemma(folder: Path) -> Path:
    tokenizer = train_tokenizer(TEXTS, 400).backend_tokenizer
    tokenizer.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = PaliGemmaConfig(
        vision_config={**sizes, "image_size": 48, "patch_size": 16, "vision_use_head": False},
        text_config={
            **sizes,
            "model_type": "gemma",
            "num_key_value_heads": 1,
            "head_dim": 16,
            "vocab_size": len(fast),
            "pad_token_id": fast.pad_token_id,
            "bos_token_id": fast.bos_token_id,
            "eos_token_id": fast.eos_token_id,
        },
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    torch.manual_seed(0)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def frames_of(count: int, cameras: int = 1, size: int = 96, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator) for _ in range(cameras)
    ]
