"""vla-bench web as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("playwright", reason="Playwright is not installed")

from helpers.commands import error_of
from helpers.ros import ROOT, own_domain
from helpers.web import TOKEN, chromium

from vla_policy.cli.bench import main as bench
from vla_policy.web.security import TOKEN as TOKEN_VARIABLE


def test_mistakes_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "repeats, seconds: expected above 0, found 0, 20.0" in error_of(bench, "web", "nowhere", "repeats=0")
    monkeypatch.setenv("PATH", "")
    assert "browser: expected one of chromium, " in error_of(bench, "web", "nowhere", "domain_id=null")


@pytest.mark.dds
@pytest.mark.slow
def test_the_page_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    checkpoint = str(ROOT / "checkpoints" / "pusht_image")
    with chromium():
        pass  # or there is nothing to measure it with
    with own_domain(1):
        bench(["web", checkpoint, "repeats=1", "seconds=1", "domain_id=null", f"out={tmp_path}"])
    found = json.loads((tmp_path / "web.json").read_text())
    times, (server,) = found["times"], found["counts"].values()
    stop = times["stop button to hold"]
    assert (stop["n"], stop["not_held"]) == (1, 0)
    assert stop["milliseconds"] == [stop["p95"]]
    assert times["simulation's stamp to canvas"]["p50"] > 0
    assert times["two cameras' stamp to canvas"]["n"] > 10
    assert server["cpu_percent"] > 0
    assert len(server["pictures_per_second"]) == 2
