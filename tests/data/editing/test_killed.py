"""Killed at any moment, an edit leaves the old dataset or the new one whole, and work goes on afterwards."""

import itertools
import random
import shutil
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from helpers.bimanual import HEAD, WRIST, add_bimanual_episode, bimanual_interface, make_bimanual_dataset
from helpers.kill import kill_after, killed

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.editing import delete, retask
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import ACTION, InputError

MOMENTS = 20
OPERATIONS = 100  # about as many changes of files as an edit of this dataset makes

Content = list[tuple[bytes, ...]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes in shared files, of which an edit in the middle cuts both cameras' videos."""
    root = tmp_path_factory.mktemp("shared") / "d"
    make_bimanual_dataset(root, episodes=3, length=5)
    add_bimanual_episode(root)
    compact(root)
    return root


def content(root: Path) -> Content:
    """Actions and pictures of every episode, which must all be readable."""
    dataset = LeRobotDataset(root)
    dataset.require_whole()
    return [
        (dataset.episode(i).columns[ACTION].tobytes(), *(dataset.frames(i, key).tobytes() for key in (HEAD, WRIST)))
        for i in dataset.episodes
    ]


@pytest.mark.slow
def test_killed_while_it_edits_in_place(shared: Path, tmp_path: Path) -> None:
    old = content(shared)
    new = [old[0], *old[2:]]
    seen = set()
    for number in random.Random(0).sample(range(1, OPERATIONS), MOMENTS):
        root = Path(shutil.copytree(shared, tmp_path / str(number) / "d"))
        killed(number, delete, root, [1])
        found = content(root)
        assert found in (old, new)
        seen.add(len(found))
        LeRobotWriter(root, bimanual_interface()).close()  # cleans up
        assert [path.name for path in root.parent.iterdir()] == ["d"]
        assert content(root) == found
        shutil.rmtree(root.parent)
    assert seen == {3, 4}


@pytest.mark.slow
def test_killed_while_it_writes_a_new_dataset(shared: Path, tmp_path: Path) -> None:
    old, out = content(shared), tmp_path / "new"
    for number in random.Random(1).sample(range(1, OPERATIONS), 6):
        killed(number, delete, shared, [1], out)
        try:
            assert content(out) == [old[0], *old[2:]]
            shutil.rmtree(out)
        except InputError:  # nothing is there
            assert not [path for path in out.rglob("*") if path.name != ".lock"]
        assert content(shared) == old
    delete(shared, [1], out)
    assert content(out) == [old[0], *old[2:]]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def retask_repeatedly(root: Path, ready: Event) -> None:
    ready.set()
    for number in itertools.count():
        retask(root, f"task {number}")


@pytest.mark.slow
def test_killed_at_any_time(shared: Path, tmp_path: Path) -> None:
    old, draw = content(shared), random.Random(2)
    root = Path(shutil.copytree(shared, tmp_path / "d"))
    for _ in range(5):
        kill_after(draw.uniform(0.05, 0.6), retask_repeatedly, root)
        assert content(root) == old
        assert np.unique([LeRobotDataset(root).episode(i).task for i in range(4)]).size in (1, 2)
    retask(root, "done")
    assert LeRobotDataset(root).tasks == ["done"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
