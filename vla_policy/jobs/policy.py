"""The policy that a run trains: a new one, or one initialised from a checkpoint or some of its modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, cast

from omegaconf import DictConfig, ListConfig

from vla_policy.data import Normalizer, Windows
from vla_policy.interfaces import InputError
from vla_policy.jobs.scene import tokenizer_corpus
from vla_policy.models import Backbone, BackboneConfig, DiffusionPolicy, PolicyConfig, TinyVLMConfig, TrainableModel
from vla_policy.models.checkpoint import is_a, load_weights
from vla_policy.models.encoder import module_name
from vla_policy.models.heads import GIVEN
from vla_policy.training import RandomSymmetry, StateShift, fit_normalizer
from vla_policy.world_model import WorldModel
from vla_policy.world_model.model import KIND as WORLD_MODEL
from vla_policy.world_model.vision import ConvolutionalVision

# Options that the statistics of a normaliser depend on.
NORMALIZED = (
    *("vector_normalization", "action_normalization", "normalization_per_step"),
    *("action_relative", "object_frame", "action_basis", "predict_past"),
)

SEEING = ("features", "heatmaps")  # the parts of a camera's encoder that know nothing of the policy behind it


def start_policy(
    config: PolicyConfig,
    windows: Windows,
    run: DictConfig,
    augment: RandomSymmetry | None = None,
    shift: StateShift | None = None,
) -> tuple[DiffusionPolicy, Any]:
    """The policy before training, and the model card's entry on its initial weights."""

    def fitted() -> Normalizer:
        return fit_normalizer(windows, config, augment, shift)

    if run.init_from is not None and is_a(run.init_from, WORLD_MODEL):
        policy, initial = _with_sight(config, windows, run, fitted)
    elif run.init_from is not None:
        policy, initial = _from_checkpoint(config, windows, run, fitted)
    elif run.get("init_modules") is not None:
        raise InputError("init_modules: expected init_from, the checkpoint of these modules, found none")
    else:
        backbone = _new_backbone(config.backbone, windows, run)
        policy, initial = DiffusionPolicy(config, windows.interface, fitted(), backbone=backbone), "random"
    if policy.backbone is not None:
        for task in windows.tasks:
            policy.backbone.check_text(task, f"task of dataset {run.data.root}")
    return policy, initial


def earlier_training(source: TrainableModel) -> Any:
    """The model card's entry on `source`, from which a model is initialised."""
    return source.card.get("training") or "a checkpoint"


def _from_checkpoint(
    config: PolicyConfig, windows: Windows, run: DictConfig, fitted: Callable[[], Normalizer]
) -> tuple[DiffusionPolicy, Any]:
    """A policy with a checkpoint's weights and normalisation or, with `init_modules`, only the weights of these."""
    name = f"init_from {run.init_from}"
    source = DiffusionPolicy.from_pretrained(run.init_from)
    modules = _modules(run.get("init_modules"), source, name)
    if modules is None:
        source.interface.require(windows.interface, name, f"dataset {run.data.root}")
        normalizer = _same_normalizer(source, config, name)
    else:
        normalizer = fitted()
    if modules is None or "backbone" in modules:
        backbone = _retuned(source.backbone, config.backbone, name)
    else:
        backbone = _new_backbone(config.backbone, windows, run)
    policy = DiffusionPolicy(config, windows.interface, normalizer, backbone=backbone)

    def loaded(key: str) -> bool:
        return modules is None or key.partition(".")[0] in modules

    known = source.state_dict()
    flags = {f"head.{GIVEN}.weight"} - known.keys()  # zeros, with which the policy begins as the checkpoint's
    weights = {key: value for key, value in policy.state_dict().items() if not loaded(key) or key in flags}
    weights |= {key: value for key, value in known.items() if loaded(key)}
    policy.load_stored(weights, name)
    return policy, earlier_training(source)


def _with_sight(
    config: PolicyConfig, windows: Windows, run: DictConfig, fitted: Callable[[], Normalizer]
) -> tuple[DiffusionPolicy, Any]:
    """A new policy that sees as a world model does, which has learnt it from any recordings, play above all.

    It takes the convolutions and the keypoints; what becomes of them is new.
    """
    name, modules = f"init_from {run.init_from}", run.get("init_modules")
    if modules != ["encoder"]:
        raise InputError(
            f"init_modules: expected [encoder], which is all that a policy takes from a world model, found {modules}"
        )
    source = WorldModel.from_pretrained(run.init_from)
    backbone = _new_backbone(config.backbone, windows, run)
    policy = DiffusionPolicy(config, windows.interface, fitted(), backbone=backbone)
    if not policy.encoder.cameras:
        raise InputError(f"init_modules: expected a policy with an encoder of cameras for {name}, found none")
    for key in policy.encoder.cameras:
        if key not in source.config.cameras or source.config.vision.kind != "cnn":
            kind, cameras = source.config.vision.kind, list(source.config.cameras)
            raise InputError(f"{name}: expected a cnn that encodes {key}, found a {kind} of {cameras}")
        camera = policy.encoder.camera_tokens[module_name(key)]
        vision = cast(ConvolutionalVision, source.visions[source.config.cameras.index(key)])
        for part in SEEING:
            load_weights(getattr(camera, part), getattr(vision.encoder, part).state_dict(), f"{name}: {part}")
    return policy, earlier_training(source)


def _modules(requested: Any, source: DiffusionPolicy, name: str) -> list[str] | None:
    """The modules to load; None: all."""
    if requested is None:
        return None
    available = [child for child, module in source.named_children() if any(True for _ in module.parameters())]
    if not isinstance(requested, ListConfig) or not requested or any(module not in available for module in requested):
        raise InputError(
            f"init_modules: expected a list of some of {available}, the modules of {name}, found {requested}"
        )
    return list(requested)


def _same_normalizer(source: DiffusionPolicy, config: PolicyConfig, name: str) -> Normalizer:
    for key in NORMALIZED:
        theirs, ours = getattr(source.config, key), getattr(config, key)
        if theirs != ours:
            raise InputError(
                f"{name}: expected policy.{key} {theirs!r}, which its normalisation was fitted with, found {ours!r}; "
                "init_modules fits a new one"
            )
    return Normalizer.from_dict(source.normalizer.to_dict())


def _new_backbone(config: BackboneConfig | None, windows: Windows, run: DictConfig) -> Backbone | None:
    if config is None:
        return None
    if config.path is None and config.tuning == "frozen":
        raise InputError(
            "policy.backbone.tuning: expected full for a model that is trained from scratch, found 'frozen'"
        )
    return Backbone.create(config, tokenizer_corpus(run, windows))


def _retuned(backbone: Backbone | None, wanted: BackboneConfig | None, name: str) -> Backbone | None:
    """A checkpoint's backbone with this run's options; `InputError` for options that cannot change."""
    if backbone is None or wanted is None:
        if backbone is not wanted:
            raise InputError(f"{name}: expected {_has(wanted)} because of backbone=, found {_has(backbone)}")
        return None
    found = backbone.config
    trained = found.tuning == "full"  # the checkpoint has all weights
    fixed = ["tuning", "lora_rank"] if "lora" in (found.tuning, wanted.tuning) else []
    fixed += [] if trained and wanted.path is None else ["path"]
    fixed += [f"tiny.{field.name}" for field in fields(TinyVLMConfig)] if found.path is None else []
    for key in fixed:
        theirs, ours = attrgetter(key)(found), attrgetter(key)(wanted)
        if theirs != ours:
            raise InputError(f"{name}: expected policy.backbone.{key} {theirs!r}, found {ours!r}")
    if trained and wanted.tuning == "frozen" and wanted.path is not None:
        raise InputError(
            f"{name}: expected policy.backbone.path null for a frozen backbone whose weights training has changed, "
            f"found {wanted.path!r}"
        )
    if found.tuning == "frozen" and found.path is not None and wanted.tuning == "full":
        return Backbone.create(wanted, [])  # the weights are the path's; training needs another precision
    return Backbone(wanted, backbone.model, backbone.tokenizer)


def _has(backbone: object | None) -> str:
    return "no backbone" if backbone is None else "a backbone"
