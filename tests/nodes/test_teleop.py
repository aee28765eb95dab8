"""Teleoperation as a process: a gamepad leads, lets go, stops."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.ros import FakeRobot, Targets, own_domain, wait_for
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from vla_policy.graph.processes import Processes
from vla_policy.nodes import common

pytestmark = pytest.mark.dds
DEADMAN, STOP, RESUME = 4, 1, 7


def test_a_gamepad_leads_while_the_deadman_is_held(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot:
        processes.start("teleop", contract="pusht_sim", scale=0.2)
        targets = Targets(robot)
        hands, stops, enabled = [False], [], []
        refusal = ""

        def enable(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            enabled.append(request.data)
            response.success, response.message = not (request.data and refusal), refusal
            return response

        robot.create_service(SetBool, "command_gate/enable", enable)
        robot.create_subscription(Bool, "teleop/intervention", lambda m: hands.append(m.data), 50)
        robot.create_subscription(Bool, "teleop/emergency_stop", lambda m: stops.append(m.data), 50)
        joy = robot.create_publisher(Joy, "joy", common.STATE_QOS)
        wait_for(lambda: len(hands) > 1 and joy.get_subscription_count(), "the teleoperation")

        def press(*buttons: int) -> None:
            joy.publish(Joy(axes=[-1.0, 1.0], buttons=[int(k in buttons) for k in range(8)]))

        press()
        wait_for(lambda: len(hands) > 20, "time to go by")
        assert targets.positions == []  # the stick is pushed, the deadman is not held

        def lead() -> bool:
            press(DEADMAN)
            return len(targets.positions) > 30

        wait_for(lead, "targets")
        assert hands[-1]
        moved = np.array(targets.positions[:30])
        np.testing.assert_allclose(moved[0], [0.45, 0.0], atol=0.02)  # from where the arm is
        assert (np.diff(moved[:, 0]) > 0).any()
        targets.require_slow(0.2 * 1.5 / 50, robot.pose)
        wait_for(lambda: not hands[-1], "the hand to let go")

        assert stops  # a heartbeat
        assert not any(stops)
        press(STOP)
        press()
        wait_for(lambda: stops[-20:] == 20 * [True], "the emergency stop, which stays")
        press(RESUME)
        wait_for(lambda: enabled == [False], "the fault to be acknowledged")
        wait_for(lambda: not stops[-1], "the emergency stop to be taken back")
        press()
        press(RESUME)
        wait_for(lambda: enabled == [False, True], "the arm to be enabled, by pressing once more")
        time.sleep(0.5)
        assert enabled == [False, True]

        refusal = "cannot enable: surprise_monitor/stop says stop"
        press()
        press(RESUME)
        wait_for(lambda: enabled[2:] == [True, False], "the reason to be acknowledged")
        wait_for(
            lambda: f"{refusal}; disabled, resume once more" in (tmp_path / "teleop.log").read_text(), "the reason"
        )
