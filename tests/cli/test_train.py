"""vla-train as a person uses it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import train
from helpers.small_runs import SHORT_RUN, SMALL_POLICY
from safetensors.torch import load_file

from vla_policy.interfaces import STATE
from vla_policy.models import DiffusionPolicy

STATE_ONLY = ["policy.observation_keys=[observation.state]", *SMALL_POLICY]
SMALL = [*STATE_ONLY, *SHORT_RUN, "trainer.print_every_s=0", "trainer.log_every=1", "data.val_episodes=1"]


def command(*overrides: object) -> list[str]:
    return [sys.executable, "-m", "vla_policy.cli.train", *map(str, overrides)]


def test_a_run_leaves_config_commit_metrics_and_a_checkpoint(bimanual_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = train(f"data.root={bimanual_dataset}", f"run_dir={run}", "trainer.steps=6", "seed=7", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "step 6/6" in done.stdout
    assert "samples/s" in done.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed"] == 7
    assert config["data"]["root"] == str(bimanual_dataset)
    assert "git_commit" in config
    policy = DiffusionPolicy.from_pretrained(run / "checkpoints" / "last")
    assert list(policy.interface.observations) == [STATE]
    assert policy.card["data"]["demonstrations"] == 5

    again = train(f"data.root={bimanual_dataset}", f"run_dir={run}", *SMALL)
    assert again.returncode == 2
    assert "resume=true" in again.stderr
    changed = train(f"run_dir={run}", "resume=true", "trainer.lr=0.1")
    assert changed.returncode == 2
    assert "trainer.lr (expected 0.0005, found 0.1)" in changed.stderr

    tuned = tmp_path / "tuned"
    done = train(
        f"data.root={bimanual_dataset}", f"run_dir={tuned}", "trainer.steps=1", "trainer.lr=1e-9",
        "trainer.ema_max_decay=0", f"init_from={run}/checkpoints/last", *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tuned_policy = DiffusionPolicy.from_pretrained(tuned / "checkpoints" / "last")
    assert tuned_policy.card["training"]["initial_weights"] == policy.card["training"]
    assert str(tmp_path) not in (tuned / "checkpoints/last/README.md").read_text()
    fine = tuned_policy.state_dict()
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(fine[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data.root={data} trainer.stepz=3", "'stepz'"),
        ("data.root={data} trainer.steps=many", "'many'"),
        ("data.root={data} policy.n_action_steps=20", "policy.n_action_steps"),
        ("data.root={data} policy.observation_keys=[observation.images.nose]", "observation.images.nose"),
        ("data.root={data} policy=transformer_xl", "transformer_xl"),
        ("data.root={data} trainer.rollout_every=5 rollout.seed=100000", "rollout.seed"),
        ("data.root={data} trainer.rollout_every=5", "the policy and rollout.env pybullet do not fit: "),
        ("data.root={data} init_modules=[encoder]", "init_modules: expected init_from"),
        ("data.root={data} init_modules=[visions] world_model=lewm", "init_modules: expected none for a world"),
        ("data.root=no/such/folder", "no/such/folder"),
        ("", "root"),
        ("resume=true", "no config.yaml"),
    ],
)
def test_mistakes_are_one_error_and_leave_nothing(
    bimanual_original: Path, tmp_path: Path, words: str, message: str
) -> None:
    run = tmp_path / "run"
    done = train(f"run_dir={run}", *STATE_ONLY, *words.format(data=bimanual_original).split())
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not run.exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(bimanual_dataset: Path, tmp_path: Path) -> None:
    options = [f"data.root={bimanual_dataset}", "trainer.steps=60", "trainer.save_every=4", *SMALL]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(f"run_dir={whole}", *options).returncode == 0
    process = subprocess.Popen(command(f"run_dir={killed}", *options), cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (killed / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = train(f"run_dir={killed}", "resume=true")
    assert done.returncode == 0, done.stderr
    one, other = load_file(whole / "state.safetensors"), load_file(killed / "state.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_one_model(bimanual_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--main_process_port", str(free_port()), *command()[1:]]
    options = [f"run_dir={run}", f"data.root={bimanual_dataset}", "trainer.steps=6", *SMALL]
    done = subprocess.run([*launch, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 6/6") == done.stdout.count("done:") == 1
    rows = [row.split(",")[:2] for row in (run / "metrics.csv").read_text().splitlines()]
    assert [step for step, metric in rows if metric == "train/loss"] == list("123456")
    assert DiffusionPolicy.from_pretrained(run / "checkpoints" / "last").card["training"]["step"] == 6

    wrong = subprocess.run([*launch, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert wrong.returncode != 0
    assert "holds a run already" in wrong.stderr
    assert (run / "checkpoints" / "last").is_dir()


@pytest.mark.slow
def test_multirun_gives_each_job_a_folder(bimanual_dataset: Path, tmp_path: Path) -> None:
    options = [f"data.root={bimanual_dataset}", f"run_dir={tmp_path}/sweep", "trainer.steps=1", *SMALL]
    done = train(*options, "seed=0,1", "--multirun")
    assert done.returncode == 0, done.stderr
    weights = [load_file(tmp_path / f"sweep/{job}/checkpoints/last/model.safetensors") for job in (0, 1)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
