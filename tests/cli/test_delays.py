"""vla-eval delays, and chunking in vla-eval rollout, with an untrained checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.commands import error_of
from helpers.tiny_policies import tiny_policy

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy.cli.eval import main
from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.interfaces import ACTION, STATE
from vla_policy.models import DiffusionPolicy, TransformerConfig
from vla_policy.utils.files import read_json
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics

SMALL = ["n_episodes=1", "seed=50000", "num_workers=0", "scene.max_episode_steps=24", "n_action_steps=2"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One as ever, and one whose training gave up to four rows."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoints")
    policy = tiny_policy(pusht_interface({}), WORKSPACE_LOW, WORKSPACE_HIGH, [STATE])
    policy.save_pretrained(folder / "plain")
    config = type(policy.config).from_dict({**policy.config.to_dict(), "prefix_steps": 4})
    DiffusionPolicy(config, policy.full_interface, policy.normalizer).save_pretrained(folder / "trained")
    return folder / "plain", folder / "trained"


def dynamics(folder: Path) -> Path:
    """Of the pusher alone, which know nothing."""
    config = DynamicsConfig(state_keys=[STATE], future=4, transformer=TransformerConfig(16, 1, 2, patch=1))
    random = torch.rand(64, 6, 2, generator=torch.Generator().manual_seed(0))
    normalizer = fit_dynamics({STATE: random, ACTION: random}, config)
    Dynamics(config, pusht_interface({}), normalizer).save_pretrained(folder)
    return folder


def test_every_way_to_bridge_every_delay_is_measured_and_nothing_twice(
    checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, trained = checkpoints
    words = [str(plain), *SMALL, "delays=[0,4]", f"trained={trained}", f"out={tmp_path / 'out'}"]
    words += ["planner=foresight", f"planner.dynamics={dynamics(tmp_path / 'dynamics')}", "planner.samples=2"]
    main(["delays", *words])
    printed = capsys.readouterr().out
    for name in ("wait", "async", "ensemble", "rtc", "trained rtc", "foresight", "jump of the command", "jerk"):
        assert name in printed
    found = read_json(tmp_path / "out" / "delays.json")
    assert [(row["method"], row["delay"]) for row in found["rows"]] == [
        (method, delay)
        for method in ("wait", "async", "ensemble", "rtc", "trained rtc", "foresight")
        for delay in (0, 4)
    ]
    by = {(row["method"], row["delay"]): row for row in found["rows"]}
    assert by["wait", 0]["folder"] == by["rtc", 0]["folder"] == by["async", 0]["folder"]
    assert by["foresight", 0]["folder"] == by["async", 0]["folder"]
    planner = read_json(tmp_path / "out" / "foresight_4" / "summary.json")["planner"]
    assert (planner["name"], planner["samples"]) == ("foresight", 2)
    assert by["wait", 4]["held_steps"] == 16  # four of six periods
    assert by["async", 4]["held_steps"] == 4
    assert by["rtc", 4]["minus_no_delay"]["difference"] == 0  # an untrained policy never succeeds
    assert by["rtc", 4]["mean_seam_jump"] < by["async", 4]["mean_seam_jump"]
    assert by["trained rtc", 4]["mean_jerk"] > 0
    summary = read_json(tmp_path / "out" / "trained_4" / "summary.json")
    assert (summary["delay"], summary["chunking"], summary["checkpoint"]) == (4, "rtc", str(trained))

    stamp = (tmp_path / "out" / "rtc_4" / "summary.json").stat().st_mtime_ns
    main(["delays", *words])  # goes on where it was
    assert (tmp_path / "out" / "rtc_4" / "summary.json").stat().st_mtime_ns == stamp
    assert "n_episodes 1 to continue with, found 2" in error_of(main, "delays", *words, "n_episodes=2")


def test_what_does_not_fit_is_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    plain, trained = map(str, checkpoints)
    out = f"out={tmp_path}"
    for words, message in {
        ("delays", plain, "delays=[]"): "delays: expected different ones, at least one, found []",
        ("delays", plain, "chunkings=[sync]"): "chunking: expected one of",
        ("delays", plain, f"trained={plain}"): "trained: expected a checkpoint with policy.prefix_steps above 0",
        ("delays", plain, f"trained={trained}", "delays=[0,8]"): "delay: expected at most policy.prefix_steps, 4, with",
        ("delays", trained, "delays=[0,8]"): "delay: expected at most policy.prefix_steps, 4, with rtc, found 8",
        ("delays", plain, "planner=dmpc", "planner.dynamics=a"): "planner: expected none or foresight, found 'dmpc'",
        ("delays", plain, "planner=foresight", f"planner.dynamics={plain}"): "expected a dynamics, found ['policy']",
        (
            *("rollout", plain, "chunking=rtc", "planner=foresight"),
            f"planner.dynamics={plain}",
        ): "delay: expected at least 1 with planner=foresight",
        ("delays", plain, "delays=[0,15]"): "delays: expected less than a chunk, 15 control periods, found 15",
        (
            "rollout",
            trained,
            "chunking=rtc",
            "delay=5",
            "server=ws://127.0.0.1:9",
        ): "delay: expected at most policy.prefix",
        ("rollout", trained, "chunking=rtc", "delay=5"): "delay: expected at most policy.prefix_steps, 4, with rtc",
        ("rollout", plain, "chunking=sync"): "chunking: expected one of",
        ("rollout", "baseline=hold", "chunking=rtc"): "chunking: expected another one than rtc for baseline=hold",
        ("rollout", plain, "delay=-1"): "delay: expected at least 0, found -1",
        ("rollout", plain, "delay=15", "videos=0", *SMALL): "delay: expected less than a chunk, 15 control periods",
    }.items():
        assert message in error_of(main, *words, out)
