"""Leading with the mouse: its events without a window, then the node with a window that nobody sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.ros import ROOT, FakeRobot, Targets, image_message, own_domain, spinning, wait_for
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from vla_policy.graph.processes import Processes
from vla_policy.nodes import common, pointer
from vla_policy.nodes.pointer import DOWN, HELD, UP, Pointer
from vla_policy.nodes.teleop_node import TeleopNode
from vla_policy.robot.contract import load_contract

pytestmark = pytest.mark.dds
MOVE = 0
POINTING = load_contract(ROOT / "config" / "pusht_sim.yaml").pointing
assert POINTING is not None
MIDDLE = (48 * 5, 35 * 5)  # of the table, on the screen


def test_a_place_is_pointed_at_only_while_the_button_is_held() -> None:
    mouse = Pointer(POINTING, (96, 96, 3))
    mouse.on_mouse(MOVE, *MIDDLE, 0)
    assert mouse.place is None
    mouse.on_mouse(DOWN, *MIDDLE, HELD)
    np.testing.assert_allclose(mouse.place, POINTING.place(np.array([48.1, 35.1])))  # the middle of a screen's pixel
    mouse.on_mouse(MOVE, 100, 200, HELD)
    np.testing.assert_allclose(mouse.place, POINTING.place(np.array([20.1, 40.1])))
    mouse.on_mouse(MOVE, -1, 200, HELD)
    assert mouse.place is None  # outside
    mouse.on_mouse(MOVE, 100, 480, HELD)
    assert mouse.place is None
    mouse.on_mouse(MOVE, 100, 200, HELD)
    assert mouse.place is not None
    mouse.on_mouse(UP, 100, 200, 0)
    assert mouse.place is None
    assert mouse.mark is None
    mouse.on_mouse(MOVE, *MIDDLE, HELD)  # pressed somewhere else and dragged in
    assert mouse.place is None


def test_a_release_outside_of_the_window_counts() -> None:
    mouse = Pointer(POINTING, (96, 96, 3))
    mouse.on_mouse(DOWN, *MIDDLE, HELD)
    mouse.on_mouse(MOVE, *MIDDLE, 0)
    assert mouse.place is None
    mouse.on_mouse(MOVE, *MIDDLE, HELD)
    assert mouse.place is None


def test_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    assert Pointer(POINTING, (96, 96, 3)).enlarged(np.zeros((96, 96, 3), np.uint8)).shape == (480, 480, 3)
    assert Pointer(POINTING, (480, 640, 3)).enlarged(np.zeros((480, 640, 3), np.uint8)).shape == (480, 640, 3)


class UnseenWindow:
    """Keeps what is shown; `mouse` is where its events go, `key` what is pressed next."""

    def __init__(self, title: str, on_mouse: Callable[[int, int, int, int], None]) -> None:
        self.mouse, self.key = on_mouse, ""
        self.shown: list[tuple[np.ndarray, tuple[int, int] | None]] = []
        self.closed = False

    def show(self, picture: np.ndarray, mark: tuple[int, int] | None) -> str | None:
        if self.closed:
            return None
        self.shown.append((picture, mark))
        key, self.key = self.key, ""
        return key

    def close(self) -> None:
        self.closed = True


@contextmanager
def teleoperation() -> Iterator[UnseenWindow]:
    """The node, spinning in this process, and its window."""
    windows: list[UnseenWindow] = []

    def opened(title: str, on_mouse: Callable[[int, int, int, int], None]) -> UnseenWindow:
        windows.append(UnseenWindow(title, on_mouse))
        return windows[-1]

    with spinning(lambda: TeleopNode(window=opened), "contract:=pusht_sim", "scale:=0.2", "keyboard:=false"):
        yield windows[0]
    assert windows[0].closed


def test_the_arm_is_led_to_where_the_mouse_points_while_there_are_pictures() -> None:
    with own_domain(1), teleoperation() as window, FakeRobot() as robot:
        targets = Targets(robot)
        hands, stops = [False], []
        robot.create_subscription(Bool, "teleop/intervention", lambda m: hands.append(m.data), 50)
        robot.create_subscription(Bool, "teleop/emergency_stop", lambda m: stops.append(m.data), 50)
        camera = robot.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        white = np.full((96, 96, 3), 255, np.uint8)
        pictures = common.Ticker(0.05, lambda: camera.publish(image_message(white, robot.now())))
        wait_for(lambda: window.shown and window.shown[-1][0].max() == 255, "a picture")
        wait_for(lambda: len(hands) > 10, "the teleoperation")
        assert targets.positions == []

        goal = POINTING.place(np.array([60.1, 60.1]))
        window.mouse(DOWN, 300, 300, HELD)

        def led() -> bool:
            if targets.positions:
                robot.pose = targets.positions[-1]  # a faithful arm
            return np.allclose(robot.pose, goal, atol=1e-4)

        wait_for(led, "the arm at the pointed place")
        assert hands[-1]
        assert window.shown[-1][1] == (300, 300)
        way = np.array(targets.positions)
        targets.require_slow(0.2 * 1.5 / 50)
        assert np.abs(way[0] - [0.45, 0.0]).max() < 0.02  # from where the arm is
        line = (goal - way[0]) / np.linalg.norm(goal - way[0])
        away = (way - way[0]) - np.outer((way - way[0]) @ line, line)
        assert np.abs(away).max() < 0.01  # straight

        window.mouse(UP, 300, 300, 0)
        wait_for(lambda: not hands[-1], "the hand to let go")
        window.mouse(DOWN, *MIDDLE, HELD)
        wait_for(lambda: hands[-1], "the hand again")
        pictures.close()  # nobody leads by an old picture
        wait_for(lambda: not hands[-1], "the hand to let go without pictures")
        window.key = " "
        wait_for(lambda: stops and stops[-1], "the emergency stop")


def test_a_window_that_is_closed_leads_no_more() -> None:
    with own_domain(1), teleoperation() as window, FakeRobot() as robot:
        hands = [False]
        robot.create_subscription(Bool, "teleop/intervention", lambda m: hands.append(m.data), 50)
        camera = robot.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        white = np.full((96, 96, 3), 255, np.uint8)
        pictures = common.Ticker(0.05, lambda: camera.publish(image_message(white, robot.now())))
        window.mouse(DOWN, *MIDDLE, HELD)
        wait_for(lambda: hands[-1], "the hand")
        window.close()  # with the button held: its release is nobody's
        wait_for(lambda: not hands[-1] and not any(hands[-50:]), "the hand to let go for good")
        pictures.close()


def test_without_a_display_the_node_warns_and_keeps_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot:
        processes.start("teleop", contract="pusht_sim")
        hands: list[bool] = []
        robot.create_subscription(Bool, "teleop/intervention", lambda m: hands.append(m.data), 50)
        wait_for(lambda: len(hands) > 5, "the teleoperation")
        assert processes.dead() == {}
    assert "no mouse: there is no display; gamepad and keyboard work without" in (tmp_path / "teleop.log").read_text()


def test_an_opencv_that_cannot_open_a_window_is_found_out_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4321")  # where no server is
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    assert pointer.obstacle().startswith("OpenCV opens no window")


@pytest.mark.skipif(bool(pointer.obstacle()), reason="no display")
def test_a_window_opens() -> None:
    window = pointer.OpenCVWindow("test", lambda *_: None)
    assert window.show(np.zeros((96, 96, 3), np.uint8), (40, 40)) == ""
    window.close()
