"""Windows against a plain loop, Diffusion Policy's own index table, and the frame cache."""

import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bimanual import HEAD, TASK, WRIST, bimanual_interface

from vla_policy.data import LeRobotDataset, LeRobotWriter, WindowDataset
from vla_policy.data.windows import REMAINING
from vla_policy.interfaces import ACTION, STATE, Feature, InputError, Interface


@pytest.mark.parametrize(("n_obs", "horizon", "n_action"), [(2, 16, 8), (1, 1, 1), (3, 10, 8), (2, 16, 15), (1, 70, 8)])
def test_windows_are_those_of_a_plain_loop(bimanual_dataset, n_obs, horizon, n_action):
    dataset = LeRobotDataset(bimanual_dataset)
    chosen = [4, 1]
    windows = WindowDataset(dataset, [STATE, HEAD], n_obs, horizon, n_action - 1, episodes=chosen)
    expected = []
    for episode in chosen:
        length = dataset.lengths[episode]
        # Diffusion Policy: for start in range(-pad_before, length - horizon + pad_after + 1)
        for start in range(-(n_obs - 1), length - horizon + (n_action - 1) + 1):
            expected.append((episode, start, length))
    assert len(windows) == len(expected)
    batch = windows.__getitems__(range(len(windows)))
    columns = {episode: dataset.episode(episode).columns for episode in chosen}
    frames = {episode: dataset.frames(episode, HEAD) for episode in chosen}
    for i, (episode, start, length) in enumerate(expected):
        assert windows.window(i) == (episode, start + n_obs - 1)
        for k in range(horizon):
            inside = min(max(start + k, 0), length - 1)
            assert np.array_equal(batch[ACTION][i, k], columns[episode][ACTION][inside])
            if k < n_obs:
                assert np.array_equal(batch[STATE][i, k], columns[episode][STATE][inside])
                assert np.array_equal(batch[HEAD][i, k], frames[episode][inside])


def test_batch_types(bimanual_dataset):
    windows = WindowDataset(LeRobotDataset(bimanual_dataset), [STATE, HEAD, WRIST], 2, 16, 7)
    batch = windows.__getitems__([5, 0])
    shapes = {key: (value.dtype, tuple(value.shape)) for key, value in batch.items() if key != "task"}
    assert shapes == {
        STATE: (torch.float32, (2, 2, 14)),
        HEAD: (torch.uint8, (2, 2, 64, 80, 3)),
        WRIST: (torch.uint8, (2, 2, 48, 48, 3)),
        ACTION: (torch.float32, (2, 16, 14)),
        REMAINING: (torch.float32, (2,)),
    }
    assert batch["task"] == [TASK, TASK]
    assert torch.equal(windows[5][ACTION], batch[ACTION][0])
    assert windows.columns[ACTION].shape == (375, 14)


def test_batches_are_fast(bimanual_dataset):
    windows = WindowDataset(LeRobotDataset(bimanual_dataset), [STATE, HEAD, WRIST], 2, 16, 7)
    indices = np.random.default_rng(0).integers(0, len(windows), (20, 64))
    begin = time.perf_counter()
    for chosen in indices:
        windows.__getitems__(chosen)
    assert (time.perf_counter() - begin) / 20 < 0.05


def test_frames_are_decoded_once_and_again_when_a_video_changes(bimanual_dataset, monkeypatch):
    dataset = LeRobotDataset(bimanual_dataset)
    decoded = []
    original = LeRobotDataset.iter_frames
    monkeypatch.setattr(
        LeRobotDataset, "iter_frames", lambda self, i, key: (decoded.append(i), original(self, i, key))[1]
    )
    for _ in range(2):
        WindowDataset(dataset, [HEAD], 2, 16, 7, episodes=[2])
    assert decoded == list(range(6))
    os.utime(dataset.records[0].videos[HEAD].path)
    WindowDataset(dataset, [HEAD], 2, 16, 7)
    assert len(decoded) == 12
    assert len(list((bimanual_dataset / ".cache").glob("*.npy"))) == 1


def test_the_cache_is_in_the_configured_folder(bimanual_dataset, tmp_path):
    WindowDataset(LeRobotDataset(bimanual_dataset), [WRIST], 2, 16, 7, cache_dir=tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").glob("*.npy"))) == 1
    assert not (bimanual_dataset / ".cache").exists()


def test_a_broken_video_matters_only_to_its_episode(bimanual_dataset):
    dataset = LeRobotDataset(bimanual_dataset)
    path = dataset.records[3].videos[HEAD].path
    path.write_bytes(path.read_bytes()[:500])
    assert len(WindowDataset(dataset, [HEAD], 2, 16, 7, episodes=[0, 1])) == 60 + 61 - 14
    with pytest.raises(InputError, match=str(path)):
        WindowDataset(dataset, [HEAD], 2, 16, 7)


def test_a_failed_cache_leaves_nothing(bimanual_dataset):
    dataset = LeRobotDataset(bimanual_dataset)
    path = dataset.records[3].videos[HEAD].path
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError):
        WindowDataset(dataset, [HEAD], 2, 16, 7)
    assert [file.name for file in (bimanual_dataset / ".cache").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("keys", "steps", "episodes", "says"),
    [
        (["observation.images.side"], (2, 16, 8), None, "observation.images.side"),
        ([STATE], (2, 8, 8), None, "horizon"),
        ([STATE], (0, 8, 8), None, "n_obs_steps"),
        ([STATE], (2, 100, 8), None, "the longest of 65"),
        ([STATE], (2, 16, 8), [6], "found 6"),
        ([STATE], (2, 16, 8), [], "found 0 episodes"),
    ],
)
def test_mistakes_are_named(bimanual_dataset, keys, steps, episodes, says):
    with pytest.raises(InputError, match=says):
        WindowDataset(LeRobotDataset(bimanual_dataset), keys, *steps, episodes=episodes)


def test_odd_data_is_logged(tmp_path, caplog):
    two = Feature("float32", (2,))
    interface = Interface({STATE: two}, two, 10)
    with LeRobotWriter(tmp_path, interface) as writer:
        for i in range(2):
            state = np.zeros((20, 2)) if i else np.random.default_rng(0).normal(size=(20, 2))
            writer.add_episode({STATE: state, ACTION: np.ones((20, 2)) * [[1, 2]]}, {}, "t")
    with caplog.at_level(logging.WARNING):
        windows = WindowDataset(LeRobotDataset(tmp_path), [STATE], 2, 16, 7)
    found = {str(finding) for finding in windows.findings}
    assert "episode 1, observation.state: all zero" in found
    assert "all episodes, action: channel 1 is always 2" in found
    assert all(text in caplog.text for text in found)


def test_bimanual_interface_survives_selection(bimanual_dataset):
    windows = WindowDataset(LeRobotDataset(bimanual_dataset), [WRIST], 2, 16, 7)
    assert windows.interface == bimanual_interface().select([WRIST])


def _build_and_sum(root: Path) -> int:
    windows = WindowDataset(LeRobotDataset(root), [HEAD], 2, 16, 7)
    return int(windows.__getitems__(range(len(windows)))[HEAD].sum())


@pytest.mark.slow
def test_two_processes_build_one_cache(bimanual_dataset):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        sums = list(pool.map(_build_and_sum, [bimanual_dataset] * 2))
    assert sums == [_build_and_sum(bimanual_dataset)] * 2
    assert len(list((bimanual_dataset / ".cache").glob("*.npy"))) == 1
