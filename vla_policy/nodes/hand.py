"""An operator's hand on the arm: what leads it, for how long, and the targets that come of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from vla_policy.interfaces import STATE, DataError
from vla_policy.nodes import common
from vla_policy.nodes.perception import listen
from vla_policy.robot.contract import Contract
from vla_policy.robot.messages import Reader, seconds
from vla_policy.runtime import Lead


class _Wish(NamedTuple):
    """A stick's direction (D,), -1 to 1, or a goal (D,), NaN in channels that keep their value."""

    direction: np.ndarray | None
    goal: np.ndarray | None
    until: float  # steady clock


class Hand:
    """Publishes `teleop/target` while the deadman is held, and `teleop/intervention`, true as long as it is.

    The target moves from the last command (see `Lead`) at `scale` times the contract's speed. Each input holds the
    deadman for some seconds; it may come from another thread than the node's.
    """

    def __init__(self, node: Node, contract: Contract, scale: float) -> None:
        self._node, self._names = node, list(contract.interface.action.names)
        spec = contract.command
        self._led = Lead(spec.low, spec.high, spec.speed, spec.acceleration, spec.following_error, spec.rate, scale)
        self._measured: np.ndarray | None = None
        self._wish: _Wish | None = None
        self._reader = Reader([contract.stream(STATE)])
        listen(node, self._reader, self._on_state)
        node.create_subscription(JointState, "command/executed", self._on_command, 10)
        self._targets = node.create_publisher(JointState, "teleop/target", common.COMMAND_QOS)
        self._intervention = node.create_publisher(Bool, "teleop/intervention", common.COMMAND_QOS)
        self._timer = common.every(node, 1.0 / spec.rate, self._tick)  # one target per command

    @property
    def points(self) -> bool:
        """Whether the last input was a goal that nobody has let go of."""
        return self._wish is not None and self._wish.goal is not None

    def push(self, direction: np.ndarray, seconds: float) -> None:
        """Move in this direction (the first channels, -1 to 1) until the next input, for `seconds` at most."""
        whole = np.zeros(len(self._names))
        whole[: len(direction)] = direction
        self._wish = _Wish(whole, None, common.steady() + seconds)

    def point(self, goal: np.ndarray, seconds: float) -> None:
        """Move to `goal` (D,), NaN in channels that keep their value, for `seconds` at most."""
        self._wish = _Wish(None, goal, common.steady() + seconds)

    def let_go(self) -> None:
        """Release the deadman."""
        self._wish = None

    def _on_state(self, topic: str, message: Any) -> None:
        try:
            for sample in self._reader.read(topic, message, seconds(message.header.stamp)):
                self._measured = sample.value.astype(float)
        except DataError as error:  # the emergency stop has to stay alive
            self._node.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_command(self, message: JointState) -> None:
        if list(message.name) == self._names:
            self._led.command(np.array(message.position), common.steady())

    def _tick(self) -> None:
        now, wish = common.steady(), self._wish
        leading = wish is not None and now < wish.until and self._measured is not None
        if wish is not None and leading and self._measured is not None:
            if wish.goal is not None:
                target = self._led.point(wish.goal, self._measured, now)
            else:
                assert wish.direction is not None
                target = self._led.push(wish.direction, self._measured, now)
            message = JointState(name=self._names, position=target.tolist())
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._targets.publish(message)
        else:
            self._led.release()
        self._intervention.publish(Bool(data=leading))
