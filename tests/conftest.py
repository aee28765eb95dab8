"""Fixtures for all tests."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.bimanual import make_bimanual_dataset

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bimanual_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets") / "bimanual"
    make_bimanual_dataset(root)
    return root


@pytest.fixture
def bimanual_dataset(bimanual_original: Path, tmp_path: Path) -> Path:
    """The folder of a 14-dimensional, two-camera, 30 fps dataset of 6 episodes that the test may change."""
    return Path(shutil.copytree(bimanual_original, tmp_path / "bimanual"))
