"""vla-lab as a user calls it: the small study runs, two runs at a time, goes on after a kill, and reports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lab(*words: str) -> list[str]:
    return [sys.executable, "-m", "vla_policy.cli.lab", *words]


@pytest.mark.slow
def test_the_small_study_goes_on_after_a_kill_and_reports(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    collect = [sys.executable, "-m", "vla_policy.cli.collect", str(data), "n_episodes=4", "cameras=[]", "num_workers=0"]
    subprocess.run(collect, check=True, capture_output=True)
    words = lab(
        "run",
        str(ROOT / "studies" / "small.yaml"),
        f"data.root={data}",
        "trainer.threads=1",
        f"out={out}",
        "trainer.steps=4",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(words, start_new_session=True, **quiet)
    while not list(out.glob("runs/*/result.json")):
        assert first.poll() is None, "it ended without a result"
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)  # its workers, too
    first.wait()
    before = {path: path.read_text() for path in out.glob("runs/*/result.json")}
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in out.glob("runs/*/result.json")]
    assert len(results) == 6
    assert all(path.read_text() == text for path, text in before.items())
    assert {result["levels"]["objective"] for result in results} == {"flow", "autoregressive", "masked"}
    assert all(result["flops_per_step"] > 1e6 and result["core_hours"] > 0 for result in results)
    report = subprocess.run(lab("report", str(out)), capture_output=True, text=True)
    assert report.returncode == 0, report.stderr
    assert "6 of 6 runs" in report.stdout
    assert (out / "figure_0.png").stat().st_size > 0


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for words, message in (
        (["run", str(tmp_path / "none.yaml")], "none.yaml"),
        (["run", str(ROOT / "studies" / "small.yaml"), "fast"], "override: expected key=value, found 'fast'"),
        (["report", str(tmp_path)], "expected a folder that `vla-lab run` has made"),
        (["ensemble", str(tmp_path / "out"), str(tmp_path)], "expected two or more checkpoints, found 1"),
        (
            ["ensemble", str(tmp_path), "a", "b"],
            f"OUT: expected the name of a new folder, found {tmp_path}, which exists",
        ),
    ):
        done = subprocess.run(lab(*words), capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
