"""Generalisation of tiny policies on a dataset of a few frames."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_dataset import FRONT, write_plain_dataset
from helpers.tiny_policies import tiny_policy
from rich.console import Console

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.generalization import study
from vla_policy.evaluation.generalization.certificate import finite_hypothesis_bound
from vla_policy.evaluation.generalization.study import (
    GeneralizationConfig,
    even_choice,
    generalization,
    generalization_table,
    with_weights,
)
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.training import DataConfig, make_windows, open_data

QUICK = GeneralizationConfig(n_windows=12, hessian_windows=4, eigenvalues=1, trace_draws=2)
LOW, HIGH = np.zeros(2), np.full(2, 5.0)


def dataset_of(root: Path, *lengths: int) -> LeRobotDataset:
    return LeRobotDataset(write_plain_dataset(root, lengths, {FRONT: None}, lambda *_: {FRONT: None}))


def policy_of(dataset: LeRobotDataset, **data: Any) -> DiffusionPolicy:
    """A policy whose card says of its data what a training says."""
    policy = tiny_policy(dataset.interface, LOW, HIGH, [STATE])
    policy.card["data"] = open_data(DataConfig(str(dataset.root), val_episodes=1, **data), policy.config)[2]
    return policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eigenvalues": 0}, "eigenvalues: expected at least 1, found 0"),
        ({"hessian_windows": 0}, "hessian_windows: expected at least 1, found 0"),
        ({"n_windows": 0}, "n_windows: expected at least 1, found 0"),
        ({"trace_draws": 1}, "trace_draws: expected at least 2, found 1"),
        ({"seed": -1}, "seed: expected at least 0, found -1"),
        ({"delta": 0.0}, "delta: expected a number between 0 and 1, found 0"),
        ({"delta": 1.0}, "delta: expected a number between 0 and 1, found 1"),
        ({"delta": float("nan")}, "delta: expected a number between 0 and 1, found nan"),
    ],
)
def test_mistakes_in_the_options_name_the_key(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeneralizationConfig(**changes)


@pytest.mark.parametrize(("lengths", "data"), [((12, 0, 9, 10), {}), ((12, 8, 9, 10), {"exclude_episodes": [1]})])
def test_the_bound_is_on_the_risk_of_the_compressed_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...], data: dict
) -> None:
    dataset = dataset_of(tmp_path / "data", *lengths)
    policy = policy_of(dataset, **data)
    weights = {name: torch.full_like(value, 0.01) for name, value in policy.named_parameters()}
    monkeypatch.setattr(study, "quantized", lambda *_: (weights, 1.0))
    changed = with_weights(policy, weights)
    assert all(bool((value == 0.01).all()) for value in changed.parameters())
    assert not all(bool((value == 0.01).all()) for value in policy.parameters())
    found = generalization(policy, dataset, QUICK)
    assert (found["training_episodes"], found["held_out_episodes"]) == (2, 1)
    again = generalization(changed, dataset, QUICK)["training"]
    assert found["compressed"]["training"] == again
    assert found["training"] != again
    bound = finite_hypothesis_bound(again["worse_than_holding"], found["compressed"]["bits"], 2)
    assert found["bound"]["risk"] == pytest.approx(bound)


def test_every_episode_has_the_same_share_of_the_risk(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "data", 30, 3, 4)
    windows = make_windows(dataset, policy_of(dataset).config, [0, 1, 2])
    chosen = even_choice(windows, 6, seed=0)
    assert {episode: len(some) for episode, some in chosen.items()} == {0: 2, 1: 2, 2: 2}
    assert all(windows.window(index)[0] == episode for episode, some in chosen.items() for index in some)
    assert all(len(some) == 1 for some in even_choice(windows, 1, seed=0).values())
    assert study._worse([1, 1, 1, 0], [0, 0, 0, 1], [3, 1]) == 0.5


def test_one_observation_allows_no_bound(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "data", 12, 9, 10)
    policy = policy_of(dataset)
    single = DiffusionPolicy(
        replace(policy.config, n_obs_steps=1), policy.full_interface, policy.normalizer, policy.card
    )
    found = generalization(single, dataset, QUICK)
    assert found["training"]["worse_than_holding"] is None
    assert found["bound"]["risk"] is None
    console = Console(width=200, record=True)
    console.print(generalization_table(found))
    assert "none: a policy of one observation sees no last action" in console.export_text()


def test_other_data_and_ensembles_are_refused(tmp_path: Path) -> None:
    dataset, other = dataset_of(tmp_path / "data", 12, 9, 10), dataset_of(tmp_path / "other", 12, 9, 10, 8)
    policy = policy_of(dataset)
    with pytest.raises(InputError, match="expected the 3 episodes that the policy was trained on, found others"):
        generalization(policy, other, QUICK)
    joint = DiffusionPolicy(replace(policy.config, ensemble=2), policy.full_interface, policy.normalizer, policy.card)
    with pytest.raises(InputError, match="expected a single policy, found an ensemble of 2"):
        generalization(joint, dataset, QUICK)


def test_a_control_is_measured_on_the_actions_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = dataset_of(tmp_path / "data", 12, 9, 10)
    control, plain = policy_of(dataset, shuffle_actions=True), policy_of(dataset)
    measured: list[torch.Tensor] = []

    def measure(policy: DiffusionPolicy, windows: Any, config: GeneralizationConfig) -> dict[str, Any]:
        measured.append(windows.__getitems__(range(len(windows)))[ACTION])
        return _measured(policy, windows, config)

    _measured = study._measured
    monkeypatch.setattr(study, "_measured", measure)
    found = [generalization(policy, dataset, QUICK)["shuffled_actions"] for policy in (control, plain)]
    assert found == [True, False]
    learnt = open_data(DataConfig(str(dataset.root), val_episodes=1, shuffle_actions=True), control.config)[0]
    given = torch.stack([learnt[index][ACTION] for index in range(len(learnt))])
    assert torch.equal(measured[0], given)
    assert not torch.equal(measured[3], given)
    assert torch.equal(measured[1], measured[4])  # held-out actions are those of the recording
    control.card["data"]["windows"] += 1
    with pytest.raises(InputError, match="expected the windows of the training, as it shuffled them, found others"):
        generalization(control, dataset, QUICK)
