"""Checkpoints are folders: config.yaml, model.safetensors, normalizer.json, interface.json, README.md. No pickles."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import InputError, Interface, within
from vla_policy.models.card import model_card
from vla_policy.models.trainable import TrainableModel

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
Model = TypeVar("Model", bound=TrainableModel)
FLOATING = ("F64", "F32", "F16", "BF16")  # safetensors' names of the types that weights may have
MOST_VALUES = 20_000  # in config.yaml
FORMAT = 1  # last in config.yaml, so that a truncated one is told from a short one


class Stored(NamedTuple):
    """A tensor's entry in the header of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str  # "F32", "BF16", "I64" ...


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint folder, read and validated; of the weights only the header."""

    folder: Path
    config: Any  # the section of config.yaml that defines the model
    interface: Interface
    normalizer: Normalizer
    header: dict[str, Stored]
    card: dict[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """All tensors; `InputError` for one that is not finite."""
        path = self.folder / WEIGHTS
        with _safetensors(path):
            weights = load_file(path)
        for name, value in weights.items():
            if not value.isfinite().all():
                others = int((~value.isfinite()).sum())
                raise InputError(f"{path}: {name}: expected finite numbers, found {others} others")
        return weights


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    interface: Interface,
    normalizer: Normalizer,
    weights: Mapping[str, Tensor],
    card: str,
    save_backbone: Callable[[Path], Any] | None = None,
) -> None:
    """Write a checkpoint atomically: beside `folder`, then moved into place.

    `config` has the kind of model with its configuration, and the content of its card.
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
    """Read a folder, or download a hub repository; `InputError` names a missing or corrupt file, or another kind of
    model.
    """
    folder = checkpoint_folder(name)
    stored = _parse(folder / CONFIG, _from_yaml)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG}: expected to end with 'format: {FORMAT}', found a truncated or other file")
    if kind not in stored:
        found = sorted(set(map(str, stored)) - {"card", "format"})
        raise InputError(f"{folder / CONFIG}: expected a {kind.replace('_', ' ')}, found {found}")
    content = _parse(folder / INTERFACE, json.loads)
    with within(folder / INTERFACE):
        interface = Interface.from_dict(content)
    content = _parse(folder / NORMALIZER, json.loads)
    with within(folder / NORMALIZER):
        normalizer = Normalizer.from_dict(content)
    with within(folder / CONFIG):
        card = _card(stored.get("card") or {})
    return Checkpoint(folder, stored[kind], interface, normalizer, read_header(folder / WEIGHTS), card)


def is_a(name: str | Path, kind: str) -> bool:
    """Whether a checkpoint is of this kind, as far as its configuration says."""
    stored = _parse(checkpoint_folder(name) / CONFIG, _from_yaml)
    return isinstance(stored, dict) and kind in stored


def model_digest(folder: Path, kind: str) -> str:
    """A short hash of a checkpoint without its card; `InputError` if the folder is none."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: expected a checkpoint's folder with {WEIGHTS}, found none")
    parts = read_checkpoint(folder, kind)
    definition = [parts.config, parts.interface.to_dict(), parts.normalizer.to_dict()]
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode())
    digest.update((folder / WEIGHTS).read_bytes())
    return digest.hexdigest()[:16]


def parse_config(read: Callable[[Any], T], parts: Checkpoint) -> T:
    """The typed configuration of a checkpoint; `InputError` naming file and invalid key."""
    with within(parts.folder / CONFIG):
        try:
            return read(parts.config)
        except OmegaConfBaseException as error:
            raise InputError(str(error).splitlines()[0]) from None


def read_header(path: Path) -> dict[str, Stored]:
    """The header of a safetensors file; `InputError` if it is none."""
    if not path.is_file():
        raise InputError(f"{path}: expected a file of the checkpoint, found none")
    with _safetensors(path), safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
        return {name: Stored(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}


@contextmanager
def sizes_only(header: Mapping[str, Stored]) -> Iterator[None]:
    """Build modules on torch's meta device, without memory, for comparison with a file's header; `InputError` as soon
    as there are far more parameters, so that a configuration of a million layers fails within milliseconds.
    """
    most, count = 2 * len(header) + 100, 0  # shared parameters are counted more than once

    def count_one(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise InputError(f"expected a model of the {len(header)} tensors of {WEIGHTS}, found a far deeper one")

    hook = register_module_parameter_registration_hook(count_one)
    try:
        with torch.device("meta"):
            yield
    finally:
        hook.remove()


def check_header(
    path: Path, header: Mapping[str, Stored], needed: Collection[str], every: Mapping[str, Tensor]
) -> None:
    """`InputError` naming the first tensor that differs unless the file `path` has those `needed` of a module's `every`
    tensor, in their shapes, and no others.
    """
    for name in [*needed, *(name for name in header if name not in needed)]:
        expected, found = every.get(name), header.get(name)
        fits = f"{path} does not fit its configuration: {name}"
        shapes = [None if part is None else list(part.shape) for part in (expected, found)]
        if expected is None or found is None or shapes[0] != shapes[1]:
            raise InputError(f"{fits}: expected {_shape(shapes[0])}, found {_shape(shapes[1])}")
        if expected.is_floating_point() != (found.dtype in FLOATING):
            raise InputError(f"{fits}: expected {expected.dtype}, found {found.dtype}")


def restored(build: Callable[[], Model], parts: Checkpoint) -> Model:
    """The model of `build` with the checkpoint's weights.

    It is first built on the meta device and compared with the weights' header, so that wrong sizes allocate nothing;
    `InputError` names the first tensor that differs.
    """
    with within(parts.folder / CONFIG), sizes_only(parts.header):
        plan = build()
    path = parts.folder / WEIGHTS
    check_header(path, parts.header, plan.stored_state().keys(), plan.state_dict())
    model = build()
    model.load_stored(parts.weights(), str(path))
    return model


def update_card(folder: str | Path, evaluation: Mapping[str, Any]) -> None:
    """Add a measured evaluation (a `summary.json`'s content) to a checkpoint's model card.

    Evaluations are identified by environment, task and paraphrases; a new one replaces an old one.
    """
    folder = Path(folder)
    parts = read_checkpoint(folder, POLICY)
    config = parse_config(PolicyConfig.from_dict, parts)
    kept = [e for e in parts.card.get("evaluations", []) if _what(e) != _what(evaluation)]
    plain = json.loads(json.dumps(dict(evaluation), default=str))
    card = {**parts.card, "evaluations": [*kept, plain]}
    backbone = folder / BACKBONE
    copy = functools.partial(shutil.copytree, backbone) if backbone.is_dir() else None
    write_policy(folder, config, parts.interface, parts.normalizer, parts.weights(), card, copy)


def distinct(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `state_dict(keep_vars=True)` with shared tensors only once."""
    first = {id(value): name for name, value in reversed(list(state.items()))}
    return {name: value.detach() for name, value in state.items() if first[id(value)] == name}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` into a module of the same shapes; `InputError` names the first difference of `source`."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1].split())
        raise InputError(f"{source} does not fit the model it is for: {first}") from None


def _what(evaluation: Mapping[str, Any]) -> list[Any]:
    return [evaluation.get(key) for key in ("env", "task", "paraphrases")]


def checkpoint_folder(name: str | Path) -> Path:
    """A folder, or a downloaded hub repository; `InputError` if it is neither."""
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
        return parser(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: expected {path.suffix[1:].upper()}, found {str(error).splitlines()[0]}") from None


def _from_yaml(text: str) -> Any:
    """`yaml.YAMLError` for a text of few lines whose aliases stand for more values than any model has."""
    if _values(yaml.compose(text, yaml.SafeLoader), {}) > MOST_VALUES:
        raise yaml.YAMLError(f"more than {MOST_VALUES} values")
    return yaml.safe_load(text)


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many a node has, each alias counted; `known` are those of nodes by their id, infinite within themselves."""
    if not isinstance(node, yaml.CollectionNode):
        return 1.0
    if id(node) not in known:
        known[id(node)] = math.inf
        children = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1.0 + sum(_values(child, known) for child in children)
    return known[id(node)]


def _card(card: Any) -> dict[str, Any]:
    evaluations = card.get("evaluations", []) if isinstance(card, dict) else None
    if not isinstance(evaluations, list) or not all(isinstance(entry, dict) for entry in evaluations):
        raise InputError(f"card: expected sections by name, and evaluations as a list of them, found {card!r:.80}")
    return dict(card)


@contextmanager
def _safetensors(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None


def _shape(shape: list[int] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"


def _write(path: Path, text: str) -> None:
    path.write_text(text if text.endswith("\n") else text + "\n")
