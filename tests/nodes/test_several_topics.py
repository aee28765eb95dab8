"""An arm and its gripper with topics of their own, behind one gate."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.ros import ROOT, Spinning, own_domain, wait_for
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.benchmarks.ros.harness import answer
from vla_policy.graph.contract_check import check_graph
from vla_policy.graph.processes import Processes
from vla_policy.interfaces import STATE
from vla_policy.nodes import common
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import load_contract
from vla_policy.robot.contract.findings import WRONG

pytestmark = pytest.mark.dds
ARM = [f"joint{k}" for k in range(1, 7)]
HOME = [0.0, -0.5, -0.8, 0.1, 1.3, 0.0]


def relaxed(folder: Path) -> Path:
    """The shipped contract, for a computer that is busy."""
    data = yaml.safe_load((ROOT / "config" / "xarm6_gripper.yaml").read_text())
    data["timeouts"] = {"state": 1.0, "camera": 1.0, "teleop": 1.0, "clock_jump": 1.0}
    data["observations"][STATE]["slop"] = 0.5
    (folder / "arm.yaml").write_text(yaml.safe_dump(data))
    return folder / "arm.yaml"


def _keep(messages: deque[JointTrajectory], message: JointTrajectory) -> None:
    messages.append(message)  # rclpy asks for a signature, which deque.append has not


class ArmAndGripper(Spinning):
    """Says where it is, the gripper (0.2 rad of 0.85: 76 % open) five times slower, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("arm")
        self.told: dict[str, deque[JointTrajectory]] = {}
        for topic in ("/xarm6_traj_controller/joint_trajectory", "/xarm_gripper_traj_controller/joint_trajectory"):
            self.told[topic] = deque(maxlen=500)
            kept = partial(_keep, self.told[topic])
            self.create_subscription(JointTrajectory, topic, kept, common.COMMAND_QOS)
        self._arm = self.create_publisher(JointState, "/xarm/joint_states", common.STATE_QOS)
        self._gripper = self.create_publisher(JointState, "/xarm_gripper/joint_states", common.STATE_QOS)
        self.targets = self.create_publisher(JointState, "teleop/target", common.COMMAND_QOS)
        self.enabling = self.create_client(SetBool, "command_gate/enable")
        self._count = 0
        self._ticker = common.Ticker(0.02, self._tell)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _tell(self) -> None:
        self._arm.publish(self.stamped(ARM[::-1], HOME[::-1]))
        if self._count % 5 == 0:
            self._gripper.publish(self.stamped(["drive_joint"], [0.2]))
        self._count += 1

    def stamped(self, names: list[str], places: list[float]) -> JointState:
        message = JointState(name=names, position=places)
        message.header.stamp = self.get_clock().now().to_msg()
        return message

    def enable(self) -> bool:
        return bool(answer(self.enabling, SetBool.Request(data=True), "the gate").success)


def test_state_is_put_together_and_commands_are_split(tmp_path: Path) -> None:
    file = relaxed(tmp_path)
    with own_domain(2), ArmAndGripper() as arm, Spinning("looks") as node, Processes(tmp_path) as processes:
        perception = Perception(node, load_contract(file), [STATE], lambda: None)
        seen = []
        wait_for(lambda: seen.append(perception.buffer.newest("")) or seen[-1], "an observation")
        np.testing.assert_allclose(seen[-1].values[STATE], [*HOME, 1 - 0.2 / 0.85], atol=1e-6)
        perception.close()
        processes.start("command_gate", contract=str(file), dry_run=False, heartbeats=[""])
        wait_for(arm.enable, "enabling", 60.0)
        target = arm.stamped([*ARM, "gripper"], [*HOME[:5], 0.02, 0.7])
        arm.targets.publish(target)

        def split() -> bool:
            """Each controller is told its own joints, in its own units."""
            arm.targets.publish(arm.stamped(target.name, list(target.position)))
            joints, gripper = (list(messages)[-1:] for messages in arm.told.values())
            return bool(
                joints
                and gripper
                and np.allclose(joints[0].points[-1].positions, [*HOME[:5], 0.02], atol=1e-3)
                and np.allclose(gripper[0].points[-1].positions, [0.85 * 0.3], atol=1e-3)
            )

        wait_for(split, "commands at the target", 60.0)
        for topic, names in zip(arm.told, (ARM, ["drive_joint"]), strict=True):
            assert all(list(message.joint_names) == names for message in arm.told[topic])
        assert processes.dead() == {}


def test_a_running_graph_is_compared(tmp_path: Path) -> None:
    with own_domain(3), ArmAndGripper():
        contract = load_contract(relaxed(tmp_path))
        found = check_graph(contract)
        told = "\n".join(f"{level} {text}" for level, text in found)
        assert "ok /xarm6_traj_controller/joint_trajectory: arm would follow the commands" in told
        assert "joints come as ['joint6', 'joint5'" in told
        wrong = [text for level, text in found if level == WRONG]
        assert wrong == [
            "/camera/color/image_raw: expected sensor_msgs/msg/Image, found no such topic; of this type are none"
        ]
