"""Actions in the messages of each kind of controller, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from vla_policy.contract import ARRAY, TRAJECTORY, TWIST, load_contract
from vla_policy.interfaces import ActionChunk, InputError
from vla_policy.messages import away_from_constants, decode_command, seconds
from vla_policy.nodes.chunks import chunk_message, chunk_of
from vla_policy.nodes.commands import encode, standstill

POSE = load_contract("pusht_sim").command.outputs[0]
ACTION, HERE, T, PERIOD = np.array([0.4, -0.1]), np.array([0.38, -0.1]), 12.5, 0.1


def test_poses_have_the_action_the_constants_and_the_frame() -> None:
    message = encode(POSE, ACTION, HERE, T, PERIOD)
    p, q = message.pose.position, message.pose.orientation
    assert (p.x, p.y, p.z, q.x, q.w) == (0.4, -0.1, 0.004, 1.0, 0.0)
    assert message.header.frame_id == "base_link"
    assert seconds(message.header.stamp) == T
    np.testing.assert_allclose(decode_command(message, POSE), ACTION, atol=1e-7)


def test_a_pose_away_from_what_would_be_commanded_is_named() -> None:
    message = encode(POSE, ACTION, HERE, T, PERIOD)
    assert away_from_constants(message, POSE) == ""
    message.pose.orientation.x = -1.0  # the same orientation
    assert away_from_constants(message, POSE) == ""
    message.pose.position.z = 0.4
    assert "z: expected 0.004, found 0.4" in away_from_constants(message, POSE)
    message.pose.orientation.x, message.pose.orientation.w = 0.7, 0.7
    assert "qw: expected 0, found 0.7" in away_from_constants(message, POSE)


def test_trajectories_begin_now_name_all_joints_and_end_at_rest() -> None:
    spec = replace(POSE, type=TRAJECTORY, fields=("elbow", "wrist"))
    message = encode(spec, ACTION, HERE, T, PERIOD)
    assert message.joint_names == ["elbow", "wrist"]
    assert seconds(message.header.stamp) == 0.0
    (point,) = message.points
    assert list(point.velocities) == [0.0, 0.0]
    assert seconds(point.time_from_start) == pytest.approx(0.04)  # more than one period of commands ahead
    np.testing.assert_allclose(decode_command(message, spec), ACTION, atol=1e-7)


def test_arrays_have_the_channels_in_order() -> None:
    spec = replace(POSE, type=ARRAY)
    message = encode(spec, ACTION, HERE, T, PERIOD)
    assert list(message.data) == [0.4, -0.1]
    np.testing.assert_allclose(decode_command(message, spec), ACTION, atol=1e-7)
    message.data = [1.0]
    with pytest.raises(InputError, match="expected 2 numbers, found 1"):
        decode_command(message, spec)


def test_twists_reach_the_target_in_a_period_within_the_speed_limit() -> None:
    spec = replace(POSE, type=TWIST, speed=np.array([0.15, 0.15]))
    linear = encode(spec, ACTION, HERE, T, PERIOD).twist.linear
    assert (linear.x, linear.y, linear.z) == (0.15, 0.0, 0.0)  # 0.2 m/s would be needed
    linear = encode(spec, ACTION, ACTION, T, PERIOD).twist.linear
    assert (linear.x, linear.y) == (0.0, 0.0)
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
