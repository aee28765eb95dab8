"""The scripts in examples/, with small settings."""

import re
import runpy
from pathlib import Path

import pytest
from helpers.tiny_policies import tiny_policy

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy.interfaces import STATE

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*arguments)


def test_a_policy_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tiny_policy(pusht_interface({"top": 96}), WORKSPACE_LOW, WORKSPACE_HIGH, [STATE])
    policy.save_pretrained(tmp_path / "tiny")
    small = ["n_episodes=2", "num_workers=0", "videos=0", "latency_repeats=1", "disturbance.kind=dropped_actions"]
    run("evaluate_policy", str(tmp_path / "tiny"), *small, f"out={tmp_path / 'out'}")
    assert re.search(r"^[0-2] of 2 starts, 95 % interval 0\.\d\d to [01]\.\d\d$", capsys.readouterr().out, re.M)


def test_a_policy_is_trained(bimanual_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "policy.observation_keys=[observation.state]",
        "policy.transformer={width:32,depth:1,heads:2,time_width:16}",
        "trainer.steps=2",
        "trainer.batch_size=16",
        "data.val_episodes=2",
    ]
    run("train_on_dataset", str(bimanual_dataset), str(tmp_path / "run"), *small)
    last = f"{tmp_path / 'run' / 'checkpoints' / 'last'}: mean absolute error "
    assert last in capsys.readouterr().out


@pytest.mark.parametrize("contract", ["pusht_sim", "so101"])
def test_chunks_are_played_within_the_limits(contract: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("play_chunks", contract)
    moved, held = capsys.readouterr().out.strip().rsplit("\n", 1)
    fastest, allowed = ([float(number) for number in text.split()] for text in re.findall(r"\[([^]]*)\]", moved))
    assert all(0 < speed <= limit + 1e-3 for speed, limit in zip(fastest, allowed, strict=True))
    assert max(fastest) > 0.4
    assert float(moved.split()[0]) < 1e-6
    assert held == "hold: the policy's chunk is not finite or has another shape"
