"""vla-bench ros on the gate alone: what it measures, writes and refuses."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

rclpy = pytest.importorskip("rclpy")

from helpers.ros import own_domain  # noqa: E402

from vla_policy.cli import bench_ros  # noqa: E402
from vla_policy.evaluation.graph_report import Hold  # noqa: E402
from vla_policy.interfaces import InputError  # noqa: E402
from vla_policy.nodes.fault_timing import FAULTS, TRIES, measured  # noqa: E402
from vla_policy.nodes.harness import HeldBefore, Witness  # noqa: E402
from vla_policy.nodes.operator import GraphError  # noqa: E402

pytestmark = pytest.mark.xdist_group("dds")


def test_every_fault_is_timed_and_storms_lead_nothing_astray(tmp_path: Path) -> None:
    shared = ["nowhere", "repeats=1", "seed=3", "domain_id=null", f"out={tmp_path}"]  # no policy is needed
    with own_domain(2):
        bench_ros.ros([*shared, "only=[storm]"])
        bench_ros.ros([*shared, "only=[gate]"])
    found = json.loads((tmp_path / "ros.json").read_text())
    assert list(found["measurements"]) == ["storm", "gate"]  # the second call adds to the first one's
    for name in FAULTS:
        row = found["times"][f"{name} to hold"]
        assert (row["n"], row["not_held"]) == (1, 0)
        (reason,) = row["reasons"]
        assert FAULTS[name].reason in reason
        assert 0 < row["max"] < 2000  # how fast it is depends on what else this computer does
        assert row["milliseconds"] == [row["max"]]
    assert found["counts"]["stale commands in storms"]["met"]
    assert found["counts"]["stale commands in storms"]["messages_sent"][0] > 100
    assert found["times"]["jitter of commands in storms"]["n"] > 5
    assert found["measurements"]["gate"]["cpus"] >= 1
    with pytest.raises(InputError, match=r"ros.json: expected measurements of .*'seed': 4.*found .*'seed': 3"):
        bench_ros.ros(["nowhere", "seed=4", "only=[gate]", f"out={tmp_path}"])


def test_an_arm_that_was_held_before_its_fault_is_tried_again_and_not_for_ever() -> None:
    with own_domain(2), closing(Witness()) as witness:
        witness.said += [(10.0, "running", ""), (20.0, "holding", "policy/stop is silent")]
        with pytest.raises(HeldBefore):
            witness.seconds_to_hold(20.5)
    attempt = Mock(side_effect=[HeldBefore, HeldBefore, Hold(0.1, "silent", 0.0)])
    assert measured(attempt, "silence") == Hold(0.1, "silent", 0.0, discarded=2)
    with pytest.raises(GraphError, match=f"silence: expected an arm that is not held before, found it held {TRIES}"):
        measured(Mock(side_effect=HeldBefore), "silence")


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
        bench_ros.ros(["nowhere", override, f"out={tmp_path}"])
