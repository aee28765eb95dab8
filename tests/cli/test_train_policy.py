"""What a run begins with: a new policy, a checkpoint's, or some of a checkpoint's modules."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_dataset import TOP, make_small_dataset
from helpers.small_runs import SMALL_POLICY
from helpers.small_vlm import save_paligemma, save_smolvlm
from helpers.small_world_model import small_config
from omegaconf import OmegaConf

from sim.interface import pusht_interface
from vla_policy.interfaces import ACTION, STATE, Feature, InputError, Interface
from vla_policy.jobs import trainer as train_setup
from vla_policy.jobs.policy import start_policy
from vla_policy.jobs.scene import rollouts
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.models.heads import AutoregressiveHead
from vla_policy.models.vlm.backbone import load_model
from vla_policy.training import DataConfig, open_data
from vla_policy.utils.configuration import load_config
from vla_policy.world_model import WorldModel, fit_actions

TASKS = ("push the T onto the red goal", "move it to the blue one")
SMALL = [
    *SMALL_POLICY,
    "backbone=tiny",
    "policy.backbone.tiny={width:32,heads:2,vision_depth:1,text_depth:2,image_size:32,vocab_size:400}",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "near"
    make_small_dataset(folder, (TOP,), TASKS, episodes=2)
    return folder


def start(data: Path, *overrides: str) -> tuple[DiffusionPolicy, Any]:
    run = load_config("train", [f"data.root={data}", *SMALL, *overrides])
    config = PolicyConfig.from_dict(run.policy)
    windows, _, _ = open_data(DataConfig(str(data), val_episodes=0), config)
    return start_policy(config, windows, run)


@pytest.fixture(scope="module")
def source(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose weights are all its own."""
    torch.manual_seed(3)
    policy, initial = start(data)
    assert initial == "random"
    return saved(policy, tmp_path_factory.mktemp("source") / "last")


def saved(policy: DiffusionPolicy, folder: Path) -> Path:
    with torch.no_grad():
        for value in policy.parameters():
            if value.requires_grad:
                value.add_(0.05 * torch.randn_like(value))
    policy.card = {"training": {"steps": 5, "initial_weights": "random"}}
    policy.save_pretrained(folder)
    return folder


def batch(*tasks: str) -> dict[str, Any]:
    generator, count = torch.Generator().manual_seed(0), len(tasks)
    return {
        STATE: torch.rand(count, 2, 2, generator=generator),
        TOP: torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8, generator=generator).repeat(count, 1, 1, 1, 1),
        ACTION: torch.rand(count, 16, 2, generator=generator),
        "task": list(tasks),
    }


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value.float(), theirs[name].float()) for name, value in one.state_dict().items())


def sampled(policy: DiffusionPolicy) -> torch.Tensor:
    return policy.eval().sample(batch(*TASKS), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_a_run_reads_the_backbone_with_its_own_options(data: Path, source: Path, tuning: str, tmp_path: Path) -> None:
    blind, _ = start(
        data,
        f"init_from={source}",
        f"policy.backbone.tuning={tuning}",
        "policy.backbone.use_instruction=false",
        "policy.backbone.layer=1",
        "policy.backbone.max_text_tokens=32",
    )
    assert blind.backbone is not None
    config = blind.backbone.config
    assert config == blind.config.backbone
    assert (config.tuning, config.use_instruction, config.layer, config.max_text_tokens) == (tuning, False, 1, 32)
    assert all(value.requires_grad == (tuning == "full") for value in blind.backbone.parameters())
    assert equal(blind, DiffusionPolicy.from_pretrained(source))
    hidden, _, _ = blind.eval().read(batch(*TASKS))
    torch.testing.assert_close(hidden[0], hidden[1])  # the same picture under two instructions
    blind.save_pretrained(tmp_path / "blind")
    assert torch.equal(sampled(blind), sampled(DiffusionPolicy.from_pretrained(tmp_path / "blind")))


def test_a_frozen_backbone_reads_on_the_threads_of_the_training(
    data: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def read(windows: Any, *_: Any) -> Any:
        threads.append(torch.get_num_threads())
        return windows

    monkeypatch.setattr(train_setup, "FrozenWindows", read)
    frozen = [f"init_from={source}", "policy.backbone.tuning=frozen", "trainer.threads=2", "trainer.wandb=null"]
    try:
        train_setup.make_trainer(load_config("train", [f"data.root={data}", *SMALL, *frozen]), tmp_path)
    finally:
        torch.set_num_threads(1)
    assert threads == [2, 2]


def test_lora_keeps_its_adapters(data: Path, tmp_path: Path) -> None:
    path = f"policy.backbone.path={save_smolvlm(tmp_path / 'vlm')}"
    policy, _ = start(data, path, "policy.backbone.tuning=lora")
    source = saved(policy, tmp_path / "source")
    words = [path, f"init_from={source}", "policy.backbone.tuning=lora"]
    again, _ = start(data, *words, "policy.backbone.layer=1", "policy.backbone.use_instruction=false")
    assert again.backbone is not None
    assert (again.backbone.config.layer, again.backbone.config.use_instruction) == (1, False)
    assert equal(again, policy)
    trained = {name for name, value in again.backbone.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(sampled(again), sampled(DiffusionPolicy.from_pretrained(tmp_path / "again")))
    for change, message in {
        "policy.backbone.lora_rank=4": r"expected policy\.backbone\.lora_rank 16, found 4",
        "policy.backbone.tuning=full": r"expected policy\.backbone\.tuning 'lora', found 'full'",
        "policy.backbone.path=other/model": r"expected policy\.backbone\.path '.*vlm', found 'other/model'",
    }.items():
        with pytest.raises(InputError, match=f"init_from .*source: {message}"):
            start(data, *words, change)


def test_a_pretrained_model_is_trained_and_then_frozen(data: Path, tmp_path: Path) -> None:
    folder = save_paligemma(tmp_path / "vlm")
    load_model(str(folder)).bfloat16().save_pretrained(folder)
    path = f"policy.backbone.path={folder}"
    frozen, _ = start(data, path, "policy.backbone.tuning=frozen")
    first = saved(frozen, tmp_path / "first")
    full, _ = start(data, path, f"init_from={first}")
    assert full.backbone is not None
    assert {value.dtype for value in full.backbone.parameters()} == {torch.float32}
    assert equal(full, frozen)  # the weights of the path, which no checkpoint holds yet
    second = saved(full, tmp_path / "second")
    words = [f"init_from={second}", "policy.backbone.tuning=frozen"]
    with pytest.raises(InputError, match=r"expected policy\.backbone\.path null for a frozen backbone whose weights"):
        start(data, path, *words)
    last, _ = start(data, *words)
    assert last.backbone is not None
    assert not any(value.requires_grad for value in last.backbone.parameters())
    assert equal(last, full)
    last.save_pretrained(tmp_path / "last")
    assert torch.equal(sampled(full), sampled(DiffusionPolicy.from_pretrained(tmp_path / "last")))


def test_another_objective_takes_the_backbone_alone(data: Path, source: Path, tmp_path: Path) -> None:
    far = tmp_path / "far"
    make_small_dataset(far, (TOP,), TASKS, offset=10.0, episodes=2)
    old = DiffusionPolicy.from_pretrained(source)
    words = [f"init_from={source}", "policy=autoregressive", "policy.backbone.tuning=frozen"]
    new, initial = start(far, *words, "init_modules=[backbone]")
    assert isinstance(new.head, AutoregressiveHead)
    assert equal(new.backbone, old.backbone)
    assert new.backbone.tokenizer.get_vocab() == old.backbone.tokenizer.get_vocab()
    for name in ("backbone_token", "backbone_context", "encoder"):
        assert not equal(getattr(new, name), getattr(old, name)), name
    assert new.normalizer.modes[ACTION] == "quantile"
    assert np.all(new.normalizer.stats[STATE]["min"] >= 10)
    assert initial == {"steps": 5, "initial_weights": "random"}

    more, _ = start(far, *words, "init_modules=[backbone,encoder]")
    assert equal(more.backbone, old.backbone)
    assert equal(more.encoder, old.encoder)
    assert not equal(more.backbone_token, old.backbone_token)
    bare, _ = start(far, *words[:2], "init_modules=[encoder]")  # and the backbone is new
    assert not equal(bare.backbone.model.model.connector, old.backbone.model.model.connector)


@pytest.fixture(scope="module")
def seer(tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    """A world model in a folder that its card names."""
    folder = tmp_path_factory.mktemp("world") / "model"
    features = {TOP: Feature("image", (32, 32, 3)), STATE: pusht_interface({}).observations[STATE]}
    model = WorldModel(
        small_config(),
        Interface(features, pusht_interface({}).action, 10),
        fit_actions({ACTION: np.eye(2)}),
        {"folder": str(folder)},
    )
    model.save_pretrained(folder)
    return model


def test_a_policy_can_see_as_a_world_model_does(data: Path, seer: WorldModel) -> None:
    words = [f"init_from={seer.card['folder']}", "policy.encoder.channels=[8,16]", "policy.encoder.keypoints=8"]
    policy, _ = start(data, *words, "init_modules=[encoder]")
    camera, eye = policy.encoder.camera_tokens["observation_images_top"], seer.visions[0].encoder
    assert equal(camera.features, eye.features)
    assert equal(camera.heatmaps, eye.heatmaps)
    for wrong, message in (
        ([], r"init_modules: expected \[encoder\], which is all that a policy takes from a world model, found None"),
        (["init_modules=[encoder]", "policy.encoder.keypoints=4"], r"heatmaps does not fit the model.*size mismatch"),
    ):
        with pytest.raises(InputError, match=message):
            start(data, *words, *wrong)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init_modules=[legs]"], r"init_modules: expected a list of some of \['encoder', 'backbone', .*\['legs'"),
        (["init_modules=backbone"], r"init_modules: expected a list of some of .*found backbone"),
        (["init_modules=[]"], r"init_modules: expected a list of some of"),
        (["init_modules=[transformer]", "policy=autoregressive"], r"does not fit the model it is for: size mismatch"),
        (["init_modules=[backbone]", "policy.backbone.tiny.width=64"], r"backbone\.tiny\.width 32, found 64"),
        (["policy=autoregressive"], r"expected policy\.action_normalization 'min_max', .*'quantile'; init_mod"),
        (["policy.vector_normalization=mean_std"], r"policy\.vector_normalization 'min_max', .*found 'mean_std'"),
        (["policy.action_relative=true"], r"expected policy\.action_relative False, .*found True"),
        (["policy.backbone.max_text_tokens=2"], r"task of dataset .*near: expected at most 2 tokens"),
        (["policy.backbone.path=some/model"], r"expected policy\.backbone\.path None, found 'some/model'"),
        (["policy.backbone=null"], "expected no backbone because of backbone=, found a backbone"),
    ],
)
def test_what_does_not_go_together_is_refused(data: Path, source: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        start(data, f"init_from={source}", *overrides)


def test_sentences_with_special_tokens_are_refused(source: Path, tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "odd", (TOP,), ["push the <image>"], episodes=1)
    for more in ([], [f"init_from={source}"]):
        with pytest.raises(InputError, match=r"task of dataset .*odd: expected words, found the token '<image>'"):
            start(tmp_path / "odd", *more)


def test_the_card_of_a_checkpoint_without_one_names_no_folder(data: Path, source: Path, tmp_path: Path) -> None:
    policy = DiffusionPolicy.from_pretrained(source)
    policy.card = {}
    policy.save_pretrained(tmp_path / "bare")
    assert start(data, f"init_from={tmp_path / 'bare'}")[1] == "a checkpoint"


@pytest.mark.parametrize(
    ("overrides", "cameras", "message"),
    [
        (["scene=pusht_language", "rollout.env=gym_pusht"], {"top": 96}, "expected 'pybullet' for a task with goals"),
        (["scene=pusht", "rollout.env=mujoco"], {"top": 96}, "expected 'pybullet' or 'gym_pusht', found 'mujoco'"),
        (["scene=pusht"], {"wrist": 96}, "'wrist'"),
        (["scene=pusht"], {"top": 64}, r"rollout\.env pybullet do not fit: observation\.images\.top"),
    ],
)
def test_rollouts_that_cannot_be_are_refused_at_once(overrides: list[str], cameras: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rollouts(load_config("train", ["data.root=x", *overrides]), pusht_interface(cameras))


def test_rollouts_are_in_pybullet_by_default() -> None:
    play = rollouts(load_config("train", ["data.root=x", "scene=pusht_language"]), pusht_interface({"top": 96}))
    assert callable(play)


def test_the_language_recipe_is_that_of_one_goal_with_a_backbone_and_a_word_on_its_goal() -> None:
    one, several = (
        OmegaConf.to_container(load_config("train", ["data.root=x", f"scene={task}"]))
        for task in ("pusht", "pusht_language")
    )
    assert several["policy"].pop("backbone")["tuning"] == "full"
    assert one["policy"].pop("backbone") is None
    seen = one["policy"].pop("auxiliary_keys")
    assert several["policy"].pop("auxiliary_keys") == [*seen, "observation.goal_state"]
    assert several["policy"].pop("object_frame") is None
    assert one["policy"].pop("object_frame") == "observation.environment_state"
    assert several["policy"]["encoder"] == {**one["policy"]["encoder"], "tokens": True, "grid": 4}
    one["policy"].pop("encoder"), several["policy"].pop("encoder")
    assert {key for key in one if one[key] != several[key]} == {"scene"}
