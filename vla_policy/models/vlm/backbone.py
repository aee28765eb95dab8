"""The vision-language backbone: images and an instruction to hidden states, images and a question to an answer.

One class over the image-text-to-text models of transformers. Shapes: B observations, C cameras, L tokens, V width.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from vla_policy.conf.policy_config import BackboneConfig
from vla_policy.interfaces import InputError
from vla_policy.models.checkpoint import Stored
from vla_policy.models.vlm.families import FAMILIES
from vla_policy.models.vlm.files import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    build,
    digest,
    load_model,
    load_tokenizer,
    readable,
    stored_architecture,
    stored_tokenizer,
)
from vla_policy.models.vlm.instructions import KnownInstructions
from vla_policy.models.vlm.text_decoder import TextDecoder
from vla_policy.models.vlm.tiny import tiny_config, train_tokenizer
from vla_policy.speculation import Decoded, Drafter, Task, decode

IGNORED = -100  # label of a token that is not trained on, cross_entropy's default
LONGEST_ANSWER = 48  # tokens
PADDED_TO = 16  # tokens, in training
EMBEDDED = 64  # sentences at a time


class Backbone(nn.Module):
    """A vision-language model, its tokenizer and the prompts of its family.

    `forward` gives hidden states for the action transformer, `language_loss` and `answer` use its own language head.
    """

    def __init__(self, config: BackboneConfig, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """`model` is of transformers, or another backbone's `model` to be tuned differently."""
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self._special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        kind = model.config.model_type
        if kind not in FAMILIES:
            raise InputError(f"backbone: expected a model of {sorted(FAMILIES)}, found {kind!r}")
        self.family = FAMILIES[kind]
        _check_tokenizer(model.config, tokenizer, self.family.image_token)
        depth = model.config.text_config.num_hidden_layers
        if config.layer is not None and not 1 <= config.layer <= depth:
            raise InputError(f"policy.backbone.layer: expected 1 to {depth}, found {config.layer}")
        self.image_size = self.family.image_size(model.config)
        self.per_image = self.family.tokens_per_image(model.config)
        self.width: int = model.config.text_config.hidden_size
        self.model: Any = _tuned(model, config)
        self._ids = functools.lru_cache(4096)(self._encode)
        self.known: KnownInstructions | None = None  # None: instructions are not checked
        self.drafter: Drafter | None = None  # of answers

    @classmethod
    def create(cls, config: BackboneConfig, corpus: Iterable[str]) -> Backbone:
        """The pretrained model of `config.path`, or a tiny one whose tokenizer learns from `corpus`."""
        if config.path is None:
            tokenizer: PreTrainedTokenizerBase = train_tokenizer(corpus, config.tiny.vocab_size)
            return cls(config, build(tiny_config(config.tiny, cast(Any, tokenizer))), tokenizer)
        # In bfloat16, the published precision, weights would lose small updates and their average.
        dtype = "float32" if config.tuning == "full" else "auto"
        return cls(config, load_model(config.path, dtype), load_tokenizer(config.path))

    @classmethod
    def from_folder(cls, config: BackboneConfig, folder: Path, header: Mapping[str, Stored]) -> Backbone:
        """The backbone of a policy's checkpoint: architecture and tokenizer are in `folder`, its weights must be in
        `header`.

        Frozen weights are not in a checkpoint and are loaded from `config.path`.
        """
        tokenizer = stored_tokenizer(folder)
        if config.path is not None and config.tuning != "full":
            return cls(config, load_model(config.path), tokenizer)
        return cls(config, stored_architecture(folder, header), tokenizer)

    def save(self, folder: Path) -> None:
        """Save architecture, known instructions, and tokenizer with its digest; weights are in the checkpoint."""
        self.tokenizer.save_pretrained(folder)
        self.base.config.tokenizer_digest = digest(folder / TOKENIZER)
        self.base.config.save_pretrained(folder)
        if self.known is not None:
            self.known.save(folder)

    @property
    def base(self) -> Any:
        """transformers' model without the LoRA wrapper."""
        return self.model.get_base_model() if self.config.tuning == "lora" else self.model

    def images(self, frames: Sequence[Tensor]) -> Tensor:
        """One frame (B, H, W, 3) uint8 of each camera, resized and normalised: (B, C, 3, size, size)."""
        resized = []
        for frame in frames:
            pixels = frame.movedim(-1, 1).float() / 255.0
            if pixels.shape[-2:] != (self.image_size, self.image_size):
                size = (self.image_size, self.image_size)
                pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
            resized.append((pixels - self.family.mean) / self.family.std)
        return torch.stack(resized, dim=1)

    def look(self, frames: Sequence[Tensor]) -> Any:
        """Vision features, shared by `forward` and `language_loss`."""
        return self.family.features(self.base, self.images(frames))

    def forward(self, seen: Any, instructions: Sequence[str], cameras: int) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L, V) of layer `config.layer`, in float32 for any weight type, and a mask (B, L) that is
        false for padding.
        """
        texts = list(instructions) if self.config.use_instruction else [""] * len(instructions)
        ids, real = self._batch([self._ids(text, cameras) for text in texts])
        with self._layers(self.config.layer):
            hidden = self._run(ids, real, seen, None)
        return hidden.float(), real

    @torch.inference_mode()
    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Hidden states (B, V) of layer `config.layer` at the first position of the answer to each sentence, without
        images; float32, on the CPU.
        """
        parts = []
        for start in range(0, len(sentences), EMBEDDED):
            ids, real = self._batch([self._ids(text, 0) for text in sentences[start : start + EMBEDDED]])
            mask = real.long()
            with self._layers(self.config.layer):
                output = self.base.model(
                    input_ids=ids, attention_mask=mask, use_cache=False, **self.family.more_inputs(mask, None)
                )
            rows = torch.arange(len(ids), device=ids.device)
            parts.append(output.last_hidden_state[rows, real.sum(1) - 1].float().cpu())
        return torch.cat(parts)

    def unreadable(self, instruction: str) -> str:
        """Why this instruction is out of distribution; "" if it is not, or without a calibration."""
        try:
            self.check_text(instruction, "instruction")
        except InputError as error:
            return str(error)
        return "" if self.known is None else self.known.refusal(instruction, self.embed([instruction]))

    def length(self, instruction: str, cameras: int) -> int:
        """Number of tokens of an observation with this instruction in `forward`."""
        return len(self._ids(instruction if self.config.use_instruction else "", cameras))

    def language_loss(self, seen: Any, questions: Sequence[str], answers: Sequence[str], cameras: int) -> Tensor:
        """Cross-entropy of the answers' tokens, for as many first rows of `seen` as there are questions."""
        rows, labels = [], []
        for question, answer in zip(questions, answers, strict=True):
            prompt, reply = self._ids(question, cameras), self._tokens(self.family.answer(answer))
            rows.append([*prompt, *reply])
            labels.append([IGNORED] * len(prompt) + reply)
        ids, real = self._batch(rows)
        target = torch.full_like(ids, IGNORED)
        for row, label in zip(target, labels, strict=True):
            row[: len(label)] = torch.tensor(label)
        hidden = self._run(ids, real, _first(seen, len(rows), cameras), target != IGNORED)
        wanted = target[:, 1:] != IGNORED  # a token is predicted from its predecessor
        logits = self.base.lm_head(hidden[:, :-1][wanted])
        return F.cross_entropy(logits.float(), target[:, 1:][wanted])

    @torch.inference_mode()
    def answer(self, frames: Sequence[Tensor], question: str) -> str:
        """The greedily decoded answer to a question about one observation, (1, H, W, 3) per camera."""
        return self.text(self.reply(frames, question, self.drafter).tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer of these tokens."""
        return cast(str, self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    @torch.inference_mode()
    def reply(self, frames: Sequence[Tensor], question: str, drafter: Drafter | None) -> Decoded:
        """The tokens of `answer`, with the help of a drafter or without."""
        self.check_text(question, "question")
        if drafter is not None:
            drafter.begin(Task(([frame.cpu().numpy() for frame in frames], question), LONGEST_ANSWER, None, 0))
        decoder = self.decoder(frames, question)
        end = cast(int, self.tokenizer.eos_token_id)
        return decode(decoder, LONGEST_ANSWER, None, torch.Generator(), drafter, end)

    @torch.inference_mode()
    def decoder(self, frames: Sequence[Tensor], question: str) -> TextDecoder:
        """What answers a question about one observation, (1, H, W, 3) per camera."""
        ids, real = self._batch([self._ids(question, len(frames))])
        cache = DynamicCache()
        self._run(ids, real, self.look(frames), None, past_key_values=cache, use_cache=True)
        cache.crop(-1)  # the last token is read again, with the first drafted ones
        first, last = self.family.first_position, int(ids[0, -1])
        return TextDecoder(*self.language(), cache, last, first, ids.shape[1] - 1)

    def language(self) -> tuple[nn.Module, nn.Module]:
        """The language model, and the head that makes logits of its hidden states."""
        return getattr(self.base.model, self.family.language_model), self.base.lm_head

    def layers(self) -> list[nn.Module]:
        """The layers of vision tower and language model, for regional compilation."""
        language = getattr(self.base.model, self.family.language_model)
        towers = [module for name, module in self.base.model.named_modules() if name.endswith("encoder.layers")]
        return [*language.layers, *(layer for tower in towers for layer in cast(nn.ModuleList, tower))]

    def check_text(self, text: str, name: str) -> None:
        """`InputError` for a text that is empty, has a special token or is longer than `config.max_text_tokens`."""
        if not text.strip():
            raise InputError(f"{name}: expected a sentence, found {text!r}")
        tokens = self._tokens(text)
        special = [token for token in tokens if token in self._special]
        if special:  # it would be read as an image placeholder or the end of the text
            raise InputError(
                f"{name}: expected words, found the token {self.tokenizer.convert_ids_to_tokens(special[0])!r} of the "
                f"model in {text[:60]!r}"
            )
        count = len(tokens)
        if count > self.config.max_text_tokens:
            raise InputError(
                f"{name}: expected at most {self.config.max_text_tokens} tokens (policy.backbone.max_text_tokens), "
                f"found {count} in {text[:60]!r}..."
            )

    def _run(self, ids: Tensor, real: Tensor, seen: Any, answered: Tensor | None, **caching: Any) -> Tensor:
        mask = real.long()
        options = {"use_cache": False, **self.family.more_inputs(mask, answered), **caching}
        output = self.base.model(input_ids=ids, attention_mask=mask, mm_encoder_outputs={"image": seen}, **options)
        return cast(Tensor, output.last_hidden_state)

    @contextmanager
    def _layers(self, count: int | None) -> Iterator[None]:
        """Only the language model's first layers, as in SmolVLA (Shukor et al. 2025, arXiv 2506.01844)."""
        if count is None:
            yield
            return
        language = getattr(self.base.model, self.family.language_model)
        every = language.layers
        language.layers = every[:count]
        try:
            yield
        finally:
            language.layers = every

    def _tokens(self, text: str) -> list[int]:
        return cast(list[int], self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(self, text: str, cameras: int) -> list[int]:
        return self._tokens(self.family.prompt(text, cameras, self.per_image))

    def _batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Padded token ids and their mask; in training lengths are rounded up, to limit recompilation."""
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        multiple = PADDED_TO if self.training else 1
        length = math.ceil(int(lengths.max()) / multiple) * multiple
        padded = [[*row, *[self.tokenizer.pad_token_id] * (length - len(row))] for row in rows]
        return torch.tensor(padded, device=device), torch.arange(length, device=device) < lengths[:, None]


def _tuned(model: Any, config: BackboneConfig) -> nn.Module:
    """The model with the weights trainable that `config.tuning` selects."""
    if config.tuning != "lora":
        return cast(nn.Module, model.requires_grad_(config.tuning == "full"))
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        return model
    model.requires_grad_(False)
    adapters = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    with warnings.catch_warnings():  # peft asks transformers by a name that is going to change
        warnings.simplefilter("ignore", FutureWarning)
        return cast(nn.Module, get_peft_model(model, adapters))


def _check_tokenizer(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
    expected, found = config.image_token_id, tokenizer.convert_tokens_to_ids(image_token)
    with readable(f"tokenizer: {TOKENIZER_CONFIG}"):
        tokenizer.decode(tokenizer(image_token, add_special_tokens=False)["input_ids"])
    rows, count = config.text_config.vocab_size, 1 + max(tokenizer.get_vocab().values())
    if found != expected or count > rows:
        raise InputError(
            f"tokenizer: expected the model's own, with {image_token} as token {expected} and at most {rows} tokens, "
            f"found it as {found} and {count} tokens"
        )
    if tokenizer.pad_token_id is None:
        raise InputError("tokenizer: expected a pad_token, found none")


def _first(seen: Any, rows: int, cameras: int) -> Any:
    """What was seen of the first observations: entries of a list an observation, rows of a tensor an image."""
    pooled = seen.pooler_output
    return type(seen)(pooler_output=pooled[: rows if isinstance(pooled, list | tuple) else rows * cameras])
