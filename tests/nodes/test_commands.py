"""Actions in the messages of each kind of controller, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk, InputError
from vla_policy.nodes.chunks import chunk_message
from vla_policy.nodes.commands import encode, standstill
from vla_policy.robot.contract import ARRAY, TRAJECTORY, TWIST, load_contract
from vla_policy.robot.messages import away_from_constants, chunk_of, decode_command, seconds
from vla_policy.runtime import Gate, GateConfig, Limits

POSE = load_contract("pusht_sim").command.outputs[0]
STILL = np.zeros(2)
ACTION, HERE, T, PERIOD = np.array([0.4, -0.1]), np.array([0.38, -0.1]), 12.5, 0.1


def test_poses_have_the_action_the_constants_and_the_frame() -> None:
    message = encode(POSE, ACTION, STILL, HERE, T, PERIOD)
    p, q = message.pose.position, message.pose.orientation
    assert (p.x, p.y, p.z, q.x, q.w) == (0.4, -0.1, 0.004, 1.0, 0.0)
    assert message.header.frame_id == "base_link"
    assert seconds(message.header.stamp) == T
    np.testing.assert_allclose(decode_command(message, POSE), ACTION, atol=1e-7)


def test_a_pose_away_from_what_would_be_commanded_is_named() -> None:
    message = encode(POSE, ACTION, STILL, HERE, T, PERIOD)
    assert away_from_constants(message, POSE) == ""
    message.pose.orientation.x = -1.0  # the same orientation
    assert away_from_constants(message, POSE) == ""
    message.pose.position.z = 0.4
    assert "z: expected 0.004, found 0.4" in away_from_constants(message, POSE)
    message.pose.orientation.x, message.pose.orientation.w = 0.7, 0.7
    assert "qw: expected 0, found 0.7" in away_from_constants(message, POSE)


def test_a_pose_that_follows_may_be_a_little_off_its_constants_but_not_no_number() -> None:
    message = encode(POSE, ACTION, STILL, HERE, T, PERIOD)
    message.pose.position.z = 0.02  # it hangs, or moves
    assert away_from_constants(message, POSE) != ""
    assert away_from_constants(message, POSE, following=True) == ""
    message.pose.position.z = 0.03
    assert "z: expected 0.004, found 0.03" in away_from_constants(message, POSE, following=True)
    message.pose.position.z = float("nan")
    assert "z: expected 0.004, found nan" in away_from_constants(message, POSE, following=True)


def test_trajectories_begin_now_name_all_joints_pass_the_action_and_end_at_rest() -> None:
    spec = replace(POSE, type=TRAJECTORY, fields=("elbow", "wrist"), acceleration=np.array([2.0, 4.0]))
    message = encode(spec, ACTION, np.array([0.4, 0.2]), HERE, T, PERIOD)
    assert message.joint_names == ["elbow", "wrist"]
    assert seconds(message.header.stamp) == 0.0
    through, end = message.points
    assert list(through.positions) == ACTION.tolist()
    assert list(through.velocities) == [0.4, 0.2]
    assert seconds(through.time_from_start) == pytest.approx(0.06)  # more than one period of commands ahead
    np.testing.assert_allclose(end.positions, [0.44, -0.08])  # v^2 / 2 a of the joint that takes longest
    assert list(end.velocities) == [0.0, 0.0]
    assert seconds(end.time_from_start) == pytest.approx(0.26)


def test_the_end_of_a_trajectory_is_in_the_box_and_that_of_an_arm_at_rest_where_it_is() -> None:
    spec = replace(POSE, type=TRAJECTORY, fields=("elbow", "wrist"), acceleration=np.array([2.0, 4.0]))
    edge = spec.high - 0.01
    assert list(encode(spec, edge, np.array([0.4, 0.2]), HERE, T, PERIOD).points[1].positions) == spec.high.tolist()
    assert list(encode(spec, ACTION, STILL, HERE, T, PERIOD).points[1].positions) == ACTION.tolist()


class SplineArm:
    """A joint as joint_trajectory_controller leads it: every message replaces the trajectory, which begins at the
    desired state of that moment and passes its points on cubic splines.
    """

    def __init__(self, last_only: bool) -> None:
        self.last_only = last_only  # some drivers look at the last point alone
        self.path, self.end, self.rest = None, 0.0, 0.0

    def state(self, t: float) -> tuple[float, float]:
        """Desired position and velocity."""
        if self.path is None or t >= self.end:
            return self.rest, 0.0
        position, velocity = self.path(t), self.path(t, 1)
        return float(position), float(velocity)

    def take(self, message: JointTrajectory, t: float) -> None:
        points = message.points[-1:] if self.last_only else message.points
        assert points[-1].velocities[0] == 0  # or it is refused
        position, velocity = self.state(t)
        times = [t, *(t + seconds(point.time_from_start) for point in points)]
        positions = [position, *(point.positions[0] for point in points)]
        velocities = [velocity, *(point.velocities[0] for point in points)]
        self.path = CubicHermiteSpline(times, positions, velocities)
        self.end, self.rest = times[-1], positions[-1]


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("late", [0.0, 0.004])
@pytest.mark.parametrize("hand", [False, True])
def test_an_arm_that_interpolates_by_splines_does_not_ripple(last_only: bool, late: float, hand: bool) -> None:
    """A ramp, a constant velocity and a stop, led by a policy at 30 Hz or a hand at 50 Hz."""
    rate, speed, most = 50.0, 0.4, 4.0
    spec = replace(POSE, type=TRAJECTORY, rate=rate, fields=("j", "k"), low=np.full(2, -2.0), high=np.full(2, 2.0))
    spec = replace(spec, speed=np.full(2, 0.5), acceleration=np.full(2, most))
    gate = Gate(GateConfig(rate, Limits(spec.low, spec.high, spec.speed / rate, spec.acceleration / rate**2), {}))
    arm, rng, arrivals = SplineArm(last_only), np.random.default_rng(0), []
    gate.measure(np.zeros(2), 0.0)
    gate.enable(1000.0, 0.0)
    for k in range(1, 150):
        t = k / rate
        gate.measure(np.zeros(2), t)
        if t > 2.0:
            gate.supervisor.hold("stop")
        elif hand:
            gate.teleoperate(np.full(2, speed * t), t)
        elif k % 10 == 1:
            rows = np.tile(speed * (t + np.arange(30) / 30)[:, None], 2)
            gate.offer(ActionChunk(rows, 1000.0 + t, 1 / 30), 1000.0 + t)
        command = gate.tick(1000.0 + t, t)
        message = encode(spec, command.action, gate.velocity, HERE, t, PERIOD)
        arrivals.append((t + rng.uniform(0.0, 1.0) * late, message))
    velocities, dt = [], 2e-3
    for k in range(round(3.0 / dt)):
        velocities.append(arm.state(k * dt)[1])
        while arrivals and arrivals[0][0] <= (k + 1) * dt:
            at, message = arrivals.pop(0)
            arm.take(message, at)
    acceleration = np.diff(velocities) / dt
    cruise = np.array(velocities[round(1.0 / dt) : round(1.9 / dt)])
    assert np.abs(acceleration).max() < 2 * most
    assert np.abs(cruise - speed).max() < 0.1 * speed
    assert cruise.mean() == pytest.approx(speed, rel=0.03)
    assert min(velocities) > -0.02  # it stops without a step back
    assert abs(velocities[-1]) < 1e-9


def test_arrays_have_the_channels_in_order() -> None:
    spec = replace(POSE, type=ARRAY)
    message = encode(spec, ACTION, STILL, HERE, T, PERIOD)
    assert list(message.data) == [0.4, -0.1]
    np.testing.assert_allclose(decode_command(message, spec), ACTION, atol=1e-7)
    message.data = [1.0]
    with pytest.raises(InputError, match="expected 2 numbers, found 1"):
        decode_command(message, spec)


def test_twists_reach_the_target_in_a_period_within_the_speed_limit() -> None:
    spec = replace(POSE, type=TWIST, speed=np.array([0.15, 0.15]))
    linear = encode(spec, ACTION, STILL, HERE, T, PERIOD).twist.linear
    assert (linear.x, linear.y, linear.z) == (0.15, 0.0, 0.0)  # 0.2 m/s would be needed
    linear = encode(spec, ACTION, STILL, ACTION, T, PERIOD).twist.linear
    assert (linear.x, linear.y) == (0.0, 0.0)
    linear = encode(spec, ACTION, np.array([0.1, -0.05]), None, T, PERIOD).twist.linear
    assert (linear.x, linear.y) == (0.1, -0.05)  # it brakes, wherever it was measured
    still = standstill(spec, T)
    assert seconds(still.header.stamp) == T
    assert (still.twist.linear.x, still.twist.linear.y) == (0.0, 0.0)
    assert standstill(POSE, T) is None


def test_chunks_survive_their_message_and_odd_ones_are_refused() -> None:
    chunk = ActionChunk(np.random.default_rng(0).random((15, 2)), 1_700_000_000.25, 0.1)
    back = chunk_of(chunk_message(chunk, ("x", "y"), "base_link"), ("x", "y"))
    np.testing.assert_array_equal(back.actions, chunk.actions)
    assert back.t_obs == pytest.approx(chunk.t_obs, rel=0, abs=1e-6)
    assert back.dt == pytest.approx(0.1)
    message = chunk_message(chunk, ("x", "y"), "base_link")
    message.points[3].time_from_start.sec = 5
    with pytest.raises(InputError, match="expected rows at even times"):
        chunk_of(message, ("x", "y"))
    with pytest.raises(InputError, match=r"expected the channels \['x', 'z'\]"):
        chunk_of(chunk_message(chunk, ("x", "y"), "base_link"), ("x", "z"))
