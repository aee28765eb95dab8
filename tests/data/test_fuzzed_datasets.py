"""Mutated datasets: an `InputError` or a result, in bounded time and memory, whatever is in the files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_dataset import TOP, make_small_dataset

HERE = Path(__file__).parents[1]


@pytest.mark.slow
def test_fuzzed_datasets_give_input_errors_alone(tmp_path: Path) -> None:
    make_small_dataset(tmp_path / "v30", (TOP,), episodes=3, length=8)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "helpers.fuzz_datasets", str(tmp_path), "500", "16"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["bad"] == []
    assert report["refused"] + report["read"] == 500
    assert report["refused"] > 200  # the mutations are felt
    assert report["read"] > 20
