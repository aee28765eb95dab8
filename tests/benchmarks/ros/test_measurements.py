"""vla-bench ros on the gate alone: what it measures, writes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.ros import FakeRobot, Witness, own_domain, wait_for
from helpers.small_diffusion import small_policy
from rich.progress import Progress
from std_msgs.msg import Bool

from vla_policy.benchmarks.ros import measurements as bench_ros
from vla_policy.benchmarks.ros.fault_timing import FAULTS, TRIES, measured
from vla_policy.benchmarks.ros.harness import HeldBefore
from vla_policy.benchmarks.ros.measured import Hold, MeasuredEpisode
from vla_policy.cli.bench.ros import main as ros
from vla_policy.graph.operator import GraphError
from vla_policy.graph.processes import Processes
from vla_policy.interfaces import Failure, InputError
from vla_policy.nodes.common import drop_realtime, request_realtime
from vla_policy.utils.files import write_json

pytestmark = pytest.mark.dds
EPISODE = MeasuredEpisode(
    100000, True, 90, 9.0, ("holding: late",), 1, [20.0], [False], [False], [0.0], {"policy": 1.0}, {}
)


def test_every_fault_is_timed_and_storms_lead_nothing_astray(tmp_path: Path) -> None:
    shared = ["nowhere", "repeats=1", "seed=3", "domain_id=null", f"out={tmp_path}"]  # no policy is needed
    with own_domain(2):
        ros([*shared, "only=[storm]"])
        ros([*shared, "only=[gate]"])
    found = json.loads((tmp_path / "ros.json").read_text())
    assert list(found["measurements"]) == ["storm", "gate"]  # the second call adds to the first one's
    for name in FAULTS:
        row = found["times"][f"{name} to hold"]
        assert (row["n"], row["not_held"]) == (1, 0)
        (reason,) = row["reasons"]
        assert any(words in reason for words in FAULTS[name].reasons)
        assert 0 < row["max"] < 2000  # how fast it is depends on what else this computer does
        assert row["milliseconds"] == [row["max"]]
    assert found["counts"]["stale commands in storms"]["met"]
    assert found["counts"]["stale commands in storms"]["messages_sent"][0] > 100
    assert found["times"]["jitter of commands in storms"]["n"] > 5
    assert found["measurements"]["gate"]["cpus"] >= 1
    with pytest.raises(InputError, match=r"ros.json: expected measurements of .*'seed': 4.*found .*'seed': 3"):
        ros(["nowhere", "seed=4", "only=[gate]", f"out={tmp_path}"])


def test_only_the_threads_of_the_witness_run_in_real_time() -> None:
    allowed = request_realtime()
    drop_realtime()
    with own_domain(2), closing(Witness()):
        policies = [os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")]
        assert (os.SCHED_FIFO in policies) == allowed
        started = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"])
        assert int(started) == os.SCHED_OTHER


def test_steal_time_is_reported_by_interval() -> None:
    with own_domain(2), closing(Witness()) as witness:
        witness.steal_times += [(10.00, 5.0), (10.02, 5.0), (10.08, 5.04), (10.10, 5.05)]
        taken = witness.steal_per_interval(np.array([10.02, 10.08, 10.10]), np.array([0.02, 0.06, 0.02]))
        np.testing.assert_allclose(taken, [0.0, 0.04, 0.01], atol=1e-9)
        assert not len(witness.steal_per_interval(np.zeros(0), np.zeros(0)))


def test_an_arm_that_was_held_before_its_fault_is_tried_again_and_not_for_ever() -> None:
    with own_domain(2), closing(Witness()) as witness:
        witness.gate_states += [(10.0, "running", ""), (20.0, "holding", "policy/stop is silent")]
        with pytest.raises(HeldBefore):
            witness.seconds_to_hold(20.5)
    attempt = Mock(side_effect=[HeldBefore, HeldBefore, Hold(0.1, "silent", 0.0)])
    assert measured(attempt, "silence") == Hold(0.1, "silent", 0.0, discarded=2)
    with pytest.raises(GraphError, match=f"silence: expected an arm that is not held before, found it held {TRIES}"):
        measured(Mock(side_effect=HeldBefore), "silence")


def test_episodes_of_another_policy_or_configuration_are_not_counted_together(tmp_path: Path) -> None:
    checkpoint = tmp_path / "policy"
    policy = small_policy()
    policy.save_pretrained(checkpoint)

    def bench(**changes: int) -> bench_ros.Bench:
        config = bench_ros.RosConfig(out=str(tmp_path), **changes)
        return bench_ros.Bench(str(checkpoint), config, Progress(), "success")

    assert bench().stored_episodes() == []
    write_json(tmp_path / "success.json", {"made_with": bench().made_with, "episodes": [asdict(EPISODE)]})
    (episode,) = bench(n_episodes=7).stored_episodes()
    assert (episode.seed, episode.rearmed) == (EPISODE.seed, 1)
    for changes in ({"max_steps": 7}, {"rearm": 0}, {"seed": 7}):
        with pytest.raises(InputError, match=r"success.json: expected episodes made with .*; choose another out="):
            bench(**changes).stored_episodes()
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    policy.save_pretrained(checkpoint)  # trained on, in the same folder
    with pytest.raises(InputError, match=r"success.json: expected episodes made with"):
        bench().stored_episodes()
    write_json(tmp_path / "success.json", [asdict(EPISODE)])
    with pytest.raises(InputError, match="found None"):
        bench().stored_episodes()


@pytest.mark.parametrize("error", [TimeoutError("a moving arm: not there"), GraphError("a moving arm: not there")])
def test_a_graph_that_fails_is_one_error_and_earlier_measurements_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    row = {"found": "0", "target": "0", "met": True}
    done, failing = Mock(return_value=({}, {"storms": row})), Mock(side_effect=error)
    monkeypatch.setattr(bench_ros, "MEASUREMENTS", {"storm": done, "gate": failing})
    with own_domain(2), pytest.raises(Failure, match=r"gate: a moving arm: not there\nlogs are in .*gate"):
        ros(["nowhere", "only=[storm,gate]", "domain_id=null", f"out={tmp_path}"])
    assert json.loads((tmp_path / "ros.json").read_text())["counts"] == {"storms": row}


def test_an_arm_that_was_stopped_before_it_moved_is_started_again(tmp_path: Path) -> None:
    with own_domain(2), Processes(tmp_path) as processes:
        heartbeats = ["policy/stop", "surprise_monitor/stop"]
        processes.start("command_gate", dry_run=False, heartbeats=heartbeats)
        with closing(FakeRobot()) as robot, closing(Witness()) as witness:
            offer, alarms = robot.offer_motion, [True]

            def offer_after_an_alarm() -> None:
                if alarms:
                    robot.monitor.publish(Bool(data=alarms.pop()))
                    wait_for(lambda: witness.state == "holding", "the hold")
                offer()

            robot.offer_motion = offer_after_an_alarm  # type: ignore[method-assign]
            robot.start(witness)
            assert alarms == []
            wait_for(lambda: witness.moved(0.0) > 0.01, "a moving arm")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("only=[gates]", "expected some of .*'gate'.*found .*'gates'"),
        ("repeats=0", "repeats: expected at least 1, found 0"),
        ("only=[teleport]", "monitor: expected a calibration"),
        ("soak_minutes=0", "expected .* more than 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ros(["nowhere", override, f"out={tmp_path}"])
