"""Time in bags: simulated, missing and unordered stamps, clocks of several computers, trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.ros_bags import (
    ARRAY,
    COMMANDS,
    EPOCH,
    FRONT,
    IMAGE,
    JOINT_STATE,
    JOINTS,
    STATES,
    TRAJECTORIES,
    TRAJECTORY_TOPIC,
    Message,
    contract_of,
    joint_messages,
    joints,
    numbers,
    picture,
    trajectory_message,
    write_mcap,
    write_rosbag,
)

from vla_policy.importers.bag_episode import BagEpisode, bag_episode
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError


def episode_of(folder: Path, messages: list[Message], contract: str = JOINTS) -> BagEpisode:
    return bag_episode(write_mcap(folder / "a.mcap", messages), contract_of(folder, contract))


@dataclass
class Seen:
    """Seconds since the first picture that pictures, states and actions tell."""

    pictures: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    @classmethod
    def of(cls, episode: BagEpisode) -> Seen:
        shown = np.array([frame[0, 0, 0] for frame in episode.images[IMAGES + "front"]])
        return cls(shown / 10, episode.columns[STATE][:, 0], episode.columns[ACTION][:, 0] - 100)


def check(episode: BagEpisode, frames: int) -> None:
    """State and picture are of one moment; the action is what was told last before the next one."""
    seen = Seen.of(episode)
    np.testing.assert_allclose(seen.pictures, np.arange(frames) / 10, atol=1e-6)
    np.testing.assert_allclose(seen.states, seen.pictures, atol=1e-6)
    np.testing.assert_allclose(seen.actions, seen.pictures + 0.09, atol=0.011)


@pytest.mark.parametrize("start", [0.0, 37.2])
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_simulated_stamps_and_receive_times_of_the_wall_clock(tmp_path: Path, start: float, rate: float) -> None:
    """Commands without stamps are put on the clock of the others, whatever the simulation's speed was."""
    messages = joint_messages(stamped=start)
    slow = [message._replace(t=EPOCH + (message.t - EPOCH) / rate) for message in messages]
    episode = episode_of(tmp_path, slow)
    check(episode, 20)
    assert episode.unstamped == {COMMANDS: 100}
    assert any(note.startswith("commands: receive times moved by -1") for note in episode.notes)


def test_a_recorder_on_simulated_time(tmp_path: Path) -> None:
    episode = episode_of(tmp_path, joint_messages(stamped=0.0, received=0.0))
    check(episode, 20)
    assert episode.notes == []


def test_without_stamps_receive_times_are_used_and_reported(tmp_path: Path) -> None:
    late = [
        m._replace(content=picture(0.0, k), t=m.t + 0.1)
        for k, m in enumerate(x for x in joint_messages() if x.topic == FRONT)
    ]
    messages = sorted([*(m for m in joint_messages() if m.topic != FRONT), *late], key=lambda m: m.t)
    episode = episode_of(tmp_path, messages)
    seen = Seen.of(episode)
    np.testing.assert_allclose(seen.states - seen.pictures, 0.1, atol=0.011)
    assert "front: receive times taken, no time stamps in 20 messages" in episode.summary()
    assert episode.about()["unstamped"] == {COMMANDS: 100, FRONT: 20}


def test_single_messages_without_stamps_among_others(tmp_path: Path) -> None:
    messages = [
        m._replace(content=joints(0.0, m.content.position)) if m.topic == STATES and 40 <= k < 46 else m
        for k, m in enumerate(joint_messages())
    ]
    episode = episode_of(tmp_path, messages)
    check(episode, 20)
    assert episode.unstamped[STATES] == 3


def test_clocks_that_do_not_meet_are_named(tmp_path: Path) -> None:
    messages = [
        m._replace(content=picture(5.0 + k, k)) if m.topic == FRONT else m for k, m in enumerate(joint_messages())
    ]
    expected = (
        r"expected 2 frames or more seen by every stream, found 0: "
        r"joint_states 1700000000\.000 to 1700000001\.980 s \(time stamps\), "
        r"front 7\.000 to \d+\.000 s \(time stamps\), commands .* \(receive times\)"
    )
    with pytest.raises(InputError, match=expected):
        episode_of(tmp_path, messages)


def test_commands_of_an_earlier_clock_are_no_commands(tmp_path: Path) -> None:
    told = [
        trajectory_message(m.t, {0.02: m.content.data}, stamp=5.0 + k / 50)
        for k, m in enumerate(x for x in joint_messages() if x.topic == COMMANDS)
    ]
    expected = r"expected commands while every stream is seen, .*, trajectory 5\.000 to 6\.980 s \(time stamps\)"
    with pytest.raises(InputError, match=expected):
        episode_of(tmp_path, sorted([*joint_messages(commands=False), *told], key=lambda m: m.t), TRAJECTORIES)


def test_an_arm_that_is_led_by_hand_after_its_last_command_has_no_actions(tmp_path: Path) -> None:
    messages = [m for m in joint_messages() if m.topic != FRONT or m.t > EPOCH + 1.0]
    messages = [m for m in messages if m.topic != COMMANDS or m.t < EPOCH + 0.5]
    with pytest.raises(InputError, match=r"found the last one ends at \d+\.4\d+ s, the first frame is at"):
        episode_of(tmp_path, messages)


def test_a_clock_behind_the_others_is_reported(tmp_path: Path) -> None:
    """Two computers, whose clocks are three seconds apart: the frames are not of one moment."""
    pictures = [m for m in joint_messages(8.0) if m.topic == FRONT]
    others = [m for m in joint_messages(8.0) if m.topic != FRONT]
    late = [m._replace(content=picture(EPOCH + k / 10 - 3.0, k)) for k, m in enumerate(pictures)]
    episode = episode_of(tmp_path, sorted([*others, *late], key=lambda m: m.t))
    assert "front: time stamps 3.00 s behind those of joint_states by their receive times" in episode.summary()


def test_a_simulation_that_was_reset_is_refused(tmp_path: Path) -> None:
    twice = [*joint_messages(stamped=0.0), *joint_messages(stamped=0.0, received=EPOCH + 3)]
    expected = r"joint_states: expected time stamps that go forward, found 0\.\d+ s after 1\.980 s"
    with pytest.raises(InputError, match=expected):
        episode_of(tmp_path, twice)


def test_messages_in_another_order_and_twice(tmp_path: Path) -> None:
    messages = joint_messages()
    half = len(messages) // 2
    check(episode_of(tmp_path, messages[half:] + messages[:half]), 20)
    shuffled = [messages[k ^ 7] if k ^ 7 < len(messages) else messages[k] for k in range(len(messages))]
    (tmp_path / "b").mkdir()
    episode = episode_of(tmp_path / "b", [*shuffled, messages[-1]])
    check(episode, 20)
    assert len(episode.refused) == 1


def points(count: int) -> dict[float, tuple[float, float]]:
    return {(k + 1) / 10: (100 + (k + 1) / 10, 0.0) for k in range(count)}


@pytest.mark.parametrize("stamp", [0.0, EPOCH + 0.001])
def test_trajectories_are_sampled_when_their_points_are_due(tmp_path: Path, stamp: float) -> None:
    told = trajectory_message(EPOCH + 0.001, points(20), stamp=stamp)
    episode = episode_of(tmp_path, sorted([told, *joint_messages(commands=False)], key=lambda m: m.t), TRAJECTORIES)
    check(episode, 20)
    assert episode.unstamped == ({TRAJECTORY_TOPIC: 1} if stamp == 0 else {})


def test_a_far_point_is_led_to_and_the_next_trajectory_takes_over(tmp_path: Path) -> None:
    """To 1 within a second, from half of that on to 2 within half a second, and stopped on the way back."""
    told = [
        trajectory_message(EPOCH, {1.0: (1, 0)}),
        trajectory_message(EPOCH + 0.5, {0.5: (2, 0)}),
        trajectory_message(EPOCH + 1.5, {0.2: (1, 0)}),
        trajectory_message(EPOCH + 1.6, {}),
    ]
    still = [
        m._replace(content=joints(m.t - 0.002, (0, 0))) if m.topic == STATES else m
        for m in joint_messages(commands=False)
    ]
    episode = episode_of(tmp_path, sorted([*told, *still], key=lambda m: m.t), TRAJECTORIES)
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5]
    np.testing.assert_allclose(episode.columns[ACTION][:, 0], expected, atol=1e-4)


def test_points_that_do_not_follow_each_other(tmp_path: Path) -> None:
    told = trajectory_message(EPOCH, {0.2: (1, 0), 0.1: (1, 0)})
    with pytest.raises(InputError, match=r"/trajectory: expected time_from_start to increase .*found \[0\.2, 0\.1\]"):
        episode_of(tmp_path, [told, *joint_messages(commands=False)], TRAJECTORIES)


TWO = """
robot_type: two_topics
task: push the block
fps: 10
frame: joints
observations:
  observation.state:
    names: [a, b]
    units: [rad, rad]
    slop: 0.05
    sources:
      - {topic: /arm, type: sensor_msgs/msg/JointState, names: [a]}
      - {topic: /gripper, type: sensor_msgs/msg/JointState, names: [b]}
  observation.images.front: {topic: /front, type: sensor_msgs/msg/Image, shape: [16, 24, 3]}
action:
  frame_id: base_link
  names: [a, b]
  units: [rad, rad]
  outputs:
    - {topic: /trajectory, type: trajectory_msgs/msg/JointTrajectory, names: [a], fields: [a]}
    - {topic: /commands, type: std_msgs/msg/Float64MultiArray, names: [b], fields: [b]}
  rate: 50
  low: [-1000, -1000]
  high: [1000, 1000]
  speed: [1, 1]
"""


def test_several_topics_of_state_and_of_commands(tmp_path: Path) -> None:
    """The gripper is told once, in the middle; until then its action is where it is."""
    messages = [m for m in joint_messages() if m.topic == FRONT]
    for k in range(100):
        t = k / 50
        messages.append(Message(EPOCH + t, "arm", JOINT_STATE, joints(EPOCH + t, [t], ["a"])))
        messages.append(Message(EPOCH + t + 0.001, "gripper", JOINT_STATE, joints(EPOCH + t, [-7], ["b"])))
    messages.append(trajectory_message(EPOCH, {k: v[:1] for k, v in points(20).items()}, stamp=0.0, names=["a"]))
    messages.append(Message(EPOCH + 1.001, COMMANDS, ARRAY, numbers([5])))
    episode = episode_of(tmp_path, sorted(messages, key=lambda m: m.t), TWO)
    check(episode, 20)
    np.testing.assert_allclose(episode.columns[STATE][:, 1], -7)
    np.testing.assert_allclose(episode.columns[ACTION][:, 1], [-7] * 10 + [5] * 10)


def test_a_topic_of_two_types(tmp_path: Path) -> None:
    bag = write_rosbag(tmp_path / "a", [*joint_messages(), Message(EPOCH + 2, STATES, IMAGE, picture(EPOCH, 0))])
    with pytest.raises(
        InputError, match="joint_states: expected one type, found sensor_msgs/msg/JointState and sensor_msgs/msg/Image"
    ):
        bag_episode(bag, contract_of(tmp_path, JOINTS))
