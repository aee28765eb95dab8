"""vla-serve and vla-bench serve as a person types them, and an evaluation whose chunks a server computes."""

from __future__ import annotations

import csv
import functools
import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of
from helpers.serving import listening

from vla_policy.cli.bench.serve import main as bench_serve
from vla_policy.cli.serve import main as serve
from vla_policy.evaluation.success.checkpoint import evaluate_checkpoint
from vla_policy.evaluation.success.latency import random_histories
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.serving import client
from vla_policy.serving.checkpoint import describe, remote_policy
from vla_policy.serving.server import PolicyServer
from vla_policy.serving.tokens import TOKEN, TOKEN_FILE

ROOT = Path(__file__).parents[2]
CHECKPOINT = str(ROOT / "checkpoints" / "pusht_image")


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.delenv(TOKEN_FILE, raising=False)


def test_mistakes_are_told_before_the_policy_is_loaded(tmp_path: Path) -> None:
    assert "host: expected a loopback address where there is no token, found 0.0.0.0" in error_of(
        serve, "nowhere", "host=0.0.0.0"
    )
    assert "port: expected 0 to 65535, found 70000" in error_of(serve, "nowhere", "port=70000")
    assert "certificate: expected that of the key a.pem, found none" in error_of(serve, "nowhere", "key=a.pem")
    assert "No such file" in error_of(serve, "nowhere", f"certificate={tmp_path / 'none.pem'}")
    (tmp_path / "odd.pem").write_text("nothing")
    assert "certificate: expected one in PEM with its key" in error_of(
        serve, "nowhere", f"certificate={tmp_path / 'odd.pem'}"
    )
    assert "nowhere" in error_of(serve, "nowhere")


@pytest.mark.slow
def test_a_checkpoint_is_served_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "vla_policy.cli.serve", CHECKPOINT, "port=0", "device=cpu"]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # whoever runs the tests in the background of a shell has it ignored, and so would the program
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line.startswith(f"{CHECKPOINT} (")
        with closing(remote_policy(line.split()[5].rstrip(";"))) as remote:
            (chunk,) = remote.predict(random_histories(remote, 1), np.random.default_rng(0))
            assert chunk.actions.shape == (15, 2)
        assert "connected" in server.stdout.readline()
        assert "gone" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=60)[1].endswith("interrupted\n")
        assert server.returncode == 130
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_an_evaluation_at_a_server_is_the_same_one(tmp_path: Path) -> None:
    policy = DiffusionPolicy.from_pretrained(CHECKPOINT)
    words = ["n_episodes=2", "seed=5", "num_envs=2", "num_workers=0", "videos=0", "latency_repeats=1", "device=cpu"]
    words += ["scene.max_episode_steps=12"]
    here = evaluate_checkpoint(CHECKPOINT, [*words, f"out={tmp_path / 'here'}"])
    with listening(PolicyServer(policy, describe(policy, CHECKPOINT), policy.unreadable)) as address:
        there = evaluate_checkpoint(CHECKPOINT, [*words, f"out={tmp_path / 'there'}", f"server={address}"])
        remote = remote_policy(address)
        assert (remote.served.name, remote.served.n_image_steps, remote.served.rows) == (CHECKPOINT, 1, 15)
        assert set(remote.served.ranges) == {STATE}  # actions are relative
        histories = random_histories(policy)
        for one, other in zip(
            policy.predict(histories, np.random.default_rng(1)),
            remote.predict(histories, np.random.default_rng(1)),
            strict=True,
        ):
            np.testing.assert_array_equal(one.actions, other.actions)
        remote.close()
        with pytest.raises(
            InputError, match=r"expected the policy of .*pusht_language, .*, found that of .*pusht_image"
        ):
            remote_policy(address, 0, str(ROOT / "checkpoints" / "pusht_language"))
    assert there["server"] == address
    assert there["objective"] == here["objective"]
    assert there["mean_max_coverage"] == here["mean_max_coverage"]
    episodes = [list(csv.DictReader((tmp_path / name / "episodes.csv").open())) for name in ("here", "there")]
    assert episodes[0] == episodes[1]
    assert describe(policy, CHECKPOINT).ranges.keys().isdisjoint({ACTION})


def test_nobody_connects_for_a_checkpoint_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []
    monkeypatch.setattr(client, "RemotePolicy", lambda *arguments: connected.append(arguments))
    with pytest.raises(InputError, match="expected a checkpoint's folder with"):
        remote_policy("ws://127.0.0.1:9", 0, str(tmp_path))
    assert connected == []  # nobody would end the connection


def test_an_evaluation_at_a_server_has_its_limits() -> None:
    for words, expected in (
        (
            ["server=ws://gpu:1", "n_action_steps=1"],
            "n_action_steps: expected null with a monitor, update_card or server",
        ),
        (["jpeg=90"], "jpeg: expected 0 without a server, found 90"),
        (["server=gpu"], "server: expected ws://HOST:PORT or wss://HOST:PORT, found 'gpu'"),
    ):
        with pytest.raises(InputError, match=expected):
            evaluate_checkpoint(CHECKPOINT, words)


@pytest.mark.slow
def test_what_a_server_adds_is_measured(tmp_path: Path) -> None:
    bench_serve(["repeats=3", "warmup=1", f"out={tmp_path / 'serve.json'}"])
    found = json.loads((tmp_path / "serve.json").read_text())["added_ms"]
    assert list(found) == [
        *("one of 96 x 96", "one of 96 x 96, JPEG 90", "two of 480 x 640", "two of 480 x 640, JPEG 90"),
    ]
    assert all(row["n"] == 3 and 0 < row["p50"] <= row["p95"] for row in found.values())
