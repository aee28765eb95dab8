"""The streams of a contract as observations: subscriptions, decoding, and which topics are silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node

from vla_policy.interfaces import DataError
from vla_policy.nodes import common
from vla_policy.robot.contract import IMAGE_TYPES, Contract, Stream
from vla_policy.robot.messages import Reader, seconds
from vla_policy.runtime import ObservationBuffer, Watchdog

TOGETHER = "an observation of all streams"


def listen(node: Node, reader: Reader, on_message: Callable[[str, Any], None]) -> list[Any]:
    """Subscriptions to the topics of a reader, calling `on_message(topic, message)`."""
    return [
        node.create_subscription(
            common.message_class(kind),
            topic,
            partial(on_message, topic),
            common.IMAGE_QOS if kind in IMAGE_TYPES else common.STATE_QOS,
        )
        for topic, kind in reader.topics.items()
    ]


class Perception:
    """Fills `buffer` from the topics of `keys` and calls `on_sample` after every accepted sample."""

    def __init__(self, node: Node, contract: Contract, keys: Iterable[str], on_sample: Callable[[], None]) -> None:
        self._node, self._on_sample = node, on_sample
        streams = [contract.stream(key) for key in keys]
        timeouts = contract.timeouts
        self.buffer = ObservationBuffer([stream.key for stream in streams], timeouts.slop, timeouts.max_age)
        self._reader = Reader(streams)
        self._keys = {source.topic: stream.key for stream in streams for source in stream.sources}
        self._joined = {stream.key: _joined_name(stream) for stream in streams if len(stream.sources) > 1}
        silences = {topic: contract.silences[topic] for topic in self._reader.topics}
        together = dict.fromkeys([*self._joined.values(), TOGETHER], timeouts.camera)
        self._watchdog = Watchdog({**silences, **together})
        self._apart = ""
        self._bad: dict[str, str] = {}
        self._subscriptions = listen(node, self._reader, self._on_message)

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def problem(self) -> str:
        """Why there is no observation now, "" if there is one.

        A message that does not match the contract, topics that are silent or refused, or streams that do not align.
        """
        silent = self._watchdog.check(common.steady())
        if self._bad:
            return next(iter(self._bad.values()))
        apart = silent.pop(TOGETHER, None) is not None
        if not silent:
            return self._apart if apart else ""
        return ", ".join(self._silence(topic, age) for topic, age in silent.items())

    def _silence(self, topic: str, age: float) -> str:
        if topic in self._joined.values():
            return f"no {topic} since {age:.1f} s"
        what = "picture" if self._reader.topics[topic] in IMAGE_TYPES else "message"
        since = "yet" if math.isinf(age) else f"since {age:.1f} s"
        if refusal := self.buffer.refusals[self._keys[topic]]:
            return f"no valid {what} from {topic} {since}: they are {refusal}"
        return f"no {what} from {topic} {since}{self._other_types(topic)}"

    def _other_types(self, topic: str) -> str:
        """Publishers of the topic with another message type, which the subscription does not match."""
        publishers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
        expected = self._reader.topics[topic]
        found = sorted({publisher.topic_type for publisher in publishers} - {expected})
        return f" (expected {expected}, found {', '.join(found)})" if found else ""

    def _on_message(self, topic: str, message: Any) -> None:
        try:
            samples = self._reader.read(topic, message, seconds(message.header.stamp))
        except DataError as error:
            if topic not in self._bad:
                self._node.get_logger().error(str(error))
            self._bad[topic] = str(error)
            return
        self._bad.pop(topic, None)
        now = common.now(self._node)
        for sample in samples:
            if sample.revises:
                self.buffer.revise(sample.key, sample.value, sample.stamp)
        fresh = [sample for sample in samples if not sample.revises]
        taken = [sample for sample in fresh if self.buffer.put(sample.key, sample.value, sample.stamp, now)]
        if len(taken) == len(fresh):  # also of a part that waits for the others
            self._watchdog.feed(topic, common.steady())
        for sample in taken:
            if sample.key in self._joined:
                self._watchdog.feed(self._joined[sample.key], common.steady())
        if taken:
            if apart := self.buffer.apart(now):
                self._apart = apart
            else:
                self._watchdog.feed(TOGETHER, common.steady())
            self._on_sample()


def _joined_name(stream: Stream) -> str:
    """The name of a stream whose parts arrive, but more than `slop` apart."""
    return f"{stream.key} ({' and '.join(source.topic for source in stream.sources)} within {stream.slop:g} s)"
