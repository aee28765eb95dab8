"""The world model: causal, trained end to end, stored and read back, refused where it does not fit."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_diffusion import small_policy
from helpers.small_vlm import TINY, small_backbone
from helpers.small_world_model import SIZE, TOP, batch_of, interface, make_walks, small_config, small_world_model
from torch import nn

from vla_policy.interfaces import ACTION, STATE, Feature, InputError, Interface
from vla_policy.models import BackboneConfig, DiffusionPolicy
from vla_policy.training import Trainer, TrainerConfig, make_windows, validate_world_model
from vla_policy.utils.configuration import load_config
from vla_policy.world_model import VisionConfig, WorldModel, WorldModelConfig, fit_actions, latent_health, sigreg


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_predictions_know_nothing_of_later_latents_and_commands() -> None:
    model = small_world_model()
    latents = torch.randn(1, 3, 16, generator=generator(), requires_grad=True)
    commands = torch.rand(1, 3, 2, 2, generator=generator(), requires_grad=True)
    for step in range(3):
        seen, given = torch.autograd.grad(model.predict(latents, commands)[0, step].sum(), [latents, commands])
        for gradient in (seen, given):
            assert gradient[0, : step + 1].abs().sum(dim=tuple(range(1, gradient[0].ndim))).min() > 0
            assert gradient[0, step + 1 :].abs().sum() == 0


def test_a_shorter_history_gives_the_same_first_predictions() -> None:
    model = small_world_model()
    latents, commands = torch.randn(2, 3, 16), torch.rand(2, 3, 2, 2)
    whole = model.predict(latents, commands)
    torch.testing.assert_close(model.predict(latents[:, :1], commands[:, :1]), whole[:, :1])


def test_the_loss_is_its_two_terms_and_both_train_the_encoder() -> None:
    model = small_world_model()
    batch = batch_of(model, 8)
    loss, parts = model.loss(batch, generator())
    latents, commands = model.encode_windows(batch)
    error = ((model.predict(latents[:, :-1], commands) - latents[:, 1:]) ** 2).mean()
    regulariser = sigreg(latents.transpose(0, 1), generator(), 64)
    torch.testing.assert_close(loss, error + model.config.sigreg_weight * regulariser)
    torch.testing.assert_close(parts["prediction"], error.detach())
    # no stop-gradient: the encoder is moved by the prediction error through its targets as well
    targets_only = ((model.predict(latents[:, :-1].detach(), commands) - latents[:, 1:]) ** 2).mean()
    encoder = list(model.projector.parameters())
    assert any(g is not None and g.abs().sum() > 0 for g in torch.autograd.grad(targets_only, encoder))


def test_windows_take_every_frame_skip_th_frame_and_the_commands_in_between(tmp_path: Path) -> None:
    dataset = make_walks(tmp_path / "walks", episodes=2, length=12)
    config = small_config()
    windows = make_windows(dataset, config, [0, 1])
    assert len(windows) == 2 * (12 - 6)  # whole ones only: 3 steps of 2 frames and the frame they begin from
    model = small_world_model()
    batch = windows.__getitems__([1])
    latents, commands = model.encode_windows(batch)
    assert latents.shape == (1, 4, 16)
    torch.testing.assert_close(commands[0].flatten(0, 1), torch.from_numpy(dataset.episode(0).columns[ACTION][1:7]))
    single = model.encode({TOP: batch[TOP][:, 2]})
    torch.testing.assert_close(latents[:, 1], single)


def test_imagining_one_step_is_predicting_and_more_feeds_back() -> None:
    model = small_world_model()
    latents, past, future = torch.randn(2, 3, 16), torch.rand(2, 2, 2, 2), torch.rand(2, 3, 2, 2)
    imagined = model.imagine(latents, past, future)
    first = model.predict(latents, torch.cat([past, future[:, :1]], dim=1))[:, -1]
    torch.testing.assert_close(imagined[:, 0], first)
    seen = torch.cat([latents[:, 1:], first[:, None]], dim=1)
    second = model.predict(seen, torch.cat([past[:, 1:], future[:, :2]], dim=1))[:, -1]
    torch.testing.assert_close(imagined[:, 1], second)


def test_training_learns_where_the_square_goes_and_does_not_collapse(tmp_path: Path) -> None:
    dataset, config = make_walks(tmp_path / "walks", episodes=24), small_config()
    windows, held_out = make_windows(dataset, config, list(range(22))), make_windows(dataset, config, [22, 23])
    torch.manual_seed(0)
    model = WorldModel(config, windows.interface, fit_actions(windows.columns))
    settings = TrainerConfig(
        steps=250, batch_size=32, lr=2e-3, warmup_steps=20, precision="fp32", wandb=None, ema_max_decay=0.0
    )
    Trainer(model, windows, tmp_path / "run", settings, 0, held_out, validate=validate_world_model).fit()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        found = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    assert found["val/prediction"] < 0.5 * found["val/copy_last"]
    assert found["val/rank"] > 4
    trained = WorldModel.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    batch = held_out.__getitems__(range(4))
    torch.testing.assert_close(trained.encode_windows(batch)[0], model.eval().encode_windows(batch)[0])
    assert "World model" in (tmp_path / "run" / "checkpoints" / "last" / "README.md").read_text()


def test_a_linear_read_out_of_the_latents_learns_where_the_square_is(tmp_path: Path) -> None:
    dataset, config = make_walks(tmp_path / "walks", episodes=16), small_config(auxiliary_keys=[STATE])
    windows, held_out = make_windows(dataset, config, list(range(14))), make_windows(dataset, config, [14, 15])
    torch.manual_seed(0)
    model = WorldModel(config, windows.interface, fit_actions(windows.columns, [STATE]))
    settings = TrainerConfig(
        steps=120, batch_size=32, lr=2e-3, warmup_steps=20, precision="fp32", wandb=None, ema_max_decay=0.0
    )
    Trainer(model, windows, tmp_path / "run", settings, 0, held_out, validate=validate_world_model).fit()
    trained = WorldModel.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    assert list(trained.interface.observations) == [TOP]  # it needs no labels to see
    batch = held_out.__getitems__(range(32))
    found = trained.read(STATE, trained.encode_windows(batch)[0]).detach()
    truth = batch[STATE][:, ::2]
    assert (found - truth).abs().mean() < 0.25 * (truth - truth.mean((0, 1))).abs().mean()
    assert validate_world_model(trained, held_out, 32)[f"val/{STATE}_error"] < 0.1


def test_the_terms_of_reading_and_of_imagining_are_weighted() -> None:
    model = small_world_model(auxiliary_keys=[STATE], rollout_weight=0.5, auxiliary_weight=0.2)
    batch = batch_of(model, 8)
    loss, parts = model.loss(batch, generator())
    latents, commands = model.encode_windows(batch)
    open_loop = model.imagine(latents[:, :1], commands[:, :0], commands)
    torch.testing.assert_close(parts["rollout"], ((open_loop - latents[:, 1:]) ** 2).mean().detach())
    read = (model.read(STATE, latents) - batch[STATE][:, ::2]) / torch.from_numpy(model.normalizer.stats[STATE]["std"])
    torch.testing.assert_close(parts[f"auxiliary/{STATE}"], (read**2).mean().detach().float(), rtol=1e-3, atol=1e-5)
    expected = parts["prediction"] + model.config.sigreg_weight * parts["sigreg"]
    expected += 0.5 * parts["rollout"] + 0.2 * parts[f"auxiliary/{STATE}"]
    torch.testing.assert_close(loss.detach(), expected)


def test_the_size_of_the_paper_is_the_papers() -> None:
    config = WorldModelConfig.from_dict(load_config("train", ["world_model=lewm_paper", "data.root=x"]).world_model)
    xy = Feature("float32", (2,), ("x", "y"), ("m", "m"))
    world = Interface({TOP: Feature("image", (96, 96, 3))}, xy, 10)
    model = WorldModel(config, world, fit_actions({ACTION: np.eye(2)}))
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(18e6, rel=0.02)


def test_a_collapse_is_seen() -> None:
    healthy, flat = torch.randn(500, 16, generator=generator()), torch.randn(500, 1, generator=generator())
    assert latent_health(healthy).rank == pytest.approx(16, abs=1)
    assert not latent_health(healthy).collapsed
    assert max(latent_health(healthy).distance) < 0.01
    assert latent_health(flat @ torch.ones(1, 16)).rank == pytest.approx(1, abs=0.01)
    assert latent_health(flat @ torch.ones(1, 16)).collapsed
    assert latent_health(1e-3 * healthy).collapsed
    two_humps = healthy * torch.where(torch.arange(16) == 3, 0.2, 1.0) + 3 * torch.eye(16)[3] * flat.sign()
    found = latent_health(two_humps).distance
    assert found[0] > 0.05 > 5 * max(found[1:])  # the widest direction is the one with two humps


@pytest.mark.parametrize("kind", ["vit", "vision model", "policy's backbone"])
def test_other_encoders_are_used_in_the_same_way(kind: str, tmp_path: Path) -> None:
    vision = VisionConfig(kind="vit", image_size=SIZE, patch_size=8, width=24, depth=2, heads=2)
    if kind == "vision model":
        vision = VisionConfig(kind="frozen", image_size=SIZE, path=str(frozen_tower(tmp_path / "tower")))
    if kind == "policy's backbone":
        backbone, config = small_backbone(), BackboneConfig(tiny=TINY)
        small_policy(image=True, backbone=backbone, backbone_config=config).save_pretrained(tmp_path / "policy")
        vision = VisionConfig(kind="frozen", image_size=TINY.image_size, path=str(tmp_path / "policy"))
    model = small_world_model(vision=vision)
    loss, _ = model.loss(batch_of(model, 4), generator())
    loss.backward()
    assert all(p.grad is not None for p in model.projector.parameters())
    model.save_pretrained(tmp_path / "model")
    batch = batch_of(model, 2)
    again = WorldModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.encode_windows(batch)[0], model.eval().encode_windows(batch)[0])
    if vision.kind == "frozen":
        tower = list(model.visions[0].tower.parameters())  # type: ignore[union-attr, operator]
        assert all(p.grad is None and not p.requires_grad for p in tower)
        assert not any("tower" in name for name in model.stored_state())


def frozen_tower(folder: Path) -> Path:
    """A small vision model of transformers on disk, as a download would be."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(1)
    config = SiglipVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE, patch_size=8
    )
    SiglipVisionModel(config).bfloat16().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    return folder


def test_pictures_of_another_size_are_resized() -> None:
    model = small_world_model(trained=False, cameras=[TOP])
    large = torch.full((1, 64, 64, 3), 90, dtype=torch.uint8)
    torch.testing.assert_close(model.encode({TOP: large}), model.encode({TOP: large[:, ::2, ::2]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": []}, "world_model.cameras: expected keys that begin with"),
        ({"auxiliary_weight": -1.0}, "world_model.auxiliary_weight: expected at least 0, found -1.0"),
        ({"frame_skip": 0}, "world_model.frame_skip: expected at least 1, found 0"),
        ({"vision": VisionConfig(kind="resnet")}, "vision.kind: expected cnn, vit or frozen, found 'resnet'"),
        ({"vision": VisionConfig(kind="frozen")}, "vision.path: expected a hub name or a folder, found None"),
        ({"vision": VisionConfig(kind="vit", image_size=100)}, "multiple of patch_size 14, found 100"),
    ],
)
def test_impossible_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WorldModelConfig(**changes)


def test_wrong_folders_and_cameras_are_named(tmp_path: Path) -> None:
    model = small_world_model()
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"config.yaml: expected a policy, found \['world_model'\]"):
        DiffusionPolicy.from_pretrained(tmp_path / "model")
    other = Interface({"observation.images.side": Feature("image", (8, 8, 3))}, interface().action, 10)
    with pytest.raises(InputError, match=r"observation\.images\.top"):
        WorldModel(small_config(), other, model.normalizer)
    with pytest.raises(InputError, match=r"vision\.path: expected a vision model, found '.*nowhere'"):
        small_world_model(vision=VisionConfig(kind="frozen", path=str(tmp_path / "nowhere")))


def test_evaluation_mode_needs_no_other_pictures() -> None:
    """Batch statistics are those of training: one picture alone and the same one among others have the same latent."""
    model = small_world_model()
    assert any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    pictures = batch_of(model, 3)[TOP]
    torch.testing.assert_close(model.encode({TOP: pictures})[:1], model.encode({TOP: pictures[:1]}))
