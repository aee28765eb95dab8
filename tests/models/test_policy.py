"""The policy as others use it: predict, loss, save and load."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import TOP, batch_of, histories_of, objective, small_policy
from safetensors.torch import load_file

from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError, Observation
from vla_policy.models import (
    DiffusionPolicy,
    EncoderConfig,
    PolicyConfig,
    TransformerConfig,
    update_card,
)

FILES = {"config.yaml", "model.safetensors", "normalizer.json", "interface.json", "README.md"}


def test_a_chunk_starts_at_the_newest_observation_and_repeats_with_its_generator() -> None:
    policy = small_policy()
    histories = histories_of(policy, 3)
    chunks = policy.predict(histories, np.random.default_rng(5))
    assert [(chunk.t_obs, chunk.dt, chunk.actions.shape) for chunk in chunks] == [(0.1, 0.1, (15, 2))] * 3
    again = policy.predict(histories, np.random.default_rng(5))
    other = policy.predict(histories, np.random.default_rng(6))
    assert np.array_equal(chunks[0].actions, again[0].actions)
    assert not np.array_equal(chunks[0].actions, other[0].actions)
    assert policy.predict([], np.random.default_rng(0)) == []


def test_sampled_actions_stay_in_the_range_of_the_data() -> None:
    policy = small_policy()
    stats = policy.normalizer.stats[ACTION]
    for chunk in policy.predict(histories_of(policy, 8), np.random.default_rng(0)):
        assert (chunk.actions >= stats["min"] - 1e-6).all()
        assert (chunk.actions <= stats["max"] + 1e-6).all()


def test_relative_actions_move_with_the_state() -> None:
    policy = small_policy(action_relative=True)
    batch = batch_of(2)
    relative = policy.normalizer.unnormalize(ACTION, policy.chunks(batch))
    torch.testing.assert_close(relative + batch[STATE][:, -1:], batch[ACTION])
    sampled = policy.sample(batch, torch.Generator().manual_seed(0))
    absolute = small_policy().sample(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, absolute + batch[STATE][:, -1:])


def test_targets_keep_their_precision_under_autocast() -> None:
    policy = small_policy(action_relative=True, action_basis="frequency", normalization_per_step=True)
    exact = policy.chunks(batch_of(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(policy.chunks(batch_of(4)), exact)


def test_only_the_newest_pictures_are_encoded() -> None:
    policy = small_policy(image=True, n_image_steps=1, auxiliary_keys=[ENVIRONMENT_STATE])
    batch = batch_of(2)
    old, new = dict(batch), dict(batch)
    old[TOP], new[TOP] = batch[TOP].clone(), batch[TOP].clone()
    old[TOP][:, 0], new[TOP][:, 1] = 0, 0
    tokens, _, estimates, *_ = policy.observe(batch, None)
    assert estimates[ENVIRONMENT_STATE].shape == (2, 1, 4)
    assert torch.equal(tokens, policy.observe(old, None)[0])
    assert not torch.equal(tokens, policy.observe(new, None)[0])
    loss, _ = policy.loss(batch, torch.Generator().manual_seed(0))
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_basis": "wavelets"}, r"action_basis: expected 'time' or 'frequency', found 'wavelets'"),
        ({"action_basis": "frequency"}, r"action_basis: frequency expected normalization_per_step=true"),
        ({"n_image_steps": 3}, r"n_image_steps: expected 1 to n_obs_steps = 2, found 3"),
        ({"n_image_steps": 0}, r"n_image_steps: expected 1 to n_obs_steps = 2, found 0"),
        (
            {"transformer": TransformerConfig(patch=5)},
            r"patch: expected a divisor of the 16 predicted .*, found 5",
        ),
        (
            {"transformer": TransformerConfig(patch=0)},
            r"patch: expected a divisor of the 16 predicted .*, found 0",
        ),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PolicyConfig(**change)


def test_relative_actions_need_a_state_of_the_same_channels() -> None:
    with pytest.raises(InputError, match=r"action_relative.*observation\.state"):
        small_policy(observation_keys=[ENVIRONMENT_STATE], action_relative=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TOP: np.zeros((64, 64, 3), np.uint8)}, r"observation\.images\.top.*\(96, 96, 3\).*\(64, 64, 3\)"),
        ({TOP: np.zeros((96, 96, 3), np.float32)}, r"observation\.images\.top.*uint8.*float32"),
        ({STATE: np.zeros(7, np.float32)}, r"observation\.state.*\(2,\).*\(7,\)"),
        ({STATE: np.array([0.1, np.nan], np.float32)}, r"observation\.state.*finite"),
        ({TOP: None}, r"observation\.images\.top.*missing"),
    ],
)
def test_observations_that_do_not_fit_are_refused_by_name(change: dict, message: str) -> None:
    policy = small_policy(image=True)
    old, new = histories_of(policy, 1)[0]
    values = {key: value for key, value in {**new.values, **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        policy.predict([[old, Observation(values, "", 0.1)]], np.random.default_rng(0))
    with pytest.raises(InputError, match="expected 2 observations, found 1"):
        policy.predict([[new]], np.random.default_rng(0))


def test_auxiliary_keys_train_the_encoder_and_are_not_needed_to_act() -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE])
    loss, parts = policy.loss(batch_of(4), torch.Generator().manual_seed(0))
    assert set(parts) == {"action", f"auxiliary/{ENVIRONMENT_STATE}"}
    assert float(loss.detach()) == pytest.approx(sum(float(part) for part in parts.values()))
    assert list(policy.interface.observations) == [STATE, TOP]
    policy.predict(histories_of(policy, 1), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"auxiliary_keys.*camera"):
        small_policy(auxiliary_keys=[ENVIRONMENT_STATE])


def test_a_far_off_estimate_counts_linearly() -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE])

    def error(offset: float) -> float:
        batch = batch_of(4)
        batch[ENVIRONMENT_STATE] = batch[ENVIRONMENT_STATE] + offset
        _, parts = policy.loss(batch, torch.Generator().manual_seed(0))
        return float(parts[f"auxiliary/{ENVIRONMENT_STATE}"])

    assert error(2000.0) == pytest.approx(2 * error(1000.0), rel=0.01)


def test_estimates_reach_the_transformer_and_only_their_own_error_trains_them() -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE])
    plain = small_policy(image=True)
    assert policy.observe(batch_of(2), None)[0].shape[1] == plain.observe(batch_of(2), None)[0].shape[1] + 2
    head = policy.auxiliary["observation_environment_state"]
    policy.config.auxiliary_weight = 0.0
    policy.loss(batch_of(2), torch.Generator().manual_seed(0))[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())
    assert any(p.grad is not None and p.grad.any() for p in policy.estimate_tokens.parameters())


def test_without_tokens_the_pictures_act_through_the_estimates_alone() -> None:
    encoder = EncoderConfig(channels=[8, 16], keypoints=4, tokens=False)
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], encoder=encoder)
    batch, noise = batch_of(2), torch.Generator().manual_seed(0)
    other = {**batch, TOP: 255 - batch[TOP]}
    seen, changed = policy.observe(batch, None), policy.observe(other, None)
    assert seen.tokens.shape[1] == 2 + 2  # of each step a state and an estimate
    assert not torch.equal(seen.tokens, changed.tokens)
    policy.auxiliary = torch.nn.ModuleDict({key: Still(head) for key, head in policy.auxiliary.items()})
    assert torch.equal(policy.observe(batch, None).tokens, policy.observe(other, None).tokens)

    blind = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], encoder=encoder)
    blind.config.auxiliary_weight = 0.0
    blind.loss(batch, noise)[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in blind.encoder.camera_tokens.parameters())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("frame", [None, ENVIRONMENT_STATE])
def test_states_that_were_imagined_stand_for_pictures(steps: int, frame: str | None) -> None:
    encoder = EncoderConfig(channels=[8, 16], keypoints=4, tokens=False)
    config: dict[str, Any] = {"n_image_steps": steps, "object_frame": frame, "action_relative": True}
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], encoder=encoder, **config)
    histories = histories_of(policy, 2)
    batch = policy.batch(histories)
    estimates = policy.estimates(batch, steps=2)[ENVIRONMENT_STATE]
    assert estimates.shape == (2, 2, 4)  # of the older picture, too
    newest = policy.normalizer.unnormalize(ENVIRONMENT_STATE, policy.observe(batch, None).estimates[ENVIRONMENT_STATE])
    torch.testing.assert_close(estimates[:, -steps:], newest)
    told = [
        [
            Observation({STATE: seen.values[STATE], ENVIRONMENT_STATE: estimates[i, k].numpy()}, "", seen.t)
            for k, seen in enumerate(history)
        ]
        for i, history in enumerate(histories)
    ]
    expected = policy.predict(histories, np.random.default_rng(0))
    for ours, theirs in zip(policy.predict_from_states(told, np.random.default_rng(0)), expected, strict=True):
        np.testing.assert_allclose(ours.actions, theirs.actions, atol=1e-5)
    with pytest.raises(InputError, match=ENVIRONMENT_STATE):
        policy.predict_from_states(histories, np.random.default_rng(0))
    assert not small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE]).acts_on_states
    assert small_policy().acts_on_states


class Still(torch.nn.Module):
    """The estimate of a picture of nothing."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        estimate: torch.Tensor = self.head(torch.zeros_like(summary))
        return estimate


@pytest.mark.parametrize("name", ["flow", "ddpm", "autoregressive", "masked"])
def test_a_checkpoint_gives_back_the_same_policy(tmp_path: Path, name: str) -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], **objective(name))
    policy = DiffusionPolicy(policy.config, policy.full_interface, policy.normalizer, {"data": {"dataset": "pusht"}})
    policy.save_pretrained(tmp_path / "last")
    policy.save_pretrained(tmp_path / "last")
    assert {path.name for path in (tmp_path / "last").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    loaded = DiffusionPolicy.from_pretrained(tmp_path / "last")
    assert loaded.config == policy.config
    assert loaded.interface.digest() == policy.interface.digest()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in policy.state_dict().items())
    histories = histories_of(policy, 2)
    for a, b in zip(
        policy.predict(histories, np.random.default_rng(1)),
        loaded.predict(histories, np.random.default_rng(1)),
        strict=True,
    ):
        assert np.array_equal(a.actions, b.actions)


def test_the_model_card_has_data_interface_and_measured_success(tmp_path: Path) -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE])
    earlier = {"steps": 5, "initial_weights": "random"}
    policy.card = {"data": {"dataset": "pusht_expert"}, "training": {"steps": 7, "initial_weights": earlier}}
    folder = tmp_path / "best"
    policy.save_pretrained(folder)
    assert "Not measured yet" in (folder / "README.md").read_text()
    summary = {
        "env": "pybullet", "task": "push", "n_episodes": 200, "seed": 100000, "success_rate": 0.8,
        "success_ci95": [0.738, 0.853], "mean_max_reward": 0.97,
    }  # fmt: skip
    update_card(folder, {**summary, "success_rate": 0.1})
    update_card(folder, summary)
    text = (folder / "README.md").read_text()
    for expected in ("pusht_expert", "steps: 7", "200 (seeds from 100000) | 80.0% | 73.8% to 85.3%", ENVIRONMENT_STATE):
        assert expected in text
    assert "10.0%" not in text
    assert "- initial weights:\n  - steps: 5\n  - initial weights: random\n" in text
    for paraphrases, rate in (("training", 0.7), ("held_out", 0.1), ("held_out", 0.6)):
        update_card(folder, {**summary, "paraphrases": paraphrases, "success_rate": rate})
    text = (folder / "README.md").read_text()
    for expected in (
        "| pybullet | 200 (seeds from 100000) | 80.0% ",
        "| pybullet, training paraphrases | 200 (seeds from 100000) | 70.0% ",
        "| pybullet, held_out paraphrases | 200 (seeds from 100000) | 60.0% ",
    ):
        assert expected in text
    assert "10.0%" not in text
    loaded = DiffusionPolicy.from_pretrained(folder)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in policy.state_dict().items())


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_checkpoint_names_the_file(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "last"
    small_policy().save_pretrained(folder)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2] if name != "config.yaml" else content[:20])
    with pytest.raises(InputError, match=name):
        DiffusionPolicy.from_pretrained(folder)


def test_weights_of_other_sizes_and_unknown_options_are_refused(tmp_path: Path) -> None:
    small_policy().save_pretrained(tmp_path / "a")
    small_policy(horizon=12).save_pretrained(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors does not fit.*position"):
        DiffusionPolicy.from_pretrained(tmp_path / "a")
    config = (tmp_path / "b" / "config.yaml").read_text()
    (tmp_path / "b" / "config.yaml").write_text(config.replace("horizon:", "horizn:"))
    with pytest.raises(InputError, match=r"config\.yaml.*horizn"):
        DiffusionPolicy.from_pretrained(tmp_path / "b")
    assert load_file(tmp_path / "b" / "model.safetensors")
    assert json.loads((tmp_path / "b" / "interface.json").read_text())["fps"] == 10


def test_aliases_that_expand_to_a_billion_values_are_refused_at_once(tmp_path: Path) -> None:
    small_policy().save_pretrained(tmp_path)
    lists = "a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    lists += "".join(f"b{k}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(9))
    config = (tmp_path / "config.yaml").read_text()
    for bomb in (lists, "a: &a [*a]\n"):
        (tmp_path / "config.yaml").write_text(bomb + config)
        with pytest.raises(InputError, match=r"config.yaml: expected YAML, found more than \d+ values"):
            DiffusionPolicy.from_pretrained(tmp_path)


def test_a_name_that_is_neither_a_folder_nor_on_the_hub_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"nobody/nothing.*no such folder"):
        DiffusionPolicy.from_pretrained("nobody/nothing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 16}, r"n_action_steps.*15, found 16"),
        ({"observation_keys": []}, "observation_keys"),
        ({"action_normalization": "mean_std"}, r"clip_sample.*mean_std"),
        (
            {"observation_keys": [STATE, TOP], "encoder": EncoderConfig(tokens=False)},
            r"encoder\.tokens: expected true, or auxiliary_keys",
        ),
    ],
)
def test_impossible_configurations_name_their_option(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PolicyConfig(**options)


def test_a_lower_temperature_gathers_the_chunks() -> None:
    policy, batch = small_policy(**objective("flow", clip_sample=False)), batch_of(1)

    def spread(temperature: float) -> float:
        policy.set_temperature(temperature)
        assert policy.config.objective.temperature == temperature
        return float(policy.propose(batch, torch.Generator().manual_seed(0), 64).std(1).mean())

    assert 0 < spread(0.25) < 0.5 * spread(1.0)
    with pytest.raises(InputError, match="temperature: expected a flow policy, found ddpm"):
        small_policy(**objective("ddpm")).set_temperature(0.5)
    with pytest.raises(InputError, match=r"policy.objective.temperature: expected 1 with ddpm, .* found 0.5"):
        small_policy(**objective("ddpm", temperature=0.5))
