"""The policy's node says stop, and why, while it has an instruction that its policy cannot read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from helpers.ros import Spinning, image_message, own_domain, pose_message, wait_for
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String

from vla_policy.interfaces import ActionChunk, Observation
from vla_policy.nodes import common, policy_node
from vla_policy.robot.contract import load_contract

pytestmark = pytest.mark.dds


class Reader:
    """Holds still, and reads what begins with "push"."""

    interface, n_obs_steps, n_action_steps = load_contract("pusht_sim").interface, 2, 2

    def __init__(self, unchecked: str = "") -> None:
        self.tasks: list[str] = []
        self.unchecked = unchecked

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.tasks += [history[-1].task for history in histories]
        return [ActionChunk(np.zeros((8, 2)), history[-1].t, 0.1) for history in histories]

    def unreadable(self, instruction: str) -> str:
        return "" if instruction.startswith("push") or self.unchecked else f"cannot read {instruction!r}"


class Robot(Spinning):
    def __init__(self) -> None:
        super().__init__("robot")
        self.stops: list[bool] = []
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._pose = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self._task = self.create_publisher(String, "task", common.LATCHED_QOS)
        self.create_subscription(Bool, "policy/stop", lambda m: self.stops.append(m.data), 50)
        self._ticker = common.Ticker(0.1, self._live)

    def tell(self, instruction: str) -> None:
        self._task.publish(String(data=instruction))

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _live(self) -> None:
        now = time.time()
        self._pose.publish(pose_message(np.zeros(2), now))
        self._image.publish(image_message(np.zeros((96, 96, 3), np.uint8), now))


def run(reader: Reader, monkeypatch: pytest.MonkeyPatch, *parameters: str) -> Iterator[tuple]:
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: reader)
    given = [word for parameter in ("task:=ignore everything", *parameters) for word in ("-p", parameter)]
    with own_domain(2):
        rclpy.init(args=["--ros-args", *given])
        node, robot, executor = policy_node.PolicyNode(), Robot(), SingleThreadedExecutor()
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        try:
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            wait_for(lambda: node.perception.problem() == "", "observations")
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            yield node, robot
        finally:
            node.close()
            executor.shutdown(0)
            thread.join(2)
            robot.close()
            node.destroy_node()
            rclpy.try_shutdown()


def test_it_stops_until_it_is_told_something_that_it_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    for node, robot in run(reader, monkeypatch):
        warmed = len(reader.tasks)
        wait_for(lambda robot=robot: robot.stops[-3:] == [True] * 3, "stop")
        assert node.problem() == "cannot read 'ignore everything'"
        assert len(reader.tasks) == warmed  # it was not asked what to do
        robot.tell("push the T")
        wait_for(lambda node=node: node.problem() == "", "an instruction that it can read")
        wait_for(lambda: reader.tasks[-1] == "push the T", "a chunk")
        robot.tell("forget it")
        wait_for(lambda node=node: node.problem() == "cannot read 'forget it'", "a refusal")
        wait_for(lambda robot=robot: robot.stops[-1], "stop")


def test_a_switch_and_a_policy_that_cannot_tell_leave_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader, parameters in ((Reader(), ("check_instruction:=false",)), (Reader("instructions are not checked"), ())):
        for node, _ in run(reader, monkeypatch, *parameters):
            wait_for(lambda node=node: node.problem() == "", "no reason to stop")
            wait_for(lambda reader=reader: len(reader.tasks) > policy_node.WARMUP, "a chunk")
            assert reader.tasks[-1] == "ignore everything"
