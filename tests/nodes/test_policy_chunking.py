"""A slow policy in its node: its chunks continue what the gate plays, by the delay that was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from helpers.continuing import DT, Continuing
from helpers.ros import Spinning, activate, image_message, own_domain, pose_message, spinning, wait_for
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import STATE, ActionChunk, Branches, Given, Observation
from vla_policy.nodes import common, policy_node
from vla_policy.robot.contract import load_contract
from vla_policy.robot.messages import seconds

pytestmark = pytest.mark.dds
ROWS, SLOW = 40, 0.25


class Slow(Continuing):
    """Takes two and a half control periods; its warm-up takes much longer. Every chunk has rows of its own."""

    interface, n_obs_steps, n_action_steps, unchecked = load_contract("pusht_sim").interface, 1, 2, ""

    def rows(self, history: Sequence[Observation], generator: np.random.Generator) -> np.ndarray:
        warming = history[-1].t == 0.0
        time.sleep(20 * SLOW if warming else SLOW)
        return 0.4 + 0.1 * generator.random((ROWS, 2))

    def unreadable(self, instruction: str) -> str:
        return ""


class Branching(Slow):
    """Its chunks are for the robot where it is, or for one elsewhere; those would be a metre off."""

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        found: list[ActionChunk] = []
        for chunk in super().predict(histories, generator, given):
            candidates = np.stack([chunk.actions + 1, chunk.actions])
            expected, scale = {STATE: np.array([[[1.45, 1.0]] * 2, [[0.45, 0.0]] * 2])}, {STATE: np.ones((2, 2))}
            found.append(
                Branches(candidates[0], chunk.t_obs, chunk.dt, candidates=candidates, expected=expected, scale=scale)
            )
        return found


class Robot(Spinning):
    """Sees every control period, and keeps the chunks that it is sent."""

    def __init__(self) -> None:
        super().__init__("robot")
        self.chunks: list[tuple[float, np.ndarray]] = []
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._pose = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self.gate = self.create_publisher(UInt64, "command_gate/engagement", common.LATCHED_QOS)
        self.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, 50)
        self._ticker = common.Ticker(DT, self._live)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _on_chunk(self, message: JointTrajectory) -> None:
        rows = np.array([point.positions for point in message.points])
        self.chunks.append((seconds(message.header.stamp), rows))

    def _live(self) -> None:
        now = time.time()
        self._pose.publish(pose_message(np.array([0.45, 0.0]), now))
        self._image.publish(image_message(np.zeros((96, 96, 3), np.uint8), now))


@contextmanager
def running(policy: Slow, monkeypatch: pytest.MonkeyPatch, *parameters: str) -> Iterator[tuple]:
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: policy)
    with own_domain(2), spinning(policy_node.PolicyNode, *parameters) as node, closing(Robot()) as robot:
        activate(node)
        yield node, robot


def test_who_would_wait_longer_than_the_gate_does_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: Slow())
    monkeypatch.setattr(policy_node, "WARMUP", 1)
    with own_domain(2), spinning(policy_node.PolicyNode, "chunking:=wait") as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "expected another one than wait for chunks that take 5 s" in node.error


def test_a_chunk_continues_the_one_that_is_played_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Slow()
    monkeypatch.setattr(policy_node, "WARMUP", 1)
    with running(policy, monkeypatch, "chunking:=rtc") as (node, robot):
        wait_for(lambda: len(robot.chunks) > 5, "chunks")
        delay, chunks = node.values()["delay_periods"], list(robot.chunks)
        given = policy.given[1:]  # without that of the warm-up
    assert 2 <= delay < 50  # a busy computer makes it longer; that of the warm-up, 50, does not count
    assert given[0] is None
    assert all(entry is not None and entry.frozen >= 2 for entry in given[1:])
    for (before, old), (after, new), entry in zip(chunks, chunks[1:], given[1:], strict=False):
        k, part = divmod((after - before) / DT, 1)  # cameras are not exactly a period apart
        rows = (1 - part) * old[int(k) : -1] + part * old[int(k) + 1 :]
        assert entry is not None
        np.testing.assert_allclose(new[: entry.frozen], rows[: entry.frozen], atol=1e-3)


def test_the_branch_for_what_is_seen_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_node, "WARMUP", 1)
    with running(Branching(), monkeypatch, "chunking:=rtc") as (_, robot):
        wait_for(lambda: len(robot.chunks) > 3, "chunks")
    assert all(rows.max() < 1 for _, rows in robot.chunks)


def test_a_new_engagement_begins_anew_also_when_the_end_of_the_last_one_was_not_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Slow()
    monkeypatch.setattr(policy_node, "WARMUP", 1)
    with running(policy, monkeypatch, "chunking:=rtc") as (_, robot):
        for number in (1, 2):
            seen = len(policy.given)
            robot.gate.publish(UInt64(data=number))
            wait_for(lambda seen=seen: None in policy.given[seen:], f"a free chunk for engagement {number}")
            wait_for(lambda: policy.given[-1] is not None, "one that continues it")
        seen = len(policy.given)
        robot.gate.publish(UInt64(data=2))  # as DDS does after an interruption
        wait_for(lambda: len(policy.given) > seen + 3, "chunks")
        assert None not in policy.given[seen:]
