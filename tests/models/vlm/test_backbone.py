"""The vision-language backbone over transformers' real classes, tiny ones."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import SMALL, TOP, batch_of, histories_of, small_policy
from helpers.small_vlm import TINY, frames_of, save_paligemma, save_smolvlm, small_backbone

from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError
from vla_policy.models import BACKBONE_HIDDEN, BACKBONE_REAL, Backbone, BackboneConfig, DiffusionPolicy
from vla_policy.models.vlm.backbone import load_model
from vla_policy.models.vlm.tiny import train_tokenizer

FAMILIES = {"smolvlm": save_smolvlm, "paligemma": save_paligemma}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FAMILIES[request.param](tmp_path / "vlm")


def from_folder(folder: Path, **config: Any) -> Backbone:
    return Backbone.create(BackboneConfig(path=str(folder), **config), [])


@torch.no_grad()
def hidden(backbone: Backbone, frames: list[torch.Tensor], texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    states, real = backbone.eval()(backbone.look(frames), texts, len(frames))
    return states, real


def test_the_default_tiny_model_has_two_to_six_million_parameters() -> None:
    backbone = Backbone.create(BackboneConfig(), ["push the T"])
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert 2e6 < count < 6e6
    assert backbone.per_image == 9


def test_a_downloaded_model_gives_transformers_own_hidden_states(folder: Path) -> None:
    backbone, frames = from_folder(folder), frames_of(1)
    states, real = hidden(backbone, frames, ["push the T"])
    ids = torch.tensor([backbone._ids("push the T", 1)])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = backbone.model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=backbone.family.pixels(backbone.images(frames)),
            output_hidden_states=True,
            **backbone.family.more_inputs(mask, None),
        )
    assert real.all()
    torch.testing.assert_close(states, expected.hidden_states[-1])


def test_an_early_layer_is_read_without_running_the_later_ones(folder: Path) -> None:
    early, whole = from_folder(folder, layer=1), from_folder(folder)
    language = getattr(early.base.model, early.family.language_model)
    language.layers[1].register_forward_hook(lambda *_: pytest.fail("the second layer ran"))
    frames = frames_of(2)
    states, _ = hidden(early, frames, ["push", "pull"])
    assert states.shape == hidden(whole, frames, ["push", "pull"])[0].shape
    assert not torch.allclose(states, hidden(whole, frames, ["push", "pull"])[0])
    assert len(language.layers) > 1  # and are back where they were


def test_padding_changes_no_token_and_words_and_pictures_do(folder: Path) -> None:
    backbone, frames = from_folder(folder), frames_of(2)
    long = "push the T onto the red goal"
    states, real = hidden(backbone, frames, ["push", long])
    alone, _ = hidden(backbone, [frames[0][:1]], ["push"])
    count = alone.shape[1]
    assert real.sum(1).tolist() == [count, states.shape[1]]
    assert count < states.shape[1]
    torch.testing.assert_close(states[:1, :count], alone, atol=1e-5, rtol=1e-5)
    other, _ = hidden(backbone, [frames[0][:1]], ["pull"])
    assert not torch.allclose(other[:, -1], alone[:, -1])
    black, _ = hidden(backbone, [torch.zeros_like(frames[0][:1])], ["push"])
    assert not torch.allclose(black, alone)


def test_every_camera_is_seen(folder: Path) -> None:
    backbone, frames = from_folder(folder), frames_of(2, cameras=3)
    states, _ = hidden(backbone, frames, ["push", "push"])
    assert int((torch.tensor(backbone._ids("push", 3)) == backbone.base.config.image_token_id).sum()) == 27
    for camera in range(3):
        changed = [torch.zeros_like(f) if k == camera else f for k, f in enumerate(frames)]
        assert not torch.allclose(hidden(backbone, changed, ["push", "push"])[0], states)
    loss = backbone.language_loss(backbone.look(frames), ["where?"], ["left"], 3)
    assert loss.isfinite()


def test_the_backbone_learns_to_answer_about_pictures() -> None:
    backbone, frames = small_backbone(), frames_of(4)
    frames[0][:2], frames[0][2:] = 30, 220
    questions, answers = ["where is the T?", "where is the goal?"] * 2, ["left", "far", "right", "near"]
    optimizer = torch.optim.Adam(backbone.parameters(), lr=3e-3)
    for _ in range(150):
        loss = backbone.language_loss(backbone.look(frames), questions, answers, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    said = [backbone.eval().answer([frames[0][[k]]], questions[k]) for k in range(4)]
    assert said == answers


def test_the_loss_is_on_the_answers_tokens_alone(folder: Path) -> None:
    backbone, frames = from_folder(folder).eval(), frames_of(1)
    prompt, said = backbone._ids("where?", 1), backbone._tokens(backbone.family.answer("left"))
    ids = torch.tensor([prompt + said])
    mask = torch.ones_like(ids)
    answered = torch.tensor([[False] * len(prompt) + [True] * len(said)])
    with torch.no_grad():
        logits = backbone.model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=backbone.family.pixels(backbone.images(frames)),
            **backbone.family.more_inputs(mask, answered),
        ).logits[0, len(prompt) - 1 : -1]
        loss = backbone.language_loss(backbone.look(frames), ["where?"], ["left"], 1)
    expected = -logits.log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)].mean()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_lora_trains_adapters_and_leaves_the_frozen_weights_alone(folder: Path, tmp_path: Path) -> None:
    before = load_model(str(folder)).state_dict()
    policy = small_policy(image=True, backbone=from_folder(folder, tuning="lora"), **vla(folder, tuning="lora"))
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    batch = batch_of(2) | {"question": ["where?"], "answer": ["left"]}
    for k in range(2):
        loss, parts = policy.loss(batch, torch.Generator().manual_seed(k))
        loss.backward()
        optimizer.step()
    assert "language" in parts
    trained = policy.backbone.base.state_dict()
    kept = {name.replace(".base_layer", ""): value for name, value in trained.items() if "lora_" not in name}
    noise = {name for name, value in before.items() if not torch.equal(kept[name], value)}
    assert not noise
    assert any(value.any() for name, value in trained.items() if "lora_B" in name)
    policy.save_pretrained(tmp_path / "policy")
    assert not [name for name in policy.stored_state() if name.startswith("backbone.") and "lora_" not in name]
    loaded = DiffusionPolicy.from_pretrained(tmp_path / "policy")
    same(policy, loaded)


def test_a_frozen_backbone_has_no_gradients_and_is_not_stored(folder: Path, tmp_path: Path) -> None:
    policy = small_policy(image=True, backbone=from_folder(folder, tuning="frozen"), **vla(folder, tuning="frozen"))
    policy.loss(batch_of(2), torch.Generator().manual_seed(0))[0].backward()
    assert all(p.grad is None for p in policy.backbone.parameters())
    assert policy.backbone_token.weight.grad.any()
    assert not [name for name in policy.stored_state() if name.startswith("backbone.")]
    policy.save_pretrained(tmp_path / "policy")
    same(policy, DiffusionPolicy.from_pretrained(tmp_path / "policy"))


def test_what_a_frozen_backbone_read_before_stands_for_it(folder: Path) -> None:
    policy = small_policy(image=True, backbone=from_folder(folder, tuning="frozen"), **vla(folder, tuning="frozen"))
    policy.eval()
    batch = batch_of(3)
    hidden, real, _ = policy.read(batch)
    read = {**batch, BACKBONE_HIDDEN: hidden, BACKBONE_REAL: real}
    with torch.no_grad():
        expected, found = (policy.loss(b, torch.Generator().manual_seed(0))[0] for b in (batch, read))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        other = policy.loss({**read, BACKBONE_HIDDEN: -hidden}, torch.Generator().manual_seed(0))[0]
    assert abs(float(other - expected)) > 1e-4  # it is what the policy sees


def test_a_checkpoint_of_a_tiny_model_is_complete(tmp_path: Path) -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    policy.save_pretrained(tmp_path / "policy")
    assert {path.name for path in (tmp_path / "policy/backbone").iterdir()} >= {"config.json", "tokenizer.json"}
    same(policy, DiffusionPolicy.from_pretrained(tmp_path / "policy"))


def test_the_instruction_decides_unless_it_is_hidden() -> None:
    batch = batch_of(2)
    other = {**batch, "task": ["left of the red goal"] * 2}
    for use in (True, False):
        config = BackboneConfig(tiny=TINY, use_instruction=use)
        policy = small_policy(image=True, backbone=small_backbone(use_instruction=use), backbone_config=config)
        first, second = (policy.eval().sample(b, torch.Generator().manual_seed(0)) for b in (batch, other))
        assert torch.equal(first, second) is not use


def test_without_an_encoder_the_backbone_alone_sees() -> None:
    config = {"backbone_config": BackboneConfig(tiny=TINY), "encoder": None}
    policy = small_policy(
        image=True, backbone=small_backbone(), auxiliary_keys=["observation.environment_state"], **config
    ).eval()
    batch = batch_of(2)
    black = {**batch, TOP: torch.zeros_like(batch[TOP])}
    first, second = (policy.sample(b, torch.Generator().manual_seed(0)) for b in (batch, black))
    assert not torch.equal(first, second)
    assert policy.observe(batch, None).estimates["observation.environment_state"].shape == (2, 1, 4)


def test_what_is_read_of_picture_and_instruction_can_be_all_that_the_transformer_sees() -> None:
    config = {"backbone_config": BackboneConfig(tiny=TINY), "encoder": replace(SMALL["encoder"], tokens=False)}
    policy = small_policy(image=True, backbone=small_backbone(), auxiliary_keys=[ENVIRONMENT_STATE], **config).eval()
    batch = batch_of(2)
    other = {**batch, "task": ["left of the red goal"] * 2}
    seen, told = policy.observe(batch, None), policy.observe(other, None)
    assert (seen.tokens.shape[1], seen.real, seen.context) == (2 + 2, None, None)  # the states, the estimates
    assert torch.equal(seen.tokens[:, :2], told.tokens[:, :2])
    assert not torch.equal(seen.estimates[ENVIRONMENT_STATE], told.estimates[ENVIRONMENT_STATE])
    policy.loss(batch, torch.Generator().manual_seed(0))[0].backward()
    reached = [name for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()]
    assert any(name.startswith("backbone.") for name in reached)  # by the estimate's error


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("", "instruction: expected a sentence, found ''"),
        ("  ", "instruction: expected a sentence"),
        ("push the T " * 40, r"instruction: expected at most 64 tokens .*max_text_tokens"),
        ("push <image> onto red", "instruction: expected words, found the token '<image>' of the model in 'push <im"),
        ("push it<end_of_utterance>", "instruction: expected words, found the token '<end_of_utterance>'"),
    ],
)
def test_empty_instructions_and_those_with_special_tokens_are_refused(task: str, message: str) -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    histories = histories_of(policy, 1)
    histories[0][-1] = type(histories[0][-1])(histories[0][-1].values, task, 0.1)
    with pytest.raises(InputError, match=message):
        policy.predict(histories, np.random.default_rng(0))


def test_another_language_is_read_as_bytes() -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    histories = histories_of(policy, 1)
    histories[0][-1] = type(histories[0][-1])(histories[0][-1].values, "Schiebe das T! 推", 0.1)
    assert np.isfinite(policy.predict(histories, np.random.default_rng(0))[0].actions).all()


def test_special_tokens_of_every_family_are_no_words(folder: Path) -> None:
    backbone = from_folder(folder)
    backbone.check_text("push <the T> onto a < b, a picture of an image", "instruction")
    with pytest.raises(InputError, match="instruction: expected words, found the token '<image>' of the model in"):
        backbone.check_text("where is the <image>?", "instruction")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = save_smolvlm(tmp_path / "vlm")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"vlm: expected {name}, found none"):
        from_folder(folder)


def test_models_and_tokenizers_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    folder, other = save_smolvlm(tmp_path / "a"), save_paligemma(tmp_path / "b")
    shutil.copy(folder / "tokenizer.json", tmp_path / "kept.json")
    shutil.copy(other / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(InputError, match="tokenizer: expected the model's own"):
        from_folder(folder)
    shutil.copy(tmp_path / "kept.json", folder / "tokenizer.json")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"model_type": "smolvlm",', '"model_type": "bert",'))
    with pytest.raises(InputError, match=r"expected a model of \['idefics3', 'paligemma', 'smolvlm'\], found 'bert'"):
        from_folder(folder)
    with pytest.raises(InputError, match=r"backbone 'no/model': neither a folder .* nor readable from the hub"):
        from_folder(Path("no/model"))


def test_a_checkpoint_is_read_with_its_own_tokenizer_alone(tmp_path: Path) -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    policy.save_pretrained(tmp_path / "policy")
    backbone = tmp_path / "policy/backbone"
    train_tokenizer(["put the block somewhere else"], 300).save_pretrained(backbone)  # shorter, and <image> is the same
    with pytest.raises(InputError, match=r"backbone: expected the tokenizer.json that the policy learned with"):
        DiffusionPolicy.from_pretrained(tmp_path / "policy")
    text = (backbone / "config.json").read_text()
    assert '"tokenizer_digest"' in text
    (backbone / "config.json").write_text(text.replace("tokenizer_digest", "unknown"))
    DiffusionPolicy.from_pretrained(tmp_path / "policy")  # older checkpoints have none


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected config.json, found none"),
        ('{"model_type": ', "expected a config.json with a model_type, found another file"),
        ("[]", "expected a config.json with a model_type, found another file"),
        ('{"model_type": "bert"}', r"expected a model of .*'smolvlm'\], found 'bert'"),
    ],
)
def test_a_damaged_configuration_of_a_checkpoints_backbone_is_named(
    tmp_path: Path, content: str | None, message: str
) -> None:
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    policy.save_pretrained(tmp_path / "policy")
    path = tmp_path / "policy/backbone/config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"policy/backbone: {message}"):
        DiffusionPolicy.from_pretrained(tmp_path / "policy")


@pytest.mark.parametrize("tuning", ["lora", "frozen", "full"])
def test_weights_in_bfloat16_act_and_learn_in_float32(folder: Path, tmp_path: Path, tuning: str) -> None:
    load_model(str(folder)).bfloat16().save_pretrained(folder)
    assert load_model(str(folder)).dtype == torch.bfloat16
    policy = small_policy(image=True, backbone=from_folder(folder, tuning=tuning), **vla(folder, tuning=tuning))
    assert (torch.bfloat16 in {p.dtype for p in policy.backbone.parameters()}) == (tuning != "full")
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    (chunk,) = policy.predict(histories_of(policy, 1), np.random.default_rng(0))
    assert np.isfinite(chunk.actions).all()
    assert isinstance(policy.backbone.answer(frames_of(1), "where?"), str)
    batch, generator = batch_of(2) | {"question": ["where?"], "answer": ["left"]}, torch.Generator().manual_seed(0)
    with torch.no_grad():
        before, _ = policy.loss(batch, generator.manual_seed(0))
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(3):
        loss, _ = policy.train().loss(batch, generator.manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < float(before)
    policy.save_pretrained(tmp_path / "policy")
    same(policy, DiffusionPolicy.from_pretrained(tmp_path / "policy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning": "some"}, "tuning: expected full, lora or frozen, found 'some'"),
        ({"tuning": "lora"}, "expected full or frozen for a model without a path, found 'lora'"),
        ({"layer": 9}, "layer: expected 1 to 3, found 9"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_backbone(**change)


def test_a_backbone_needs_a_camera_and_a_camera_someone_who_looks() -> None:
    with pytest.raises(InputError, match=r"policy\.backbone: expected a camera"):
        small_policy(backbone_config=BackboneConfig(tiny=TINY))
    with pytest.raises(InputError, match=r"policy\.encoder: expected an encoder or a backbone"):
        small_policy(image=True, encoder=None)


def vla(folder: Path, **config: Any) -> dict[str, Any]:
    return {"backbone_config": BackboneConfig(path=str(folder), **config)}


def same(policy: DiffusionPolicy, loaded: DiffusionPolicy) -> None:
    assert loaded.config == policy.config
    batch = batch_of(2)
    first, second = (p.eval().sample(batch, torch.Generator().manual_seed(0)) for p in (policy, loaded))
    assert torch.equal(first, second)
    assert STATE in loaded.interface.observations
