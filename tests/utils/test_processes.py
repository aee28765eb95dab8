"""Console scripts as processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vla_policy.utils.processes import console_script, dying_with


def test_a_console_script_runs_without_a_path_to_it(tmp_path: Path):
    command = [*console_script("vla-dataset"), "info", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 2
    assert f"{tmp_path / 'none'}: expected a LeRobotDataset" in done.stderr


@pytest.mark.parametrize(("another", "status"), [(False, 0), (True, -signal.SIGTERM)])
def test_a_process_whose_parent_ended_before_the_kernel_was_asked_ends(another: bool, status: int):
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a parent that would not end of it
    try:
        start = dying_with(os.getpid() + another)
        assert subprocess.run([sys.executable, "-c", ""], preexec_fn=start).returncode == status
    finally:
        signal.signal(signal.SIGTERM, before)
