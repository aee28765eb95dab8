"""Models and tokenizers of transformers, read from folders and hub repositories that may be incomplete or damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from vla_policy.conf.checks import DEEPEST
from vla_policy.interfaces import InputError
from vla_policy.models.checkpoint import WEIGHTS, Stored, check_header, distinct, sizes_only
from vla_policy.models.vlm.families import FAMILIES

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
TEXT, VISION, LAYERS = "text_config", "vision_config", "num_hidden_layers"


def load_model(path: str, dtype: str = "auto") -> PreTrainedModel:
    """The model of a folder or hub repository, by default in its stored precision; `InputError` if it is incomplete."""
    folder = Path(path)
    if folder.is_dir():
        _require(folder, [CONFIG])
        if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
            raise InputError(f"backbone {folder}: expected model.safetensors, found none")
        _read_config(folder)
    options = {"attn_implementation": _attention(), "dtype": dtype}
    model = _from_hub(AutoModelForImageTextToText.from_pretrained, path, **options)
    return cast(PreTrainedModel, model)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub repository."""
    if Path(path).is_dir():
        _require(Path(path), [TOKENIZER, TOKENIZER_CONFIG])
    return cast(PreTrainedTokenizerBase, _from_hub(AutoTokenizer.from_pretrained, path))


def stored_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder of a policy's backbone; `InputError` unless the policy learned with it."""
    _require(folder, [CONFIG, TOKENIZER, TOKENIZER_CONFIG])
    learned, found = _read_config(folder).get("tokenizer_digest"), digest(folder / TOKENIZER)
    if learned not in (None, found):  # None: a checkpoint from before it was stored
        raise InputError(f"backbone {folder}: expected the {TOKENIZER} that the policy learned with, found another")
    return load_tokenizer(str(folder))


def stored_architecture(folder: Path, header: Mapping[str, Stored]) -> PreTrainedModel:
    """The model whose configuration is in the folder of a policy's backbone, with random weights; `InputError` unless
    the checkpoint's `header` has its weights.
    """
    architecture = _from_hub(AutoConfig.from_pretrained, str(folder))
    _check_sizes(architecture, folder, header)
    return build(architecture)


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture with random weights in float32, whatever type its configuration was published with."""
    options = {"attn_implementation": _attention(), "dtype": torch.float32}
    return cast(PreTrainedModel, AutoModelForImageTextToText.from_config(config, **options))


def _attention() -> str:
    """A CPU's fused attention is several times slower to train in bfloat16 than the plain one."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def _require(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"backbone {folder}: expected {name}, found none")


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model of a known family."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"backbone {folder}: expected a {CONFIG} with a model_type, found another file") from None
    if model_type not in list(FAMILIES):
        raise InputError(f"backbone {folder}: expected a model of {sorted(FAMILIES)}, found {model_type!r}")
    for part in (TEXT, VISION):
        layers = config[part].get(LAYERS) if isinstance(config.get(part), dict) else None
        if isinstance(layers, int) and layers > DEEPEST:  # transformers makes lists of so many entries
            raise InputError(f"{folder / CONFIG}: {part}: {LAYERS}: expected at most {DEEPEST}, found {layers}")
    return cast(dict[str, Any], config)


def _check_sizes(architecture: PreTrainedConfig, folder: Path, header: Mapping[str, Stored]) -> None:
    """`InputError` unless a model of this architecture has the backbone's weights of a checkpoint."""
    prefix = "backbone.model."
    stored = {name: value for name, value in header.items() if name.startswith(prefix)}
    with readable(folder / CONFIG), sizes_only(stored):
        plan = build(architecture)
    every = {prefix + name: value for name, value in plan.state_dict(keep_vars=True).items()}
    check_header(folder.parent / WEIGHTS, stored, distinct(every).keys(), every)


def digest(path: Path) -> str:
    """A short hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _from_hub(load: Any, path: str, **options: Any) -> Any:
    hub = "" if Path(path).is_dir() else ": neither a folder with a model nor readable from the hub"
    with readable(f"backbone {path!r}{hub}"):
        return quietly(load, path, **options)


@contextmanager
def readable(place: str | Path) -> Iterator[None]:
    """What transformers and tokenizers raise for a file that they cannot use, as an `InputError` of one line."""
    try:
        yield
    except Exception as error:  # tokenizers raises nothing narrower
        reason = (str(error).strip() or type(error).__name__).splitlines()
        raise InputError(f"{place}: {' '.join(part.strip() for part in reason[:2])}") from None


def quietly(load: Any, path: str, **options: Any) -> Any:
    """Without transformers' bars and advice."""
    transformers_logging.disable_progress_bar()
    return load(path, **options)
