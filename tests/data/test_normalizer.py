"""Normalisation against closed forms, and through JSON; augmentation against plain indexing."""

import json

import numpy as np
import pytest
import torch

from vla_policy.data import ColorJitter, Normalizer, random_crop
from vla_policy.interfaces import ACTION, STATE, InputError

MODES = ("min_max", "mean_std", "quantile")


@pytest.fixture
def values():
    values = np.random.default_rng(0).normal(3, [1, 20, 0.01], (1000, 3)).astype(np.float32)
    return np.concatenate([values, np.full((1000, 1), 0.3, np.float32)], axis=1)


def test_modes_are_what_they_say(values):
    varying = values[:, :3].astype(float)
    scaled = {mode: Normalizer.fit({STATE: values}, mode).normalize(STATE, values.astype(float)) for mode in MODES}
    low, high = varying.min(0), varying.max(0)
    assert np.allclose(scaled["min_max"][:, :3], 2 * (varying - low) / (high - low) - 1)
    assert scaled["min_max"][:, :3].min() == pytest.approx(-1)
    assert scaled["min_max"][:, :3].max() == pytest.approx(1)
    assert np.allclose(scaled["mean_std"][:, :3].mean(0), 0)
    assert np.allclose(scaled["mean_std"][:, :3].std(0), 1)
    low, high = np.quantile(varying, [0.01, 0.99], axis=0)
    assert np.allclose(scaled["quantile"][:, :3], 2 * (varying - low) / (high - low) - 1)


@pytest.mark.parametrize("mode", MODES)
def test_normalising_and_back_changes_nothing(values, mode):
    normalizer = Normalizer.fit({STATE: values}, mode)
    for array in (values, torch.from_numpy(values), torch.from_numpy(values).view(10, 100, 4)):
        back = normalizer.unnormalize(STATE, normalizer.normalize(STATE, array))
        assert back.dtype == array.dtype
        assert np.allclose(back, array, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_constants_become_zero_and_return(values, mode):
    normalizer = Normalizer.fit({STATE: values}, mode)
    unseen = values + 5
    assert (normalizer.normalize(STATE, unseen)[:, 3] == 0).all()
    anything = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert (normalizer.unnormalize(STATE, anything)[:, 3] == np.float32(0.3)).all()


def test_a_channel_that_rests_nearly_always_keeps_its_range():
    gripper = np.zeros((1000, 1))
    gripper[500:505] = 1.0
    normalizer = Normalizer.fit({ACTION: gripper}, "quantile")
    assert normalizer.normalize(ACTION, np.array([[0.0], [1.0]])).tolist() == [[-1.0], [1.0]]


@pytest.mark.parametrize("mode", MODES)
def test_json_round_trip_is_exact(values, mode):
    normalizer = Normalizer.fit({STATE: values, ACTION: values * np.pi}, {STATE: mode, ACTION: "min_max"})
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert again.to_dict() == normalizer.to_dict()
    for key in (STATE, ACTION):
        assert np.array_equal(again.normalize(key, values), normalizer.normalize(key, values))


def test_mistakes_are_named(values):
    with pytest.raises(InputError, match=r"observation\.state.*found 'log'"):
        Normalizer.fit({STATE: values}, "log")
    with pytest.raises(InputError, match=r"expected one of \['observation\.state'\], found 'action'"):
        Normalizer.fit({STATE: values}).normalize(ACTION, values)
    with pytest.raises(InputError, match="expected 4 channels"):
        Normalizer.fit({STATE: values}).normalize(STATE, values[:, :3])
    with pytest.raises(InputError, match="stats"):
        Normalizer.from_dict({STATE: {"mode": "min_max"}})
    with pytest.raises(InputError, match="finite"):
        Normalizer.fit({STATE: np.array([[np.nan]])})


def test_every_crop_place_is_drawn():
    rows = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(400, 1, 5, 4, 3)
    crops, corners = random_crop(rows, 0.6, torch.Generator().manual_seed(0))
    assert sorted(corners[:, 0].unique().tolist()) == [0, 1, 2]
    assert torch.equal(crops[:, 0, 0, 0, 0], corners[:, 0].float())
    assert torch.equal(crops, random_crop(rows, 0.6, torch.Generator().manual_seed(0))[0])
    assert not torch.equal(crops, random_crop(rows, 0.6, torch.Generator().manual_seed(1))[0])


def test_colour_jitter():
    images = torch.rand(4, 2, 8, 8, 3)
    jitter = ColorJitter(brightness=0.2, contrast=0.0, saturation=0.0)
    changed = jitter(images * 0.5, torch.Generator().manual_seed(0))
    ratio = changed.flatten(1).sum(1) / (images * 0.5).flatten(1).sum(1)
    assert torch.allclose(changed, images * 0.5 * ratio[:, None, None, None, None], atol=1e-5)
    assert ((ratio - 1).abs() <= 0.2 + 1e-4).all()
    assert ratio.std() > 0.01
    assert torch.equal(jitter.eval()(images), images)
    grey = ColorJitter(0.0, 0.0, 0.5)(torch.full((2, 1, 4, 4, 3), 0.5), torch.Generator().manual_seed(0))
    assert torch.allclose(grey, torch.tensor(0.5), atol=1e-3)
    strong = ColorJitter(0.9, 0.9, 0.9)(images, torch.Generator().manual_seed(0))
    assert strong.min() >= 0
    assert strong.max() <= 1
