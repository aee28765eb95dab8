"""Checkpoints are folders: config.yaml, model.safetensors, normalizer.json, interface.json, README.md. No pickles."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla_policy.data import Normalizer
from vla_policy.interfaces import InputError, Interface
from vla_policy.models.card import model_card
from vla_policy.models.config import PolicyConfig

CONFIG, WEIGHTS, NORMALIZER, INTERFACE, CARD = (
    "config.yaml",
    "model.safetensors",
    "normalizer.json",
    "interface.json",
    "README.md",
)

POLICY = "policy"  # the kind of model, a section of config.yaml
BACKBONE = "backbone"  # folder with a backbone's config.json and tokenizer
T = TypeVar("T")
FORMAT = 1  # last in config.yaml, so that a truncated one is told from a short one


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint folder, read and checked one by one."""

    folder: Path
    config: Any  # the section of config.yaml that defines the model
    interface: Interface
    normalizer: Normalizer
    weights: dict[str, Tensor]
    card: dict[str, Any]


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    interface: Interface,
    normalizer: Normalizer,
    weights: Mapping[str, Tensor],
    card: str,
    save_backbone: Callable[[Path], Any] | None = None,
) -> None:
    """Write beside `folder`, then move into its place: it appears whole or not at all.

    `config` has the kind of model with what defines it, and what its `card` was written from.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(made / CONFIG, yaml.safe_dump({**config, "format": FORMAT}, sort_keys=False))
        _write(made / NORMALIZER, json.dumps(normalizer.to_dict(), indent=1))
        _write(made / INTERFACE, json.dumps(interface.to_dict(), indent=1))
        _write(made / CARD, card)
        if save_backbone is not None:
            save_backbone(made / BACKBONE)
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, made / WEIGHTS)
        made.chmod(0o755)
        (made / WEIGHTS).chmod(0o644)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old)
            os.replace(made, folder)
            shutil.rmtree(old)
        else:
            os.replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_policy(
    folder: Path,
    config: PolicyConfig,
    interface: Interface,
    normalizer: Normalizer,
    weights: Mapping[str, Tensor],
    card: Mapping[str, Any],
    save_backbone: Callable[[Path], Any] | None = None,
) -> None:
    """The checkpoint of a policy."""
    stored = {POLICY: config.to_dict(), "card": dict(card)}
    text = model_card(config, interface, weights, card)
    write_checkpoint(folder, stored, interface, normalizer, weights, text, save_backbone)


def read_checkpoint(name: str | Path, kind: str) -> Checkpoint:
    """Read a folder, or download a hub repository; `InputError` names the file that is missing or broken, or says that
    it holds another kind of model.
    """
    folder = checkpoint_folder(name)
    stored = _parse(folder / CONFIG, yaml.safe_load)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG}: expected to end with 'format: {FORMAT}', found a truncated or other file")
    if kind not in stored:
        found = sorted(set(stored) - {"card", "format"})
        raise InputError(f"{folder / CONFIG}: expected a {kind.replace('_', ' ')}, found {found}")
    interface = Interface.from_dict(_parse(folder / INTERFACE, json.loads))
    normalizer = Normalizer.from_dict(_parse(folder / NORMALIZER, json.loads))
    card = dict(stored.get("card") or {})
    return Checkpoint(folder, stored[kind], interface, normalizer, _weights(folder / WEIGHTS), card)


def parse_config(read: Callable[[Any], T], parts: Checkpoint) -> T:
    """The configuration of a checkpoint, typed; `InputError` naming its file and the key that is wrong."""
    try:
        return read(parts.config)
    except OmegaConfBaseException as error:
        raise InputError(f"{parts.folder / CONFIG}: {str(error).splitlines()[0]}") from None


def update_card(folder: str | Path, evaluation: Mapping[str, Any]) -> None:
    """Add a measured evaluation (a `summary.json`'s content) to a checkpoint's model card.

    Evaluations are told apart by environment, task and paraphrases; a new one replaces the old one of the same.
    """
    folder = Path(folder)
    parts = read_checkpoint(folder, POLICY)
    config = parse_config(PolicyConfig.from_dict, parts)
    kept = [e for e in parts.card.get("evaluations", []) if _what(e) != _what(evaluation)]
    plain = json.loads(json.dumps(dict(evaluation), default=str))
    card = {**parts.card, "evaluations": [*kept, plain]}
    backbone = folder / BACKBONE
    copy = functools.partial(shutil.copytree, backbone) if backbone.is_dir() else None
    write_policy(folder, config, parts.interface, parts.normalizer, parts.weights, card, copy)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put `weights` into a module of the same shape; `InputError` tells where `source` differs first."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1].split())
        raise InputError(f"{source} does not fit the model it is for: {first}") from None


def _what(evaluation: Mapping[str, Any]) -> list[Any]:
    return [evaluation.get(key) for key in ("env", "task", "paraphrases")]


def checkpoint_folder(name: str | Path) -> Path:
    """A folder as it is, a hub repository downloaded; `InputError` if it is neither."""
    if Path(name).is_dir():
        return Path(name)
    files = [CONFIG, WEIGHTS, NORMALIZER, INTERFACE, CARD, f"{BACKBONE}/*"]
    try:
        return Path(snapshot_download(str(name), allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"checkpoint {str(name)!r}: no such folder, and not readable from the hub: {reason}") from None


def _parse(path: Path, parser: Callable[[str], Any]) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: expected a file of the checkpoint, found none")
    try:
        return parser(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected {path.suffix[1:].upper()}, found {str(error).splitlines()[0]}") from None


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: expected a file of the checkpoint, found none")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None


def _write(path: Path, text: str) -> None:
    path.write_text(text if text.endswith("\n") else text + "\n")
