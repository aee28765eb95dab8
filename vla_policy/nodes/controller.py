"""The subscriber of a command topic: whether there is one, and whether its controller has the right joints."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher

from vla_policy.nodes import common
from vla_policy.robot.contract import ARRAY, TRAJECTORY, Output

ANSWER = 0.5  # seconds, timeout of the query for a controller's joints


class Controller:
    """The subscriber of `publisher`'s commands.

    A ros2_control controller, whose topics are in its namespace, is queried for its parameter `joints`. `group` has to
    be reentrant: the response arrives while a callback awaits it.
    """

    def __init__(self, node: Node, publisher: Publisher, spec: Output, group: CallbackGroup) -> None:
        self._node, self._publisher, self._spec, self._group = node, publisher, spec, group
        self._name, self._client = publisher.topic_name.rpartition("/")[0], None
        if self._name and spec.type in (TRAJECTORY, ARRAY):
            self._client = node.create_client(GetParameters, f"{self._name}/get_parameters", callback_group=group)

    async def obstacle(self) -> str:
        """Why commands would not be followed; "" if nothing is known to prevent it."""
        return self._without_subscriber() or self._joint_mismatch(await self._joints())

    def _without_subscriber(self) -> str:
        if self._publisher.get_subscription_count():
            return ""
        topic = self._publisher.topic_name
        others = common.endpoints(self._node.get_subscriptions_info_by_topic(topic))
        of_others = f"only {', '.join(others)}, of another type or quality of service"
        found = of_others if others else "none; does the controller run?"
        return f"{topic}: expected a subscriber of {self._spec.type}, found {found}"

    def _joint_mismatch(self, found: list[str] | None) -> str:
        wanted = list(self._spec.joints)
        # A trajectory names its joints, an array does not: there the order matters too.
        same = found == wanted or (self._spec.type == TRAJECTORY and sorted(found or []) == sorted(wanted))
        return "" if found is None or same else f"{self._name}: expected a controller of {wanted}, found one of {found}"

    async def _joints(self) -> list[str] | None:
        """The controller's joints; None if it has no parameter service or no such parameter."""
        if self._client is None or not self._client.service_is_ready():
            return None
        future = self._client.call_async(GetParameters.Request(names=["joints"]))
        patience = self._node.create_timer(ANSWER, future.cancel, callback_group=self._group, clock=common.STEADY)
        try:
            answer: Any = await future
        finally:
            self._node.destroy_timer(patience)
            self._client.remove_pending_request(future)
        values = answer.values if answer is not None else []
        lists = [v.string_array_value for v in values if v.type == ParameterType.PARAMETER_STRING_ARRAY]
        return list(lists[0]) if lists else None
