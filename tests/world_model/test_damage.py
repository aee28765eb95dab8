"""Checkpoints of every kind and monitors, damaged in every way: one clear error, or they still work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.damage import Damaged
from helpers.small_diffusion import TOP, histories_of, objective, small_policy
from helpers.small_vlm import TINY, small_backbone
from helpers.small_world_model import batch_of, small_config, small_world_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, InputError
from vla_policy.models import BackboneConfig, DiffusionPolicy
from vla_policy.monitoring import Calibration
from vla_policy.world_model import VisionConfig, WorldModel, load_monitor, save_calibration
from vla_policy.world_model.decoder import Decoder, DecoderConfig
from vla_policy.world_model.monitors import binding

Load = Callable[[Path], Any]
CASES = 500  # of each kind


def act(folder: Path) -> None:
    policy = DiffusionPolicy.from_pretrained(folder)
    chunk = policy.predict(histories_of(policy, 1), np.random.default_rng(0))[0]
    assert np.isfinite(chunk.actions).all()


def imagine(folder: Path) -> None:
    model = WorldModel.from_pretrained(folder)
    pictures = torch.zeros(1, 2, *model.interface.observations[model.config.cameras[0]].shape, dtype=torch.uint8)
    latents = model.encode(dict.fromkeys(model.config.cameras, pictures))
    commands = torch.zeros(1, 2, model.config.frame_skip, model.interface.action.shape[0])
    assert model.predict(latents, commands).shape == latents.shape


def save_policy(folder: Path) -> None:
    small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], **objective("ddpm")).save_pretrained(folder)


def save_language(folder: Path) -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    policy.save_pretrained(folder)


def save_world_model(folder: Path) -> None:
    small_world_model().save_pretrained(folder)


def save_vit(folder: Path) -> None:
    vision = VisionConfig("vit", image_size=32, patch_size=16, width=24, depth=2, heads=3)
    small_world_model(trained=False, vision=vision).save_pretrained(folder)


SAVE: dict[str, Callable[[Path], None]] = {
    "policy": save_policy,
    "language": save_language,
    "world_model": save_world_model,
    "vit": save_vit,
}
LOAD: dict[str, Load] = {"policy": act, "language": act, "world_model": imagine, "vit": imagine}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind, and a monitor of the policy in `monitor`."""
    root = tmp_path_factory.mktemp("models")
    for kind, save in SAVE.items():
        save(root / kind)
    interface = DiffusionPolicy.from_pretrained(root / "policy").interface
    bound_to = binding(root / "policy", root / "world_model", interface)
    calibration = Calibration("whitened_error", 0.05, 1.0, 0.5, 3.0, 30, 8, bound_to)
    save_calibration(calibration, root / "monitor", root / "world_model", np.tile(np.eye(16), (3, 1, 1)))
    return root


def refusal(load: Load, folder: Path, said: str) -> str:
    """The one clear error about a damaged folder, "" if it does no harm; any other error fails."""
    try:
        load(folder)
    except InputError as error:
        return str(error) or "nothing"
    except Exception as error:
        raise AssertionError(f"{said}: {type(error).__name__}: {error}") from error
    return ""


def refusals(damaged: Damaged, load: Load, count: int) -> list[str]:
    """The errors about so many damaged folders, each of one line."""
    found = [refusal(load, damaged.folder, said) for said in (damaged.next() for _ in range(count))]
    assert not [line for line in found if "\n" in line]
    return list(filter(None, found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVE)
def test_damaged_models_give_only_clear_errors(models: Path, tmp_path: Path, kind: str) -> None:
    others = [models / name for name in SAVE if name != kind]
    found = refusals(Damaged(tmp_path / "model", models / kind, others, seed=1), LOAD[kind], CASES)
    assert 0.2 * CASES < len(found) < CASES  # a changed training option does no harm


@pytest.mark.slow
def test_damaged_monitors_give_only_clear_errors(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "world_model", tmp_path / "world_model")
    interface = DiffusionPolicy.from_pretrained(models / "policy").interface
    damaged = Damaged(tmp_path / "monitor", models / "monitor", [models / "vit"], seed=2)
    found = refusals(damaged, lambda folder: load_monitor(folder, models / "policy", interface), CASES)
    assert len(found) > 0.5 * CASES


def edited(folder: Path, file: str, key: str, value: Any) -> None:
    """Set a dotted key of a file to a value."""
    path = folder / file
    read, write = (yaml.safe_load, yaml.safe_dump) if file.endswith("yaml") else (json.loads, json.dumps)
    data = read(path.read_text())
    parent, keys = data, key.split("/")
    for part in keys[:-1]:
        parent = parent[part]
    parent[keys[-1]] = value
    path.write_text(write(data))


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("policy", "transformer/depth", 10**9, r"config\.yaml: policy\.transformer\.depth: expected at most 1000"),
        ("policy", "transformer/depth", 900, r"config\.yaml: expected a model of the \d+ tensors .*a far deeper one"),
        ("policy", "transformer/depth", 3, r"transformer\.layers\.2\.\S+: expected shape .*, found no such tensor"),
        ("policy", "transformer/depth", 1, r"transformer\.layers\.1\.\S+: expected no such tensor, found shape"),
        ("policy", "transformer/width", 10**7, r"policy\.transformer\.width: expected at most 65536, found 10000000"),
        ("policy", "transformer/width", 60_000, r"shape \[2, 60000\], found shape \[2, 32\]"),
        ("policy", "transformer/heads", 0, r"policy\.transformer\.heads: expected at least 1, found 0"),
        ("policy", "transformer/mlp_ratio", float("nan"), r"mlp_ratio: expected .*, found nan"),
        ("policy", "encoder/blocks", 800, r"config\.yaml: expected a model of the \d+ tensors"),
        ("policy", "encoder/channels", [], r"policy\.encoder\.channels: expected 1 to 8 stages, found \[\]"),
        ("policy", "objective/inference_steps", 10**9, r"inference_steps: expected at most 4096, found 1000000000"),
        ("policy", "objective/train_steps", 2, r"inference_steps: expected at most train_steps 2, found 10"),
        ("world_model", "predictor/depth", 10**9, r"world_model\.predictor\.depth: expected at most 1000"),
        ("world_model", "predictor/depth", 900, r"expected a model of the \d+ tensors"),
        ("world_model", "vision/image_size", 10**6, r"world_model\.vision\.image_size: expected at most 4096"),
        ("vit", "vision/depth", 900, r"expected a model of the \d+ tensors"),
    ],
)
def test_declared_sizes_are_compared_before_anything_is_built(
    models: Path, tmp_path: Path, kind: str, key: str, value: Any, message: str
) -> None:
    folder = Path(shutil.copytree(models / kind, tmp_path / "model"))
    section = "policy" if kind == "policy" else "world_model"
    edited(folder, "config.yaml", f"{section}/{key}", value)
    built: list[int] = []

    def note(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            built.append(parameter.numel())

    hook = register_module_parameter_registration_hook(note)
    try:
        with pytest.raises(InputError, match=message):
            LOAD[kind](folder)
    finally:
        hook.remove()
    assert not built


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        (
            "config.json",
            "text_config/num_hidden_layers",
            10**9,
            r"text_config: num_hidden_layers: expected at most 1000",
        ),
        ("config.json", "text_config/num_hidden_layers", 900, r"config\.json: expected a model of the \d+ tensors"),
        ("config.json", "text_config/hidden_size", 10**7, r"backbone\.model\.\S+: expected shape"),
        ("config.json", "text_config/rope_parameters/rope_theta", "x", r"backbone/config\.json: "),
        ("config.json", "text_config", 0, r"backbone': .*text_config"),
        ("config.json", "text_config/hidden_act", "magic", r"backbone/config\.json: .*magic"),
        ("tokenizer_config.json", "pad_token", {"a": 1}, r"backbone"),
        ("tokenizer_config.json", "model_max_length", "", r"tokenizer: tokenizer_config\.json"),
    ],
)
def test_backbones_that_are_not_the_weights_are_refused(
    models: Path, tmp_path: Path, file: str, key: str, value: Any, message: str
) -> None:
    folder = Path(shutil.copytree(models / "language", tmp_path / "model"))
    edited(folder / "backbone", file, key, value)
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("interface.json", "fps", {}, r"interface\.json: interface: fps: expected a number above 0, found \{\}"),
        ("interface.json", "observations", [1], r"interface\.json: interface: observations: expected features by key"),
        ("interface.json", "observations/observation.state", 1, r"observation\.state: expected the keys .*found 1"),
        ("interface.json", "action/shape", 9, r"interface: action: shape: expected a list, found 9"),
        ("interface.json", "action/shape", [0], r"interface: action: feature shape: expected whole numbers above 0"),
        ("interface.json", f"observations/{TOP}/shape", [10**6, 10**6, 3], r"at most 8192 pixels a side"),
        ("interface.json", "action/names", [1, 2], r"interface: action: names: expected words"),
        ("normalizer.json", f"{ACTION}/stats/std", [1, [2]], r"normaliser: action: std: expected a list"),
        ("normalizer.json", f"{ACTION}/stats/max", [1.0], r"normalizer\.json: normalisation of 'action'.*'max'"),
        ("normalizer.json", f"{ACTION}/mode", [], r"normalizer\.json: normalisation of 'action'"),
        ("config.yaml", "policy", 5, r"config\.yaml: expected the options of a PolicyConfig, found 5"),
        ("config.yaml", "card", "text", r"config\.yaml: card: expected sections by name"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(
    models: Path, tmp_path: Path, file: str, key: str, value: Any, message: str
) -> None:
    folder = Path(shutil.copytree(models / "policy", tmp_path / "model"))
    edited(folder, file, key, value)
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.from_pretrained(folder)


def test_statistics_of_all_channels_have_to_be_there(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "policy", tmp_path / "model"))
    path = folder / "normalizer.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in stored.items() if key != ACTION}))
    with pytest.raises(InputError, match=r"normaliser: expected statistics of 'action', found those of"):
        DiffusionPolicy.from_pretrained(folder)
    path.write_text(json.dumps({**stored, ACTION: stored[ENVIRONMENT_STATE]}))
    with pytest.raises(InputError, match=r"action: expected 2 channels, or 16 rows of them, found shape \(4,\)"):
        DiffusionPolicy.from_pretrained(folder)


def test_weights_that_are_no_numbers_are_refused(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "policy", tmp_path / "model"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "transformer.position"
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, path)
    with pytest.raises(InputError, match=r"model\.safetensors: transformer\.position: expected finite numbers"):
        DiffusionPolicy.from_pretrained(folder)
    save_file({**weights, name: weights[name].to(torch.int32)}, path)
    with pytest.raises(InputError, match=r"transformer\.position: expected torch\.float32, found I32"):
        DiffusionPolicy.from_pretrained(folder)


def test_actions_that_are_no_numbers_are_not_handed_on() -> None:
    policy = small_policy()
    with torch.no_grad():
        policy.transformer.position[0, 0] = torch.inf
    with pytest.raises(InputError, match="policy: expected finite actions"):
        policy.predict(histories_of(policy, 1), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "finite numbers and a scale above 0"),
        ({"alpha": 2}, "alpha: expected a probability"),
        ({"detector": ["x"]}, "detector: expected a word"),
        ({"bound_to": []}, "bound_to: expected digests by name"),
        ({"world_model": "a\0b"}, "world_model: expected the folder of one"),
    ],
)
def test_what_is_wrong_with_a_monitor_is_named(models: Path, tmp_path: Path, change: dict, message: str) -> None:
    shutil.copytree(models / "monitor", tmp_path / "monitor")
    path = tmp_path / "monitor/calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    interface = DiffusionPolicy.from_pretrained(models / "policy").interface
    with pytest.raises(InputError, match=message):
        load_monitor(tmp_path / "monitor", models / "policy", interface)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 10**9}, r"decoder\.depth: expected at most 1000"),
        ({"depth": 900}, "expected a model of the .* far deeper one"),
        ({"width": 64}, "does not fit its configuration"),
        ({"latent": "x"}, "expected a decoder, with .* as whole numbers"),
    ],
)
def test_a_decoder_that_is_not_its_weights_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "decoder.safetensors"
    Decoder(DecoderConfig(4, 8, width=8, heads=2)).save(path)
    weights = load_file(path)
    config = DecoderConfig(4, 8, width=8, heads=2).__dict__ | change
    save_file(weights, path, {"decoder": json.dumps(config)})
    with pytest.raises(InputError, match=message):
        Decoder.load(path)


def test_a_sound_model_is_loaded_and_its_vision_tower_made_once(models: Path) -> None:
    for kind, load in LOAD.items():
        load(models / kind)
    model = WorldModel.from_pretrained(models / "world_model")
    same = small_world_model()
    torch.testing.assert_close(model.encode(batch_of(same, 1)), same.encode(batch_of(same, 1)))
    assert model.config == small_config()
