"""A simulated robot is driven by the same gate as a real one, on a clock that counts control periods."""

from __future__ import annotations

import numpy as np
import pytest

from sim import make_env
from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from vla_policy.interfaces import ACTION, STATE, ActionChunk, Feature, InputError, Interface
from vla_policy.robot.contract import load_contract
from vla_policy.rollouts.control import ControlLoop, drive_of
from vla_policy.runtime import Command, Gate, GateConfig, Limits, gate_config

DT = 0.1
INTERFACE = Interface({STATE: Feature("float32", (2,))}, Feature("float32", (2,)), fps=1 / DT)
BOX = Limits(np.zeros(2), np.ones(2))


def loop(limits: Limits = BOX, n_action_steps: int = 4, rate: float = 50.0) -> ControlLoop:
    drive = GateConfig(rate, limits, heartbeats={}, state_timeout=0.3)
    return ControlLoop(INTERFACE, 2, n_action_steps, drive)


def observe(arm: ControlLoop, x: float = 0.5, y: float = 0.5) -> None:
    pose = np.array([x, y], np.float32)
    arm.observe({STATE: pose}, "push", pose)


def chunk(t_obs: float, first: float = 0.0, steps: int = 8) -> ActionChunk:
    """Row k is (first + k / 100, first + k / 100)."""
    return ActionChunk(np.repeat(first + np.arange(steps)[:, None] / 100, 2, axis=1), t_obs, DT)


@pytest.mark.parametrize("rate", [10.0, 50.0])
def test_the_policy_is_asked_after_n_action_steps_and_its_rows_are_sent_as_they_are(rate: float) -> None:
    arm, asked, sent = loop(rate=rate), [], []
    for step in range(10):
        observe(arm)
        window = arm.ask()
        if window is not None:
            asked.append(step)
            assert arm.offer(chunk(window[-1].t, first=step / 10))
        sent.append(arm.command().action[0])
    assert asked == [0, 4, 8]
    np.testing.assert_array_equal(sent, [0, 0.01, 0.02, 0.03, 0.4, 0.4 + 0.01, 0.4 + 0.02, 0.4 + 0.03, 0.8, 0.8 + 0.01])


def test_a_late_chunk_is_bridged_by_the_rows_that_are_left_then_the_arm_holds_at_its_last_command() -> None:
    arm, commands = loop(), []
    for step in range(11):
        observe(arm, x=0.5 + step / 100)  # the arm sags while it holds
        window = arm.ask()
        if step == 0 and window is not None:
            assert arm.offer(chunk(window[-1].t))
        commands.append(arm.command())
    assert [command.status for command in commands] == ["ok"] * 8 + ["hold"] * 3
    np.testing.assert_allclose([command.action[0] for command in commands[8:]], 0.07, atol=1e-6)


def test_steps_are_limited_from_the_measured_pose_on() -> None:
    arm = loop(Limits(np.zeros(2), np.ones(2), max_step=np.array([0.02, 0.02])))  # 0.1 in a control period
    commands = []
    for _ in range(3):
        observe(arm)
        window = arm.ask()
        if window is not None:
            arm.offer(ActionChunk(np.array([[0.9, 0.5], [0.9, 0.5], [0.65, 0.5], [0.5, 0.5]]), window[-1].t, DT))
        commands.append(arm.command())
    assert [command.status for command in commands] == ["clipped", "clipped", "ok"]
    np.testing.assert_allclose([command.action[0] for command in commands], [0.6, 0.7, 0.65])


def test_a_chunk_of_nan_holds_the_arm_for_the_rest_of_the_episode() -> None:
    arm, asked = loop(), 0
    for _ in range(8):
        observe(arm)
        window = arm.ask()
        if window is not None:
            asked += 1
            assert not arm.offer(ActionChunk(np.full((8, 2), np.nan), window[-1].t, DT))
        command = arm.command()
        assert command.status == "hold"
        np.testing.assert_allclose(command.action, 0.5)
    assert asked == 1
    assert "not finite" in command.reason


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"observation\.state.*missing"):
        loop().observe({ACTION: np.zeros(2)}, "push", np.zeros(2))
    with pytest.raises(InputError, match="finite"):
        observe(loop(), x=np.nan)
    with pytest.raises(InputError, match="limits: expected shape"):
        loop(Limits(np.zeros(3), np.ones(3)))
    with pytest.raises(InputError, match="expected a multiple of 10 Hz, found 25 Hz"):
        loop(rate=25.0)


def test_the_simulation_is_driven_within_the_limits_of_the_contract_that_it_serves() -> None:
    contract = load_contract("pusht_sim")
    env = make_env("pybullet", ())
    drive = drive_of(env)
    env.close()
    served = gate_config(contract, ["policy/stop"], dry_run=False)
    assert drive.rate == served.rate == 50
    for name in ("low", "high", "max_step", "max_change"):
        np.testing.assert_array_equal(getattr(drive.limits, name), getattr(served.limits, name))
    np.testing.assert_allclose([drive.limits.low, drive.limits.high], [WORKSPACE_LOW, WORKSPACE_HIGH])


def test_evaluation_and_the_robots_gate_send_the_same_commands_for_the_same_chunk() -> None:
    """The gate of the ROS graph ticks on two clocks of its own; the world takes the last command of each period."""
    rng = np.random.default_rng(0)
    start, rows = np.array([0.45, 0.0]), rng.uniform([0.2, -0.25], [0.7, 0.25], (16, 2))  # also outside the box
    contract = load_contract("pusht_sim")
    gate, epoch = Gate(gate_config(contract, ["policy/stop"], dry_run=False)), 1.7e9
    on_robot: list[Command] = []
    gate.measure(start, 0.0)
    gate.heartbeat("policy/stop", False, 0.0)
    gate.enable(epoch, 0.0)
    assert gate.offer(ActionChunk(rows, epoch, DT), epoch)
    for tick in range(100):
        steady = tick * 0.02
        gate.measure(start, steady)
        gate.heartbeat("policy/stop", False, steady)
        command = gate.tick(epoch + steady, steady)
        assert command is not None
        if tick % 5 == 4:
            on_robot.append(command)
    env = make_env("pybullet", ())
    arm = ControlLoop(env.interface.select([STATE]), 2, 16, drive_of(env))
    env.close()
    simulated = []
    for _ in range(20):
        arm.observe({STATE: start}, "push", start)
        window = arm.ask()
        if not simulated and window is not None:
            arm.offer(ActionChunk(rows, window[-1].t, DT))
        simulated.append(arm.command())
    assert [command.status for command in simulated] == [command.status for command in on_robot]
    assert {command.status for command in simulated} == {"ok", "clipped", "hold"}
    np.testing.assert_allclose([c.action for c in simulated], [c.action for c in on_robot], atol=1e-9)
