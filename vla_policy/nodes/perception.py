"""The streams of a contract as observations, for the nodes that look: subscriptions, decoding, who is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node

from vla_policy.contract import IMAGE, Contract, Stream
from vla_policy.interfaces import InputError
from vla_policy.messages import decode, seconds
from vla_policy.nodes import common
from vla_policy.runtime import ObservationBuffer, Watchdog


class Perception:
    """Fills `buffer` from the topics of `keys` and calls `on_sample` after every sample taken in."""

    def __init__(self, node: Node, contract: Contract, keys: Iterable[str], on_sample: Callable[[], None]) -> None:
        self._node, self._on_sample = node, on_sample
        streams = [contract.stream(key) for key in keys]
        timeouts = contract.timeouts
        self.buffer = ObservationBuffer([stream.key for stream in streams], timeouts.slop, timeouts.max_age)
        self._types = {stream.topic: stream.type for stream in streams}
        self._watchdog = Watchdog({stream.topic: timeouts.camera for stream in streams})
        self._bad: dict[str, str] = {}
        self._subscriptions = [
            node.create_subscription(
                common.message_class(stream.type),
                stream.topic,
                partial(self._on_message, stream),
                common.IMAGE_QOS if stream.type == IMAGE else common.STATE_QOS,
            )
            for stream in streams
        ]

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def problem(self) -> str:
        """What keeps this from being an observation now: a message that does not fit or a silent topic; "" if none."""
        silent = self._watchdog.check(common.steady())
        if self._bad:
            return next(iter(self._bad.values()))
        if not silent:
            return ""
        # Without counts: whatever changes is logged anew.
        refused = f" (refused: {', '.join(sorted(self.buffer.refused))})" if self.buffer.refused else ""
        return f"{', '.join(silent)} is silent{refused or self._of_other_types(silent)}"

    def _of_other_types(self, topics: Iterable[str]) -> str:
        """Who publishes on these topics what cannot be heard, for the user who wonders why."""
        found = [
            f"{topic}: expected {self._types[topic]}, found {publisher.topic_type}"
            for topic in topics
            for publisher in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
            if publisher.topic_type != self._types[topic]
        ]
        return f" ({'; '.join(found)})" if found else ""

    def _on_message(self, stream: Stream, message: Any) -> None:
        try:
            value = decode(message, stream)
        except InputError as error:
            if stream.key not in self._bad:
                self._node.get_logger().error(str(error))
            self._bad[stream.key] = str(error)
            return
        self._bad.pop(stream.key, None)
        if self.buffer.put(stream.key, value, seconds(message.header.stamp), common.now(self._node)):
            self._watchdog.feed(stream.topic, common.steady())
            self._on_sample()
