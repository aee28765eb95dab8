"""Fixtures for all tests."""

import faulthandler
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.bimanual import make_bimanual_dataset

torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network; read when huggingface_hub is imported
NEED_RCLPY = ["nodes/*", "graph/*", "benchmarks/ros/test_measurements.py"]
collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else NEED_RCLPY
CLEANING = 300.0  # seconds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """A fixture that hangs ends its worker: pytest-timeout no longer looks once a test has failed."""
    faulthandler.dump_traceback_later(CLEANING, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def bimanual_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets") / "bimanual"
    make_bimanual_dataset(root)
    return root


@pytest.fixture
def bimanual_dataset(bimanual_original: Path, tmp_path: Path) -> Path:
    """The folder of a 14-dimensional, two-camera, 30 fps dataset of 6 episodes that the test may change."""
    return Path(shutil.copytree(bimanual_original, tmp_path / "bimanual"))
