"""Console scripts as processes."""

import subprocess
from pathlib import Path

from vla_policy.utils.processes import console_script


def test_a_console_script_runs_without_a_path_to_it(tmp_path: Path):
    command = [*console_script("vla-dataset"), "info", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 2
    assert f"{tmp_path / 'none'}: expected a LeRobotDataset" in done.stderr
