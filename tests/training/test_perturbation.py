"""Shifted observations, from which the demonstrated actions lead back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_dataset import TOP, make_small_dataset
from helpers.small_diffusion import SMALL

from vla_policy.data import Windows
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import ObjectiveConfig, PolicyConfig
from vla_policy.models.chunks import ChunkCodec
from vla_policy.training import DataConfig, StateShift, fit_normalizer, open_data


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    root = tmp_path_factory.mktemp("data") / "demos"
    make_small_dataset(root, (TOP,), ("push",), episodes=3)
    config = PolicyConfig(observation_keys=[STATE], horizon=4, n_action_steps=2, **SMALL)
    return open_data(DataConfig(str(root), val_episodes=0), config)[0]


def test_half_of_the_windows_are_shifted_as_wholes_and_targets_stay(windows: Windows) -> None:
    states = torch.rand(4000, 2, 2, generator=torch.Generator().manual_seed(0))
    actions = torch.rand(4000, 4, 2, generator=torch.Generator().manual_seed(1))
    changed = StateShift(0.5, windows, [STATE])({STATE: states, ACTION: actions}, np.random.default_rng(0))
    assert changed.keys() == {STATE}
    offsets = changed[STATE] - states
    torch.testing.assert_close(offsets[:, 0], offsets[:, 1], atol=1e-6, rtol=0)  # the motion between steps stays
    shifted = offsets[:, 0].abs().amax(1) > 0
    assert shifted.float().mean() == pytest.approx(0.5, abs=0.03)
    expected = torch.from_numpy(0.5 * windows.columns[STATE].std(0)).float()
    torch.testing.assert_close(offsets[shifted, 0].std(0), expected, rtol=0.06, atol=0)

    relative = PolicyConfig(observation_keys=[STATE], horizon=4, n_action_steps=2, action_relative=True, **SMALL)
    chunk = ChunkCodec(relative, None).encode({STATE: changed[STATE], ACTION: actions})
    torch.testing.assert_close(chunk + changed[STATE][:, -1:], actions)  # it ends where the demonstration does


def test_a_bounded_range_has_room_for_the_way_back(windows: Windows) -> None:
    options = {"observation_keys": [STATE], "horizon": 4, "n_action_steps": 2, "action_relative": True, **SMALL}
    shift = StateShift(2.0, windows, [STATE])
    bounded = PolicyConfig(action_normalization="min_max", **options)
    plain, wide = (fit_normalizer(windows, bounded, None, some) for some in (None, shift))
    assert (np.ptp(wide.usual_range(ACTION), axis=0) > 1.25 * np.ptp(plain.usual_range(ACTION), axis=0)).all()
    free = PolicyConfig(action_normalization="mean_std", objective=ObjectiveConfig(clip_sample=False), **options)
    assert fit_normalizer(windows, free, None, shift).to_dict() == fit_normalizer(windows, free).to_dict()


def test_what_it_cannot_be_used_for(tmp_path: Path, windows: Windows) -> None:
    make_small_dataset(tmp_path / "demos", (TOP,), ("push",), episodes=2)
    config = PolicyConfig(observation_keys=[TOP], horizon=4, n_action_steps=2, **SMALL)
    blind = open_data(DataConfig(str(tmp_path / "demos"), val_episodes=0), config)[0]
    with pytest.raises(InputError, match=r"data\.state_noise: expected observation\.state among"):
        StateShift(0.1, blind, [TOP])
    with pytest.raises(InputError, match=r"data\.state_noise: expected observation\.state among"):
        StateShift(0.1, windows, [TOP])  # recorded, but only to be read from pictures
    with pytest.raises(InputError, match=r"data\.state_noise: expected a number from 0 on, found -1"):
        DataConfig("demos", state_noise=-1.0)
