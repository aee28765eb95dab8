"""Splits, order of samples, statistics."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_policy.data import LeRobotDataset, Normalizer
from vla_policy.interfaces import ACTION, STATE, DataError, InputError
from vla_policy.models import ObjectiveConfig, PolicyConfig
from vla_policy.models.chunks import ChunkCodec
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


def test_with_a_scale_per_row_every_row_of_a_chunk_spreads_alike(bimanual_dataset: Path) -> None:
    config = PolicyConfig(
        **{"observation_keys": [STATE], "action_relative": True, "normalization_per_step": True},
        **{"action_normalization": "mean_std", "objective": ObjectiveConfig(clip_sample=False)},
    )
    windows = make_windows(LeRobotDataset(bimanual_dataset), config, [0, 1])
    normalizer = fit_normalizer(windows, config)
    batch = windows.__getitems__(range(len(windows)))
    relative = batch[ACTION] - batch[STATE][:, -1:]
    rows = relative.std((0, 2))
    assert float(rows.max() / rows.min()) > 1.2
    normalized = normalizer.normalize(ACTION, relative)
    torch.testing.assert_close(normalized.std(0, correction=0), torch.ones(16, relative.shape[-1]), rtol=1e-4, atol=0)
    torch.testing.assert_close(normalizer.unnormalize(ACTION, normalized), relative, rtol=1e-4, atol=1e-5)
    restored = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert torch.equal(restored.normalize(ACTION, relative), normalized)
    low, high = restored.usual_range(ACTION)
    assert low.shape == high.shape == (relative.shape[-1],)
    with pytest.raises(DataError, match=r"'action': expected 16 rows of \d+ channels, found shape"):
        normalizer.normalize(ACTION, relative[:, 1:])
    with pytest.raises(InputError, match=r"action: expected .* channels, or 8 rows of them, found shape \(16, "):
        normalizer.require({ACTION: relative.shape[-1]}, rows=8)


def test_chunks_come_back_from_their_frequencies(bimanual_dataset: Path) -> None:
    config = PolicyConfig(
        **{"observation_keys": [STATE], "action_relative": True, "action_basis": "frequency"},
        **{"normalization_per_step": True, "predict_past": False},
    )
    windows = make_windows(LeRobotDataset(bimanual_dataset), config, [0])
    batch = windows.__getitems__(range(len(windows)))
    newest, codec = batch[STATE][:, -1:], ChunkCodec(config, None)
    chunks = codec.encode(batch)
    assert chunks.shape[1] == 15
    torch.testing.assert_close(codec.decode(chunks, codec.origin(batch)), batch[ACTION][:, 1:])
    still = {STATE: newest, ACTION: (newest + 0.5).expand(-1, 16, -1)}
    torch.testing.assert_close(codec.encode(still)[:, 0], torch.full_like(newest[:, 0], 0.5 * 15**0.5))
    assert float(codec.encode(still)[:, 1:].abs().max()) < 1e-5  # a constant has no other frequency
