"""The dataset that is edited, six episodes of a robot with two arms and two cameras."""

import shutil
from pathlib import Path

import pytest
from helpers.bimanual import add_bimanual_episode, make_bimanual_dataset
from helpers.edited import LENGTH

from vla_policy.data import LeRobotDataset
from vla_policy.data.writing.compact import compact


@pytest.fixture(scope="session")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes and one of another task, in files of their own."""
    root = tmp_path_factory.mktemp("separate") / "d"
    make_bimanual_dataset(root, episodes=5, length=LENGTH)
    add_bimanual_episode(root)
    return root


@pytest.fixture(scope="session")
def shared(separate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in files that they share."""
    root = Path(shutil.copytree(separate, tmp_path_factory.mktemp("shared") / "d"))
    compact(root)
    return root


@pytest.fixture(params=["separate", "shared"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> LeRobotDataset:
    """A copy that a test may change."""
    return LeRobotDataset(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "d"))
