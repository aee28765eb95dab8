"""Checks a contract against the running graph with a node that only subscribes."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from vla_policy.nodes import common
from vla_policy.robot.contract import IMAGE_TYPES, Contract
from vla_policy.robot.contract.findings import OK, WRONG, Finding
from vla_policy.robot.contract_check import ReceivedTopic, check_observations
from vla_policy.robot.messages import Reader

DISCOVERY = 2.0  # seconds until all endpoints are discovered
RECEIVING = 3.0  # seconds


def check_graph(contract: Contract, seconds: float = RECEIVING) -> list[Finding]:
    """Findings on topics, rates, joints, publishers and subscribers after receiving for `seconds`."""
    rclpy.init()
    try:
        node = Node("contract_check")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        _spin(executor, DISCOVERY)
        received = {topic.lstrip("/"): ReceivedTopic(tuple(kinds)) for topic, kinds in node.get_topic_names_and_types()}
        for topic, kind in Reader(contract.streams).topics.items():
            qos = common.IMAGE_QOS if kind in IMAGE_TYPES else common.STATE_QOS
            name = node.resolve_topic_name(topic).lstrip("/")
            received.setdefault(topic.lstrip("/"), received.get(name, ReceivedTopic()))
            on_message = partial(_keep, node, received[topic.lstrip("/")])
            node.create_subscription(common.message_class(kind), topic, on_message, qos)
        _spin(executor, seconds)
        return [
            *check_observations(contract, received, live=True),
            *_of_publishers(node, contract),
            *_of_commands(node, contract),
        ]
    finally:
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)


def _keep(node: Node, received: ReceivedTopic, message: Any) -> None:
    received.add(common.now(node), message)


def _of_publishers(node: Node, contract: Contract) -> list[Finding]:
    """Topics with more publishers than the gate accepts."""
    found = []
    topics = [source.topic for stream in contract.streams for source in stream.sources]
    for topic in dict.fromkeys(topics):
        count, most = node.count_publishers(node.resolve_topic_name(topic)), topics.count(topic)
        if count > most:
            text = f"expected {most} publisher{'s' if most > 1 else ''}, found {count}"
            found.append(Finding(WRONG, f"{topic}: {text}"))
    return found


def _of_commands(node: Node, contract: Contract) -> list[Finding]:
    found = []
    for output in contract.command.outputs:
        name = node.resolve_topic_name(output.topic)
        others = [info.node_name for info in node.get_publishers_info_by_topic(name)]
        subscribers = node.get_subscriptions_info_by_topic(name)
        kinds = sorted({info.topic_type for info in subscribers})
        if not subscribers:
            found.append(
                Finding(
                    WRONG, f"{output.topic}: expected a subscriber of commands, found none: is the controller active?"
                )
            )
        elif kinds != [output.type]:
            found.append(Finding(WRONG, f"{output.topic}: expected {output.type}, its subscribers expect {kinds}"))
        else:
            names = sorted({info.node_name for info in subscribers})
            found.append(Finding(OK, f"{output.topic}: {' and '.join(names)} would follow the commands"))
        if others:
            found.append(Finding(WRONG, f"{output.topic}: expected no other publisher of commands, found {others}"))
    return found
