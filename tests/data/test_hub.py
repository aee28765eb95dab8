"""Datasets pushed to a hub and pulled from it, over HTTP, in processes of their own: the hub's address is read once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_hub import FakeHub, commit_name, fake_hub
from helpers.small_dataset import make_small_dataset

from vla_policy.data import LeRobotDataset

REPO = "me/pushes"
RUN = """
import contextlib, io, json, sys
from vla_policy.cli.dataset import main
done = []
for words in json.loads(sys.argv[1]):
    out, status = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(words)
        except SystemExit as leave:
            status = leave.code
    done.append([status, out.getvalue()])
print(json.dumps(done))
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as served:
        yield served


def run(hub: FakeHub, tmp_path: Path, *commands: list[Any]) -> list[tuple[int, str]]:
    """The exit status of each `vla-dataset` command, with this hub, and what it says."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    words = json.dumps([[str(word) for word in command] for command in commands])
    command = [sys.executable, "-c", RUN, words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return [(status, said) for status, said in json.loads(done.stdout.splitlines()[-1])]


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_what_is_pushed_is_pulled(hub: FakeHub, tmp_path: Path) -> None:
    """Twice: the second time it replaces what was there, and the tag moves on."""
    hub.commits[REPO] = [
        {"mine.txt": b"theirs", "meta/notes.md": b"theirs", "data/chunk-000/file-007.parquet": b"stale"}
    ]
    hub.tags[REPO] = {}
    root = make_small_dataset(tmp_path / "d", episodes=3, length=4).root
    (root / "recordings.json").write_text(json.dumps([{"episode": 0, "bag": "a.mcap"}]))
    (root / "notes.txt").write_text("mine")
    ours = {name: content for name, content in contents(root).items() if name != "notes.txt"}
    pulled = [tmp_path / name for name in ("first", "second", "again")]
    done = run(
        hub, tmp_path,
        ["push", root, REPO], ["pull", REPO, pulled[0]],
        ["delete", root, "0"], ["push", root, REPO], ["pull", REPO, pulled[1]],
        ["pull", REPO, pulled[2], f"revision={commit_name(1)}"],
    )  # fmt: skip
    assert [status for status, _ in done] == [0] * 6, done
    assert f"{hub.url}/datasets/{REPO}/commit/" in done[0][1]
    assert f"3 episodes, 12 frames in {pulled[0]}" in done[1][1]
    there, theirs = dict(hub.commits[REPO][1]), dict.fromkeys(("mine.txt", "meta/notes.md"), b"theirs")
    card = there.pop("README.md")
    assert b"3 episodes, 12 frames at 10 Hz" in card
    assert there == ours | theirs
    assert contents(pulled[0]) == ours | theirs | {"README.md": card}
    assert contents(pulled[2]) == contents(pulled[0])
    assert hub.tags[REPO] == {"v3.0": 2}
    assert LeRobotDataset(pulled[1]).num_episodes == 2
    assert {path.name for path in tmp_path.iterdir()} - {"hf"} == {"d", "first", "second", "again"}


def test_a_download_that_broke_off_leaves_nothing_and_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    root = make_small_dataset(tmp_path / "d", episodes=2, length=4, cameras=()).root
    missing = "data/chunk-000/file-001.parquet"
    hub.refusals = {missing: 1}
    commands = [["push", root, "me/new"], ["pull", "me/new", tmp_path / "out"], ["pull", "me/new", tmp_path / "out"]]
    pushed, broken, complete = run(hub, tmp_path, *commands)
    assert pushed[0] == complete[0] == 0
    assert hub.private["me/new"]
    assert broken[0] == 2
    assert "repository 'me/new': expected the hub to grant this, found" in broken[1]
    assert hub.downloads.count(missing) == 2
    assert len(hub.downloads) < 2 * len(hub.files("me/new"))  # what had arrived was kept
    assert LeRobotDataset(tmp_path / "out").num_episodes == 2


def test_a_download_does_not_go_on_with_another_commit(hub: FakeHub, tmp_path: Path) -> None:
    root = make_small_dataset(tmp_path / "d", episodes=3, length=4, cameras=()).root
    out, foreign = tmp_path / "out", tmp_path / ".mine.download"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    hub.refusals = {"meta/tasks.parquet": 1}
    commands = [["push", root, REPO], ["pull", REPO, out], ["delete", root, "0"], ["push", root, "me/other"]]
    done = run(hub, tmp_path, *commands)
    # A process of its own: the client remembers what a commit has, and commits of this hub are named alike.
    done += run(hub, tmp_path, ["pull", "me/other", out], ["pull", REPO, tmp_path / "mine"])
    assert [status for status, _ in done] == [0, 2, 0, 0, 0, 2], done
    assert contents(out) == {name: data for name, data in hub.files("me/other").items() if name[0] != "."}
    assert "expected the download of an earlier pull, found 'notes.txt'" in done[-1][1]
    assert (foreign / "notes.txt").read_text() == "mine"


def test_mistakes_are_one_line(hub: FakeHub, tmp_path: Path) -> None:
    mistakes = [
        (["pull", "me/nothing", tmp_path / "out"], "repository 'me/nothing': expected the hub to grant this, found: "),
        (["pull", "no name", tmp_path / "out"], "repository 'no name': "),
        (["pull", REPO, tmp_path], f"{tmp_path}: expected no such folder"),
        (["push", tmp_path / "none", REPO], "expected a LeRobotDataset"),
    ]
    done = run(hub, tmp_path, *(words for words, _ in mistakes))
    for (status, said), (_, expected) in zip(done, mistakes, strict=True):
        assert status == 2
        assert expected in said
        assert said.count("\n") == 1
    assert not list(tmp_path.glob("*out*"))
