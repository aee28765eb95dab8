"""Splits, order of samples, statistics."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from vla_policy.data import LeRobotDataset
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import PolicyConfig
from vla_policy.training import DataConfig, fit_normalizer, make_windows, split_episodes
from vla_policy.training.batches import StepSampler


def test_smaller_training_sets_are_part_of_larger_ones_and_apart_from_validation() -> None:
    splits = [split_episodes(range(200), DataConfig("x", n_episodes=n, val_episodes=10)) for n in (25, 50, 100, 190)]
    for (small, held_out), (large, _) in itertools.pairwise(splits):
        assert large[: len(small)] == small
        assert held_out == splits[0][1]
    assert not set(splits[-1][0]) & set(splits[-1][1])
    assert len(set(splits[-1][0]) | set(splits[-1][1])) == 200
    assert split_episodes(range(200), DataConfig("x", n_episodes=25, split_seed=1))[0] != splits[0][0]


def test_validation_episodes_are_a_number_or_a_fraction() -> None:
    assert [len(part) for part in split_episodes(range(40), DataConfig("x", val_episodes=0.1))] == [36, 4]
    assert [len(part) for part in split_episodes(range(40), DataConfig("x", val_episodes=0.001))] == [39, 1]
    assert [len(part) for part in split_episodes(range(40), DataConfig("x", val_episodes=0))] == [40, 0]
    for wrong in ({"n_episodes": 39, "val_episodes": 2}, {"n_episodes": 0}, {"val_episodes": -1}):
        with pytest.raises(InputError, match="val_episodes"):
            split_episodes(range(40), DataConfig("x", **wrong))


def test_every_epoch_has_every_window_once_and_any_step_can_be_started_at() -> None:
    whole = list(StepSampler(windows=10, batch_size=4, seed=3, start=0, stop=10))
    flat = np.concatenate(whole)
    for epoch in flat.reshape(4, 10):
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(flat[:10], flat[10:20])
    assert list(StepSampler(10, 4, 3, start=6, stop=10)) == whole[6:]
    assert list(StepSampler(10, 4, 4, start=0, stop=10)) != whole
    assert [len(batch) for batch in StepSampler(3, 8, 0, 0, 4)] == [8] * 4


def test_processes_share_out_a_steps_samples() -> None:
    one = list(StepSampler(100, 8, 0, 0, 5))
    two = [list(StepSampler(100, 4, 0, 0, 5, rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*two, strict=True)] == one


def test_relative_statistics_are_those_of_relative_chunks(bimanual_dataset: Path) -> None:
    dataset = LeRobotDataset(bimanual_dataset)
    config = PolicyConfig(observation_keys=[STATE], action_relative=True)
    windows = make_windows(dataset, config, [0, 1])
    stats = fit_normalizer(windows, config).stats[ACTION]
    batch = windows.__getitems__(range(len(windows)))
    relative = (batch[ACTION] - batch[STATE][:, -1:]).flatten(0, 1).numpy()
    np.testing.assert_allclose(stats["min"], relative.min(0), rtol=1e-6)
    np.testing.assert_allclose(stats["max"], relative.max(0), rtol=1e-6)
    absolute = fit_normalizer(windows, PolicyConfig(observation_keys=[STATE])).stats[ACTION]
    np.testing.assert_allclose(absolute["max"], windows.columns[ACTION].max(0), rtol=1e-6)
