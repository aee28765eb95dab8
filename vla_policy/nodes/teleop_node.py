"""Teleoperation with a gamepad (`joy`), the keyboard or the mouse over a camera image."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from vla_policy.interfaces import DataError, InputError
from vla_policy.nodes import common, pointer
from vla_policy.nodes.hand import Hand
from vla_policy.nodes.pointer import Pointer
from vla_policy.robot.contract import load_contract
from vla_policy.robot.messages import decode
from vla_policy.runtime import HELD, TELEOP_SCALE, Gamepad, HeldKey

WINDOW_RATE = 25.0  # Hz
KEYS = {"w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1)}  # channel, direction


class TeleopNode(Node):
    """Leads the arm by an operator's `Hand`, at `scale` times the contract's speed. Gamepad: hold
    `deadman_button`, the `axes` move the channels. Keyboard: w s, a d and r f move the first three channels, each key
    is its own deadman; any other key releases. Mouse: while the left button is held over the image of the contract's
    `pointing` the target moves towards the point under the cursor; `window` opens the image's window. Button or key
    `stop` (space) is the emergency stop, latched on `~/emergency_stop`; `resume` (e) clears it and disables the gate,
    or enables the gate if no stop is set. A gate that refuses is disabled, which acknowledges a fault or an alarm, and
    the reason is logged: press resume once more.
    """

    def __init__(self, window: Callable[..., pointer.Window] = pointer.OpenCVWindow) -> None:
        super().__init__("teleop")
        self._contract = load_contract(common.parameter(self, "contract", "pusht_sim", "robot contract: name or file"))
        scale = common.parameter(self, "scale", TELEOP_SCALE, "part of the contract's speed limit", (0.0, 1.0))
        axes = common.parameter(self, "axes", [1, 0], "of the gamepad, one a channel")
        deadman = common.parameter(self, "deadman_button", 4, "held while the gamepad moves the arm", (0, 63))
        self._resume = common.parameter(self, "resume_button", 7, "enables the gate", (0, 63))
        self._stop = common.parameter(self, "stop_button", 1, "emergency stop", (0, 63))
        keyboard = common.parameter(self, "keyboard", sys.stdin.isatty(), "read keys from the terminal")
        mouse = common.parameter(self, "mouse", True, "a window with the camera's image, where there is a display")
        self._names = list(self._contract.interface.action.names)
        if len(axes) > len(self._names) or min(axes, default=0) < 0:
            raise InputError(f"teleop: axes: expected {len(self._names)} at most, from 0 on, found {list(axes)}")
        self._hand = Hand(self, self._contract, scale)
        self._gamepad, self._key = Gamepad(axes, deadman), HeldKey()
        self._pressed: set[int] = set()
        self._by_gamepad = self._stopped = False
        self._connect()
        self._keys = Keys(self._on_key) if keyboard else None
        self._window: pointer.Window | None = None
        if mouse:
            self._open(window)

    def close(self) -> None:
        if self._keys is not None:
            self._keys.close()
        if self._window is not None:
            self._window.close()

    def _open(self, window: Callable[..., pointer.Window]) -> None:
        """Open the window for the mouse, or log why there is none."""
        pointing = self._contract.pointing
        if pointing is None:
            self.get_logger().info("no mouse: the contract has no pointing")
            return
        reason = pointer.obstacle() if window is pointer.OpenCVWindow else ""
        if reason:
            self.get_logger().warning(f"no mouse: {reason}; gamepad and keyboard work without")
            return
        self._view = self._contract.stream(pointing.camera)
        self._image, self._seen = np.zeros(self._view.feature.shape, np.uint8), 0.0
        self._pointed = [self._names.index(name) for name in pointing.channels]
        self._pointer = Pointer(pointing, self._view.feature.shape)
        self._window = window("teleop: hold the left button to lead", self._pointer.on_mouse)
        source = self._view.source
        self.create_subscription(common.message_class(source.type), source.topic, self._on_image, common.IMAGE_QOS)
        self._window_timer = common.every(self, 1.0 / WINDOW_RATE, self._update_window)

    def _connect(self) -> None:
        self.create_subscription(Joy, "joy", self._on_joy, common.STATE_QOS)
        self._emergency = self.create_publisher(Bool, "teleop/emergency_stop", common.HEARTBEAT_QOS)
        self._enable = self.create_client(SetBool, "command_gate/enable")
        self._timer = common.every(self, 1.0 / self._contract.command.rate, self._beat)

    def _on_joy(self, message: Joy) -> None:
        pressed = {k for k, down in enumerate(message.buttons) if down}
        if self._stop in pressed - self._pressed:
            self._emergency_stop()
        if self._resume in pressed - self._pressed:
            self._resume_or_clear()
        self._pressed = pressed
        try:
            direction = self._gamepad.read(message.axes, message.buttons, common.steady())
        except DataError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            direction = None
        if direction is not None:
            self._lead(direction, HELD, by_gamepad=True)
        elif self._by_gamepad:
            self._hand.let_go()

    def _on_key(self, key: str) -> None:
        if key == " ":
            self._emergency_stop()
        elif key == "e":
            self._resume_or_clear()
        elif key in KEYS and KEYS[key][0] < len(self._names):
            channel, direction = KEYS[key]
            part, seconds = self._key.press(key, common.steady())
            self._lead(part * direction * np.eye(len(self._names))[channel], seconds)
        elif key:
            self._hand.let_go()

    def _on_image(self, message: Any) -> None:
        try:
            self._image, self._seen = decode(message, self._view), common.steady()
        except DataError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _update_window(self) -> None:
        """Show the image and handle the mouse; a stale image releases the deadman."""
        assert self._window is not None
        key = self._window.show(self._pointer.enlarged(self._image), self._pointer.mark)
        if key is None:
            self._hand.let_go()
            self._window_timer.cancel()
            self.get_logger().warning("no mouse: its window was closed")
            return
        self._on_key(key)
        place = self._pointer.place
        if place is not None and common.steady() < self._seen + self._contract.timeouts.camera:
            goal, self._by_gamepad = np.full(len(self._names), np.nan), False
            goal[self._pointed] = place
            self._hand.point(goal, HELD)
        elif self._hand.points:
            self._hand.let_go()

    def _lead(self, direction: np.ndarray, seconds: float, by_gamepad: bool = False) -> None:
        """Move in this direction (the first channels, -1 to 1) until the next input, for `seconds` at most."""
        self._by_gamepad = by_gamepad
        self._hand.push(direction, seconds)

    def _emergency_stop(self) -> None:
        self._stopped = True
        self._hand.let_go()
        self._emergency.publish(Bool(data=True))
        self.get_logger().warning("emergency stop")

    def _resume_or_clear(self) -> None:
        """Clear the emergency stop, which does not yet enable the gate; enable the gate if no stop is set."""
        future = self._enable.call_async(SetBool.Request(data=not self._stopped))
        if not self._stopped:
            future.add_done_callback(self._on_answer)
        else:
            self._stopped = False
            self.get_logger().warning("emergency stop cleared; resume once more to enable the arm")

    def _on_answer(self, future: Future) -> None:
        answer = future.result()
        if not answer.success:
            self.get_logger().warning(f"{answer.message}; disabled, resume once more")
            self._enable.call_async(SetBool.Request(data=False))

    def _beat(self) -> None:
        self._emergency.publish(Bool(data=self._stopped))


class Keys:
    """Calls `on_key` for every key pressed in the terminal."""

    def __init__(self, on_key: Callable[[str], None]) -> None:
        if not sys.stdin.isatty():
            raise InputError("teleop: keyboard: expected a terminal, found none")
        self._on_key, self._before = on_key, termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._ticker = common.Ticker(0.02, self._read)

    def close(self) -> None:
        self._ticker.close()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        while select.select([sys.stdin], [], [], 0)[0] and (keys := os.read(sys.stdin.fileno(), 64)):
            for key in keys.decode(errors="ignore"):
                self._on_key(key)


def main() -> None:
    common.run(TeleopNode)


if __name__ == "__main__":
    main()
