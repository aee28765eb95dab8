"""The live page beside the command gate, as processes, operated by a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from helpers.ros import Spinning, image_message, own_domain, pose_message
from helpers.web import TOKEN, browsers, chromium, kill, wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String

from vla_policy.graph.processes import Processes
from vla_policy.nodes import common
from vla_policy.web.security import TOKEN as TOKEN_VARIABLE

pytestmark = pytest.mark.dds
START = np.array([0.45, 0.0])


class Arm(Spinning):
    """Follows commands, with a camera; keeps what is said of it, with the time of arrival."""

    def __init__(self) -> None:
        super().__init__("arm")
        self.pose = START.copy()
        self.states: list[tuple[float, str]] = []
        self.targets: list[float] = []
        self.hands: list[bool] = []
        self.tasks: list[str] = []
        self._state = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self.create_subscription(PoseStamped, "/pusht_sim/target_pose", self._on_command, common.COMMAND_QOS)
        self.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS)
        self.create_subscription(JointState, "teleop/target", self._on_target, 50)
        self.create_subscription(Bool, "teleop/intervention", lambda m: self.hands.append(m.data), 50)
        self.create_subscription(String, "task", lambda m: self.tasks.append(m.data), common.LATCHED_QOS)
        self._ticker = common.Ticker(0.02, self._live)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    @property
    def gate(self) -> str:
        return self.states[-1][1] if self.states else ""

    def _live(self) -> None:
        now = time.time()
        self._state.publish(pose_message(self.pose, now))
        self._image.publish(image_message(np.full((96, 96, 3), 200, np.uint8), now))

    def _on_command(self, message: PoseStamped) -> None:
        self.pose = np.array([message.pose.position.x, message.pose.position.y])

    def _on_gate(self, message: String) -> None:
        self.states.append((time.monotonic(), message.data))

    def _on_target(self, message: JointState) -> None:
        self.targets.append(time.monotonic())


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page of a gate that runs, with control."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with own_domain(2), Processes(tmp_path) as processes:
        processes.start("command_gate", dry_run=False, heartbeats=[""])
        processes.start("web", control=True, port=0, scale=0.3)

        def address() -> Any:
            assert not processes.dead(), processes.last_words("web")
            return re.search(r"^open (\S+)$", (tmp_path / "web.log").read_text(), re.MULTILINE)

        wait_for(address, "the page", 60.0)
        assert TOKEN not in (tmp_path / "web.log").read_text()
        yield address()[1]


def test_a_second_page_does_not_start(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    with Processes(folder) as processes:  # in the domain of the first
        assert processes.start("web", port=0).wait(60) == 2
        said = processes.last_words("web")
        assert "web/emergency_stop: expected no other page of this graph, found" in said
        assert "Traceback" not in said


def test_the_page_leads_an_arm_and_stops_it(url: str) -> None:
    with chromium() as launch, Arm() as arm:
        page = launch().new_page()
        page.goto(f"{url}#token={TOKEN}")
        wait_for(lambda: arm.gate == "idle", "the gate")
        page.click("#lead:enabled")
        page.fill("#task:enabled", "push it away")
        page.press("#task", "Enter")
        wait_for(lambda: arm.tasks == ["push it away"], "the instruction")

        def enable() -> None:
            page.click("#enable:enabled")
            wait_for(lambda: arm.gate in ("armed", "running"), "the armed gate")

        def hold(part: float) -> None:
            """The mouse on the picture, at a part of its height."""
            page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + part * box["height"])
            page.mouse.down()

        def lead(done: Callable[[], Any]) -> bool:
            """Whether it is done; where a busy computer let go meanwhile the arm is enabled and led again."""
            if arm.gate.startswith("holding"):
                page.mouse.up()
                enable()
                hold(0.8)
            return bool(done())

        enable()
        box = page.locator("canvas.over").bounding_box()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"])
        assert not arm.targets
        hold(0.8)
        wait_for(lambda: lead(lambda: arm.pose[0] > START[0] + 0.02), "the arm to follow the mouse")
        assert abs(arm.pose[1]) < 0.02  # straight on, along x
        assert any(arm.hands)
        page.mouse.up()
        wait_for(lambda: not arm.hands[-1], "the hand to let go")
        wait_for(lambda: arm.gate == "holding: teleoperation ended", "the arm to hold")
        enable()

        pressed = time.monotonic()
        page.click("#stop")
        wait_for(lambda: arm.gate == "fault: emergency stop", "the stop")
        print(f"stop: {1e3 * (arm.states[-1][0] - pressed):.0f} ms from the test's click to the gate's fault")
        page.wait_for_selector("#stop:has-text('STOPPED')")
        where, interventions = arm.pose.copy(), sum(arm.hands)
        hold(0.3)
        time.sleep(0.3)
        page.mouse.up()
        assert sum(arm.hands) == interventions  # nor is an intervention recorded
        np.testing.assert_allclose(arm.pose, where, atol=1e-3)
        page.click("#clear:enabled")
        page.wait_for_selector("#clear", state="hidden")
        wait_for(lambda: arm.gate == "idle", "the disabled gate")
        enable()

        before = len(arm.targets)
        hold(0.3)
        wait_for(lambda: arm.hands[-1] and len(arm.targets) > before + 5, "the hand again")
        killed = kill(browsers())
        wait_for(lambda: not arm.hands[-1], "the hand to let go of a killed browser")
        print(f"killed: {1e3 * (arm.targets[-1] - killed):.0f} ms from the kill to the last target")
        wait_for(lambda: arm.gate == "holding: teleoperation ended", "the arm to hold")
