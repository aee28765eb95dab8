"""vla-web, and the page that vla-sim serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from helpers.small_dataset import make_small_dataset

from vla_policy.cli.web import main
from vla_policy.graph.application import GraphConfig, nodes


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


def test_a_dataset_is_served_until_ctrl_c(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "mine", episodes=1, length=3)
    words = [sys.executable, "-m", "vla_policy.cli.web", "data", str(tmp_path / "mine"), "port=0"]
    program = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert program.stdout is not None
    url, _, token = program.stdout.readline().removeprefix("open ").strip().partition("#token=")
    assert len(token) > 16
    assert b"vla-web data" in urlopen(url).read()
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == 130
