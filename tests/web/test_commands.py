"""vla-web, and the page that vla-sim serves."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from helpers.small_dataset import make_small_dataset

from vla_policy.cli.web import main
from vla_policy.data import LeRobotDataset
from vla_policy.graph.application import GraphConfig, nodes
from vla_policy.web.server import Server


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["live", "contract=nowhere"], "config: expected a .yaml file or one of"),
        (["live", "colour=red"], "expected keys out of"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_simulation_has_a_recorder_and_a_page_that_leads_only_if_asked() -> None:
    assert not {"web", "recorder"} & nodes("policy", GraphConfig()).keys()
    found = nodes("policy", GraphConfig(web=True, out="here", port=5))
    assert found["recorder"]["root"] == "here/recordings"
    assert {"control": True, "host": "127.0.0.1", "port": 5}.items() <= found["web"].items()


def start(root: Path, *words: str) -> tuple[subprocess.Popen[str], str, str]:
    """vla-web data as a process, its address and its token."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Whoever runs the tests in the background of a shell has it ignored, and so would the program.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, *words, "data", str(root), "port=0"]
    program = subprocess.Popen(command, env=environment, preexec_fn=heard, **pipes)
    assert program.stdout is not None
    url, _, token = program.stdout.readline().removeprefix("open ").strip().partition("#token=")
    assert len(token) > 16
    return program, url, token


def test_a_dataset_is_served_until_ctrl_c(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "mine", episodes=1, length=3)
    program, url, _ = start(tmp_path / "mine", "-m", "vla_policy.cli.web")
    assert b"vla-web data" in urlopen(url).read()
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == 130


SLOW = """
import sys, time
from vla_policy.cli.web import main
from vla_policy.data import LeRobotDataset
from vla_policy.data import editing
revise = editing.revise
def slow(*arguments):
    print("begins")
    time.sleep(2)
    return revise(*arguments)
editing.revise = slow
main(sys.argv[1:])
"""


def test_ctrl_c_waits_for_a_save(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "mine", episodes=3, length=3)
    program, url, token = start(tmp_path / "mine", "-c", SLOW)
    assert program.stdout is not None
    with urlopen(f"{url}api/dataset") as answer:
        save = {"revision": json.load(answer)["revision"], "deleted": [1], "tasks": {}}
    headers = {"Authorization": f"Bearer {token}", "Origin": url.rstrip("/")}
    request = Request(f"{url}api/save", json.dumps(save).encode(), headers)
    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(lambda: urlopen(request).read())
        assert program.stdout.readline() == "begins\n"
        program.send_signal(signal.SIGINT)
        assert b"1 deleted" in saved.result(30)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 130
    assert errors == "interrupted\n"
    assert LeRobotDataset(tmp_path / "mine").num_episodes == 2


def test_a_server_that_ends_by_itself_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ending(Server):
        def require_alive(self) -> None:
            self.close()
            super().require_alive()

    make_small_dataset(tmp_path / "mine", episodes=1, length=3)
    monkeypatch.setattr("vla_policy.web.server.Server", Ending)
    with pytest.raises(SystemExit) as ended:
        main(["data", str(tmp_path / "mine"), "port=0"])
    assert ended.value.code == 1
    assert "web: expected the server to run, found that it has ended" in capsys.readouterr().err
