"""The gate as a process before a controller of joints: the tip is led, joints are told, over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("pink")

from helpers.ros import ROOT, FakeRobot, Witness, own_domain, wait_for
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from sim.arm import inverse_kinematics
from sim.config import PushTConfig
from vla_policy.graph.processes import Processes
from vla_policy.nodes import common
from vla_policy.robot.contract import ARRAY, STATE, TRAJECTORY, Contract, load_contract
from vla_policy.robot.kinematics import BEHIND
from vla_policy.robot.messages import seconds

pytestmark = pytest.mark.dds
PATIENCE = 60.0
JUMP = 0.2  # radians that no joint jumps by, though a busy computer may lose some commands


class JointArm(FakeRobot):
    """A controller of joints that goes where it is told, at once, and says at 50 Hz where it is."""

    def __init__(self, contract: Contract, x: float) -> None:
        super().__init__()
        (output,) = contract.command.outputs
        assert output.kinematics is not None
        self.kinematics = output.kinematics
        self.joints = inverse_kinematics(np.array([x, 0.0, 0.01]), PushTConfig().arm.stick_length)
        self.told: list[np.ndarray] = []
        self.executed: list[np.ndarray] = []
        kind = common.message_class(output.type)
        self.create_subscription(kind, output.topic, self._on_joints, common.HEARTBEAT_QOS)
        self.create_subscription(JointState, "command/executed", lambda m: self.executed.append(m.position), 50)
        self._joint_states = self.create_publisher(JointState, contract.stream(STATE).source.topic, common.STATE_QOS)
        self._joint_ticker = common.Ticker(0.02, self._tell_joints)

    def close(self) -> None:
        self._joint_ticker.close()
        super().close()

    @property
    def tip(self) -> np.ndarray:
        return self.kinematics.pose(self.joints)

    def _tell_joints(self) -> None:
        message = JointState(name=[*self.kinematics.joints[::-1], "finger"], position=[*self.joints[::-1], 0.3])
        message.header.stamp = common.stamp(self.now())
        self._joint_states.publish(message)

    def _on_joints(self, message: object) -> None:
        if hasattr(message, "points"):
            point = message.points[0]  # the next one is the end of braking, which nobody gets to see
            assert list(message.joint_names) == list(self.kinematics.joints)
            assert seconds(point.time_from_start) > 0.02
            self.joints = np.array(point.positions)
        else:
            self.joints = np.array(message.data)
        self.told.append(self.joints)


@contextmanager
def led(folder: Path, x: float, **action: object) -> Iterator[tuple[JointArm, Witness]]:
    """An arm with the tip at (x, 0) behind an enabled gate with the contract of config/, its action changed."""
    data = yaml.safe_load((ROOT / "config" / "xarm6_joints.yaml").read_text())
    data["action"] |= action
    data["timeouts"] = {"state": 0.5, "policy": 0.5}  # this is not about silence
    (folder / "arm.yaml").write_text(yaml.safe_dump(data))
    with own_domain(1), Processes(folder) as processes:
        processes.start("command_gate", contract=str(folder / "arm.yaml"), dry_run=False, heartbeats=["policy/stop"])
        with JointArm(load_contract(folder / "arm.yaml"), x) as arm, Witness() as witness:
            wait_for(lambda: arm.enable().success, "enabling")
            wait_for(lambda: len(arm.told) > 5, "commands that hold")
            yield arm, witness
            assert processes.dead() == {}


def lead(arm: JointArm, witness: Witness, rows: np.ndarray, done: Callable[[], bool], what: str) -> None:
    """Offer a chunk until `done`: a computer that stands still makes the gate hold, or refuse what came late."""
    offered = 0.0

    def played() -> bool:
        nonlocal offered
        if not done() and time.time() > offered + 3.0:
            offered = time.time()
            arm.enable()
            arm.offer(rows)
        return done()

    wait_for(played, f"{what}; the gate: {witness.state} {witness.reason}", PATIENCE)


@pytest.mark.parametrize("kind", [TRAJECTORY, ARRAY])
def test_the_tip_ends_where_the_chunk_ends(tmp_path: Path, kind: str) -> None:
    with led(tmp_path, 0.45, type=kind) as (arm, witness):
        np.testing.assert_allclose(arm.tip[:3], [0.45, 0.0, 0.01], atol=1e-3)
        parts = np.minimum(np.arange(1, 16) / 8, 1.0)[:, None]
        end = np.array([0.5, 0.08])
        rows = np.array([0.45, 0.0]) + parts * (end - [0.45, 0.0])

        def at_the_end() -> bool:
            """At rest: a hold while it moves brings it back to where it was measured."""
            resting = len(arm.told) > 20 and np.ptp(arm.told[-20:], axis=0).max() < 1e-4
            there = np.allclose(arm.tip[:2], end, atol=5e-4) and np.allclose(arm.executed[-1], end, atol=1e-3)
            return bool(resting and there)

        lead(arm, witness, rows, at_the_end, "the tip at rest at the chunk's end")
        told = np.array(arm.told)
        tips = np.array([arm.kinematics.pose(joints) for joints in told])
        assert np.abs(tips[:, 2] - 0.01).max() < 5e-4  # never towards the table
        assert (np.abs(tips[:, 3:] @ [1.0, 0.0, 0.0, 0.0]) > 1 - 1e-4).all()
        assert np.abs(np.diff(told, axis=0)).max() < JUMP
        arm.emergency.publish(Bool(data=True))
        wait_for(lambda: witness.state == "fault", "the fault", PATIENCE)
        np.testing.assert_allclose(arm.tip[:2], end, atol=1e-3)


def test_out_of_reach_the_arm_holds(tmp_path: Path) -> None:
    with led(tmp_path, 0.62, high=[1.2, 0.18]) as (arm, witness):
        rows = np.stack([0.62 + 0.02 * np.arange(1, 16), np.zeros(15)], axis=1)
        lead(arm, witness, rows, lambda: witness.reason.startswith("kinematics: "), "the hold")
        assert witness.state == "holding"
        reached = arm.tip[0]
        wait_for(lambda: np.ptp(arm.told[-20:], axis=0).max() < 1e-3, "an arm at rest", PATIENCE)
        assert arm.tip[0] < reached + 2 * BEHIND
        assert 0.63 < arm.tip[0] < 0.9
        assert np.abs(np.diff(arm.told, axis=0)).max() < JUMP


def test_a_joint_that_the_robot_has_not_is_one_line(tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "config" / "xarm6_joints.yaml").read_text())
    data["kinematics"]["joints"][5] = "wrist"
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(data))
    with own_domain(1), Processes(tmp_path) as processes:
        assert processes.start("command_gate", contract=str(tmp_path / "arm.yaml")).wait(60) == 2
    (line,) = (tmp_path / "command_gate.log").read_text().splitlines()
    assert line.startswith("error: ")
    assert "joints: expected those that move 'pusher'" in line
