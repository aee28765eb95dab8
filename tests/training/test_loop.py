"""Real training steps: they learn, resume exactly, and stop clearly."""

import csv
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bimanual import HEAD, WRIST
from helpers.interrupt import interrupted_after
from helpers.small_diffusion import SMALL
from safetensors.torch import load_file

from vla_policy.data import LeRobotDataset, WindowDataset
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import Trainer, TrainerConfig, fit_normalizer, make_windows
from vla_policy.training.loop import TrainingDiverged
from vla_policy.training.optimizers import make_optimizers, parameter_groups

FAST: dict[str, Any] = {"precision": "fp32", "batch_size": 16, "warmup_steps": 2, "wandb": None, "log_every": 1}


def make_policy(windows: WindowDataset, config: PolicyConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(config, windows.interface, fit_normalizer(windows, config))


@pytest.fixture
def vectors(bimanual_dataset: Path) -> tuple[WindowDataset, PolicyConfig]:
    config = PolicyConfig(observation_keys=[STATE], **deepcopy({**SMALL, "noise_samples": 2}))
    config.transformer.dropout = 0.1
    return make_windows(LeRobotDataset(bimanual_dataset), config, [0, 1, 2]), config


def metrics(run_dir: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    with open(run_dir / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["metric"], {})[int(row["step"])] = float(row["value"])
    return found


def test_two_cameras_and_fourteen_joints_train_and_lower_the_loss(bimanual_dataset: Path, tmp_path: Path) -> None:
    config = PolicyConfig(observation_keys=[STATE, HEAD, WRIST], **SMALL)
    dataset = LeRobotDataset(bimanual_dataset)
    windows, held_out = make_windows(dataset, config, [0, 1, 2]), make_windows(dataset, config, [3])
    trainer = TrainerConfig(**{**FAST, "precision": "auto", "steps": 40, "lr": 3e-3, "val_windows": 32})
    Trainer(make_policy(windows, config), windows, tmp_path, trainer, val_windows=held_out).fit()
    found = metrics(tmp_path)
    losses = list(found["train/loss"].values())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert set(found["val/loss"]) == set(found["val/hold_error"]) == {40}
    assert list((tmp_path / "tensorboard").iterdir())
    policy = DiffusionPolicy.from_pretrained(tmp_path / "checkpoints" / "last")
    assert policy.interface.cameras == [HEAD, WRIST]


@pytest.mark.slow
def test_memorising_a_few_windows_predicts_their_actions(
    vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path
) -> None:
    windows, config = vectors
    config.transformer.dropout = 0.0
    policy = make_policy(windows, config)
    trainer = TrainerConfig(**{**FAST, "steps": 600, "lr": 3e-3, "log_every": 100})
    Trainer(policy, windows, tmp_path, trainer).fit()
    trained = DiffusionPolicy.from_pretrained(tmp_path / "checkpoints" / "last")
    batch = windows.__getitems__(range(0, len(windows), 3))
    error = (trained.sample(batch, torch.Generator().manual_seed(0))[:, :8] - batch[ACTION][:, 1:9]).abs().mean()
    hold = (batch[ACTION][:, :1] - batch[ACTION][:, 1:9]).abs().mean()
    assert error < 0.5 * hold


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path, optimizer: str
) -> None:
    windows, config = vectors
    settings = TrainerConfig(**{**FAST, "steps": 12, "save_every": 5, "optimizer": optimizer})
    Trainer(make_policy(windows, config), windows, tmp_path / "whole", settings, seed=3).fit()

    interrupted_after(8, Trainer(make_policy(windows, config), windows, tmp_path / "parts", settings, seed=3))
    resumed = Trainer(make_policy(windows, config), windows, tmp_path / "parts", settings, seed=3)
    resumed.fit(resume=True)

    for name in ("state.safetensors", "checkpoints/last/model.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    other = tmp_path / "other"
    Trainer(make_policy(windows, config), windows, other, settings, seed=4).fit()
    whole, different = load_file(tmp_path / "whole/state.safetensors"), load_file(other / "state.safetensors")
    assert not all(torch.equal(whole[key], different[key]) for key in whole)


def test_bad_data_stops_with_the_step_and_key_and_keeps_the_last_state(
    vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path
) -> None:
    windows, config = vectors
    settings = TrainerConfig(**{**FAST, "steps": 10, "save_every": 2})
    trainer = Trainer(make_policy(windows, config), windows, tmp_path, settings)
    step = trainer.train_step

    def poisoned(number: int, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if number == 5:
            batch[ACTION][0, 0, 0] = torch.nan
        return step(number, batch)

    trainer.train_step = poisoned  # type: ignore[method-assign, assignment]
    with pytest.raises(TrainingDiverged, match=r"step 5.*\['action'\] is not finite.*state of step 4 is kept"):
        trainer.fit()
    assert all(value.isfinite().all() for value in load_file(tmp_path / "state.safetensors").values())


def test_the_best_checkpoint_is_the_one_with_the_best_rollouts(
    vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path
) -> None:
    windows, config = vectors
    rates = iter([0.2, 0.6, 0.6, 0.4])
    settings = TrainerConfig(**{**FAST, "steps": 8, "rollout_every": 2, "save_every": 8})
    played = []

    def rollouts(policy: DiffusionPolicy) -> dict[str, float]:
        played.append(policy.transformer.position.clone())
        return {"success_rate": next(rates), "mean_max_reward": 0.5}

    Trainer(make_policy(windows, config), windows, tmp_path, settings, rollouts=rollouts).fit()
    best = DiffusionPolicy.from_pretrained(tmp_path / "checkpoints" / "best")
    assert torch.equal(best.transformer.position, played[1])
    assert best.card["training"]["step"] == 4
    assert best.card["training"]["rollout_success_rate"] == 0.6
    assert "highest success rate" in (tmp_path / "checkpoints/best/README.md").read_text()
    assert DiffusionPolicy.from_pretrained(tmp_path / "checkpoints/last").card["training"]["step"] == 8


def test_the_learning_rate_warms_up_and_follows_a_cosine(
    vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path
) -> None:
    windows, config = vectors
    settings = TrainerConfig(**{**FAST, "steps": 110, "warmup_steps": 10, "lr": 1.0})
    rate = Trainer(make_policy(windows, config), windows, tmp_path, settings).learning_rate
    assert [rate(1), rate(5), rate(10)] == pytest.approx([0.1, 0.5, 1.0])
    assert [rate(35), rate(60), rate(110)] == pytest.approx([0.5 + 0.5 * 2**-0.5, 0.5, 0.0], abs=1e-12)


def test_weight_decay_is_for_matrices_only(vectors: tuple[WindowDataset, PolicyConfig]) -> None:
    windows, config = vectors
    policy = make_policy(windows, config)
    decayed, others = parameter_groups(policy, 0.1, [])
    names = {id(value): name for name, value in policy.named_parameters()}
    assert all(names[id(value)].endswith("weight") and value.ndim >= 2 for value in decayed["params"])
    assert {"transformer.position", "encoder.steps"} <= {names[id(value)] for value in others["params"]}
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_muon_orthogonalises_the_steps_of_hidden_matrices_alone(vectors: tuple[WindowDataset, PolicyConfig]) -> None:
    windows, config = vectors
    policy = make_policy(windows, config)
    adamw, muon = make_optimizers(policy, TrainerConfig(optimizer="muon", lr=0.1, weight_decay=0.0))
    names = {id(value): name for name, value in policy.named_parameters()}
    hidden = {names[id(value)] for group in muon.param_groups for value in group["params"]}
    others = {names[id(value)] for group in adamw.param_groups for value in group["params"]}
    assert hidden | others == set(names.values())
    assert not hidden & others
    assert "transformer.layers.0.qkv.weight" in hidden
    assert {"transformer.layers.0.modulation.weight", "head.action_in.weight"} <= others

    matrix = policy.get_parameter("transformer.layers.0.mlp_in.weight")
    before = matrix.detach().clone()
    matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
    muon.step()
    stretched = torch.linalg.svdvals((matrix.detach() - before) / (0.1 * 0.2 * max(matrix.shape) ** 0.5))
    assert float(stretched.min()) > 0.5
    assert float(stretched.max()) < 1.5


def test_muon_without_a_layer_to_train_is_refused() -> None:
    with pytest.raises(InputError, match=r"trainer\.optimizer: expected layers that are trained for muon, found none"):
        make_optimizers(torch.nn.Linear(2, 2), TrainerConfig(optimizer="muon"))


def test_a_truncated_state_is_named(vectors: tuple[WindowDataset, PolicyConfig], tmp_path: Path) -> None:
    windows, config = vectors
    settings = TrainerConfig(**{**FAST, "steps": 2})
    Trainer(make_policy(windows, config), windows, tmp_path, settings).fit()
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"state\.safetensors: truncated"):
        Trainer(make_policy(windows, config), windows, tmp_path, settings).fit(resume=True)
