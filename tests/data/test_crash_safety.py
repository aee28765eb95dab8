"""Killed at any moment, a writer or a compaction leaves whole episodes, and work goes on afterwards."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.bimanual import HEAD, TASK, bimanual_episode, bimanual_interface, make_bimanual_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.compact import compact
from vla_policy.data.files import Neighbours
from vla_policy.interfaces import ACTION, InputError

WRITE = """
import itertools, sys
import numpy as np
from helpers.bimanual import TASK, bimanual_episode, bimanual_interface
from vla_policy.data import LeRobotWriter
writer = LeRobotWriter(sys.argv[1], bimanual_interface())
print("ready", flush=True)
for i in itertools.count(writer.num_episodes):
    writer.add_episode(*bimanual_episode(np.random.default_rng(i), 10 + i % 5), TASK)
"""

COMPACT = """
import sys
from vla_policy.data.compact import compact
print("ready", flush=True)
while True:
    compact(sys.argv[1], video_mb=0.05)
"""


def run_and_kill(program: str, root: Path, seconds: float) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)


def check_whole(root: Path) -> int:
    """Every episode is the one that was written; returns how many."""
    dataset = LeRobotDataset(root)
    for i in range(dataset.num_episodes):
        columns, images = bimanual_episode(np.random.default_rng(i), 10 + i % 5)
        assert np.array_equal(dataset.episode(i).columns[ACTION], columns[ACTION])
        assert dataset.frames(i, HEAD).shape == images[HEAD].shape
    return dataset.num_episodes


@pytest.mark.slow
def test_killed_writer(tmp_path):
    draw = random.Random(0)
    episodes = 0
    for _ in range(4):
        run_and_kill(WRITE, tmp_path / "d", draw.uniform(0.1, 0.5))
        now = check_whole(tmp_path / "d")
        assert now >= episodes
        episodes = now
    assert episodes > 0
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        assert writer.num_episodes == episodes
        writer.add_episode(*bimanual_episode(np.random.default_rng(episodes), 10 + episodes % 5), TASK)
    assert check_whole(tmp_path / "d") == episodes + 1
    assert not list((tmp_path / "d").rglob("*.tmp"))
    assert len(list((tmp_path / "d").glob("data/*/*.parquet"))) == episodes + 1
    assert len(list((tmp_path / "d").glob("videos/*/*/*.mp4"))) == 2 * (episodes + 1)


@pytest.mark.slow
def test_killed_compaction(tmp_path):
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        for i in range(12):
            writer.add_episode(*bimanual_episode(np.random.default_rng(i), 10 + i % 5), TASK)
    draw = random.Random(1)
    for _ in range(4):
        run_and_kill(COMPACT, tmp_path / "d", draw.uniform(0.02, 0.4))
        assert check_whole(tmp_path / "d") == 12
    compact(tmp_path / "d")
    assert check_whole(tmp_path / "d") == 12
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_kill_between_the_renames_of_a_compaction(tmp_path):
    make_bimanual_dataset(tmp_path / "d", episodes=1, length=10)
    beside = Neighbours(tmp_path / "d")
    compact(tmp_path / "d")
    (tmp_path / "d").rename(beside.ready)
    make_bimanual_dataset(beside.replaced, episodes=1, length=10)
    assert LeRobotDataset(tmp_path / "d").num_episodes == 1
    assert not beside.ready.exists()


@pytest.mark.parametrize("missing", ["data", "meta"])
def test_an_uncommitted_episode_is_not_there(bimanual_dataset, missing):
    """As a writer killed just before it replaced info.json leaves it."""
    before = (bimanual_dataset / "meta/info.json").read_bytes()
    with LeRobotWriter(bimanual_dataset, bimanual_interface()) as writer:
        writer.add_episode(*bimanual_episode(np.random.default_rng(0), 10), TASK)
    (bimanual_dataset / "meta/info.json").write_bytes(before)
    if missing == "meta":
        (bimanual_dataset / "meta/episodes/chunk-000/file-006.parquet").unlink()
    assert LeRobotDataset(bimanual_dataset).num_episodes == 6
    with LeRobotWriter(bimanual_dataset, bimanual_interface()) as writer:
        assert not list(bimanual_dataset.rglob("file-006.*"))
        assert writer.add_episode(*bimanual_episode(np.random.default_rng(1), 10), TASK) == 6
    assert LeRobotDataset(bimanual_dataset).num_episodes == 7


def test_second_writer_is_refused(bimanual_dataset):
    with (
        LeRobotWriter(bimanual_dataset, bimanual_interface()),
        pytest.raises(InputError, match="one at work"),
    ):
        LeRobotWriter(bimanual_dataset, bimanual_interface())
    LeRobotWriter(bimanual_dataset, bimanual_interface()).close()


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_compact_keeps_every_number_and_pixel(tmp_path, codec):
    before = make_bimanual_dataset(tmp_path / "before", codec=codec)
    shutil.copytree(tmp_path / "before", tmp_path / "d")  # an encoder may decide otherwise the second time
    (tmp_path / "d/README.md").write_text("mine")
    largest = max(path.stat().st_size for path in (tmp_path / "d/videos" / HEAD).rglob("*.mp4"))
    after = compact(tmp_path / "d", video_mb=2.5 * largest / 2**20)
    assert 1 < len({record.videos[HEAD].path for record in after.records}) < 6
    assert len(list((tmp_path / "d/data").rglob("*.parquet"))) == 1
    for i in range(6):
        one, two = before.episode(i), after.episode(i)
        assert one.task == two.task
        assert all(np.array_equal(one.columns[key], two.columns[key]) for key in one.columns)
        for key in before.interface.cameras:
            assert np.array_equal(before.frames(i, key), after.frames(i, key))
    assert (tmp_path / "d/README.md").read_text() == "mine"
    with LeRobotWriter(tmp_path / "d", bimanual_interface(), codec=codec) as writer:
        assert writer.add_episode(*bimanual_episode(np.random.default_rng(1), 10), TASK) == 6
    assert LeRobotDataset(tmp_path / "d").frames(6, HEAD).shape == (10, 64, 80, 3)
