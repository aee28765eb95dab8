"""The streams of a contract as observations, for the nodes that look: subscriptions, decoding, who is silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node

from vla_policy.contract import IMAGE, Contract, Stream
from vla_policy.interfaces import InputError
from vla_policy.messages import decode, seconds
from vla_policy.nodes import common
from vla_policy.runtime import ObservationBuffer, Watchdog

TOGETHER = "a moment of all streams"


class Perception:
    """Fills `buffer` from the topics of `keys` and calls `on_sample` after every sample taken in."""

    def __init__(self, node: Node, contract: Contract, keys: Iterable[str], on_sample: Callable[[], None]) -> None:
        self._node, self._on_sample = node, on_sample
        streams = [contract.stream(key) for key in keys]
        timeouts = contract.timeouts
        self.buffer = ObservationBuffer([stream.key for stream in streams], timeouts.slop, timeouts.max_age)
        self._streams = {stream.topic: stream for stream in streams}
        self._watchdog = Watchdog(dict.fromkeys([*self._streams, TOGETHER], timeouts.camera))
        self._apart = ""
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
        """What keeps this from being an observation now, in words; "" if nothing does.

        A message that does not fit, topics that are silent or refused, or streams that have no moment in common.
        """
        silent = self._watchdog.check(common.steady())
        if self._bad:
            return next(iter(self._bad.values()))
        apart = silent.pop(TOGETHER, None) is not None
        if not silent:
            return self._apart if apart else ""
        return ", ".join(self._silence(self._streams[topic], age) for topic, age in silent.items())

    def _silence(self, stream: Stream, age: float) -> str:
        what = "picture" if stream.type == IMAGE else "message"
        since = "yet" if math.isinf(age) else f"since {age:.1f} s"
        if refusal := self.buffer.refusals[stream.key]:
            return f"no {what} from {stream.topic} that counts {since}: they are {refusal}"
        return f"no {what} from {stream.topic} {since}{self._of_another_type(stream)}"

    def _of_another_type(self, stream: Stream) -> str:
        """Who publishes on the topic what cannot be heard, for the user who wonders why."""
        publishers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(stream.topic))
        found = sorted({publisher.topic_type for publisher in publishers} - {stream.type})
        return f" (expected {stream.type}, found {', '.join(found)})" if found else ""

    def _on_message(self, stream: Stream, message: Any) -> None:
        try:
            value = decode(message, stream)
        except InputError as error:
            if stream.key not in self._bad:
                self._node.get_logger().error(str(error))
            self._bad[stream.key] = str(error)
            return
        self._bad.pop(stream.key, None)
        now = common.now(self._node)
        if self.buffer.put(stream.key, value, seconds(message.header.stamp), now):
            self._watchdog.feed(stream.topic, common.steady())
            apart = self.buffer.apart(now)
            if apart:
                self._apart = apart
            else:
                self._watchdog.feed(TOGETHER, common.steady())
            self._on_sample()
