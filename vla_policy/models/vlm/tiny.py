"""A small vision-language model of SmolVLM's architecture, with random weights and its own tokenizer.

For machines without a model hub or a GPU: 2 million parameters that learn the task's few words from its data.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SmolVLMConfig

from vla_policy.conf.policy_config import TinyVLMConfig

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<end_of_utterance>"
IMAGE_TOKENS = ["<fake_token_around_image>", "<global-img>", "<image>"]
ROLES = ["User:", "Assistant:"]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `texts`, with SmolVLM's special tokens; any other text becomes bytes, never unknown."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, START, END, *IMAGE_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(ROLES)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=IMAGE_TOKENS,
    )


def tiny_config(config: TinyVLMConfig, tokenizer: PreTrainedTokenizerFast) -> SmolVLMConfig:
    """The architecture for this tokenizer."""
    width = config.width
    layers = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": config.heads,
        # transformers' 0.02 is too small for such a narrow model to start learning.
        "initializer_range": width**-0.5,
    }
    text = {
        **layers,
        "model_type": "llama",
        "num_hidden_layers": config.text_depth,
        "num_key_value_heads": config.heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    vision = {
        **layers,
        "num_hidden_layers": config.vision_depth,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    return SmolVLMConfig(
        vision_config=vision,
        text_config=text,
        scale_factor=config.scale_factor,
        image_token_id=tokenizer.get_vocab()["<image>"],
        tie_word_embeddings=True,
    )
