"""Datasets pushed to a hub and pulled from it, over HTTP, in processes as a user starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_hub import FakeHub, fake_hub
from helpers.small_dataset import make_small_dataset

from vla_policy.data import LeRobotDataset
from vla_policy.data.editing import delete

REPO = "me/pushes"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as served:
        yield served


def call(hub: FakeHub, tmp_path: Path, *words: str | Path, status: int = 0) -> str:
    """What `vla-dataset` says, with this hub."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "vla_policy.cli.dataset", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.name[0] != "."}


def test_what_is_pushed_is_pulled(hub: FakeHub, tmp_path: Path) -> None:
    root = make_small_dataset(tmp_path / "d", episodes=3, length=4).root
    (root / "recordings.json").write_text(json.dumps([{"episode": 0, "bag": "a.mcap"}]))
    (root / "notes.txt").write_text("mine")
    said = call(hub, tmp_path, "push", root, REPO)
    assert f"{hub.url}/datasets/{REPO}/commit/" in said
    assert hub.private[REPO]
    assert hub.tags[REPO] == {"v3.0": 1}
    ours = {name: content for name, content in contents(root).items() if name != "notes.txt"}
    there = dict(hub.files(REPO))
    card = there.pop("README.md").decode()
    assert "LeRobot" in card
    assert "3 episodes, 12 frames at 10 Hz" in card
    assert {name: content for name, content in there.items() if name != ".gitattributes"} == ours

    said = call(hub, tmp_path, "pull", REPO, tmp_path / "pulled")
    assert f"3 episodes, 12 frames in {tmp_path / 'pulled'}" in said
    pulled = contents(tmp_path / "pulled")
    assert pulled.pop("README.md").decode() == card
    assert pulled == ours
    assert {path.name for path in tmp_path.iterdir()} == {"d", "pulled", "hf"}

    delete(root, [0])  # what is pushed again replaces what was there, and the tag moves on
    hub.commits[REPO][-1]["mine.txt"] = b"of somebody else"
    call(hub, tmp_path, "push", root, REPO)
    left = hub.files(REPO, "v3.0")
    assert left.keys() - contents(root).keys() == {".gitattributes", "README.md", "mine.txt"}
    assert not any(name.endswith("file-002.parquet") for name in left)
    call(hub, tmp_path, "pull", REPO, tmp_path / "second")
    assert LeRobotDataset(tmp_path / "second").num_episodes == 2
    call(hub, tmp_path, "pull", REPO, tmp_path / "first", f"revision={1:040x}")
    assert LeRobotDataset(tmp_path / "first").num_episodes == 3


def test_a_download_that_broke_off_leaves_nothing_and_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    root = make_small_dataset(tmp_path / "d", episodes=2, length=4, cameras=()).root
    call(hub, tmp_path, "push", root, "me/broken")
    hub.refuse = "data/chunk-000/file-001.parquet"
    said = call(hub, tmp_path, "pull", "me/broken", tmp_path / "pulled", status=2)
    assert "repository 'me/broken': expected the hub to grant this, found" in said
    assert not (tmp_path / "pulled").exists()
    hub.refuse, hub.downloads = "", []
    call(hub, tmp_path, "pull", "me/broken", tmp_path / "pulled")
    assert hub.downloads == ["data/chunk-000/file-001.parquet"] or set(hub.downloads) < set(hub.files("me/broken"))
    assert LeRobotDataset(tmp_path / "pulled").num_episodes == 2


def test_mistakes_are_one_line(hub: FakeHub, tmp_path: Path) -> None:
    for words, says in [
        (("pull", "me/nothing", tmp_path / "out"), "repository 'me/nothing': expected the hub to grant this, found: "),
        (("pull", "no name", tmp_path / "out"), "repository 'no name': "),
        (("pull", REPO, tmp_path), f"{tmp_path}: expected no such folder"),
        (("push", tmp_path / "none", REPO), "expected a LeRobotDataset"),
    ]:
        said = call(hub, tmp_path, *words, status=2)
        assert says in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
