"""What a contract says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_policy.interfaces import Feature, InputError, Interface
from vla_policy.robot.contract.units import UNCHANGED, Conversion
from vla_policy.robot.kinematics import Kinematics
from vla_policy.robot.pointing import Pointing

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
JOINT_STATE = "sensor_msgs/msg/JointState"
POSE = "geometry_msgs/msg/PoseStamped"
TWIST = "geometry_msgs/msg/TwistStamped"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
ARRAY = "std_msgs/msg/Float64MultiArray"
IMAGE_TYPES = (IMAGE, COMPRESSED)
STATE_TYPES = (JOINT_STATE, POSE)
COMMAND_TYPES = (POSE, TRAJECTORY, ARRAY, TWIST)
SIMULATED = "pusht_sim"  # the robot_type of an arm that nobody can be hurt by
POSE_FIELDS = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class Picture:
    """What a camera sends and which part of it is the feature.

    `size` is (height, width) of the message's picture; of it `crop` (top, left, height, width) is scaled to the
    feature's size. All in pixels.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int]


@dataclass(frozen=True)
class Source:
    """A topic that a feature, or some channels of it, is read from.

    `fields` says what of the message they are: joint names of a JointState, or some of x, y, z, qx, qy, qz, qw. Field
    k is the feature's channel `channels[k]`, after `conversion` to the interface's units. With `kinematics` the fields
    are the tip's where the joints are. Poses have to be of `frame_id`, unless that is empty.
    """

    topic: str
    type: str
    fields: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    conversion: Conversion = UNCHANGED
    kinematics: Kinematics | None = None
    frame_id: str = ""
    picture: Picture | None = None

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that a message has to have."""
        if self.type != JOINT_STATE:
            return ()
        return self.fields if self.kinematics is None else self.kinematics.joints


@dataclass(frozen=True)
class Stream:
    """One observation and where it comes from: a camera's topic, or one or more topics with the channels of a vector.

    The parts of a vector are put together when they are at most `slop` seconds apart.
    """

    key: str
    feature: Feature
    sources: tuple[Source, ...]
    slop: float = 0.02

    @property
    def topic(self) -> str:
        """Of the first source, a camera's only one."""
        return self.sources[0].topic

    @property
    def type(self) -> str:
        """Of the first source, a camera's only one."""
        return self.sources[0].type


@dataclass(frozen=True, eq=False)
class Output:
    """A topic to which some channels of the action go, as absolute targets.

    Channel `channels[k]` of the action is field `fields[k]` of the message (see `Source`; x, y, z for the linear
    velocities of a twist), after `conversion` from the interface's units. `constants` fills the other fields of a pose.
    With `kinematics` the fields are of the tip's pose, whatever the message. `low`, `high`, `speed` and `acceleration`
    (n,) are the command's limits in the message's units; `rate` in Hz is how often messages are sent.
    """

    topic: str
    type: str
    frame_id: str
    fields: tuple[str, ...]
    channels: tuple[int, ...]
    rate: float
    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray | None
    constants: Mapping[str, float]
    conversion: Conversion = UNCHANGED
    kinematics: Kinematics | None = None

    @property
    def inverse(self) -> Kinematics | None:
        """What makes the tip's targets those of the joints; None where the message says what the action does."""
        return self.kinematics if self.type in (TRAJECTORY, ARRAY) else None

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that a message commands, in its order; none where it commands the tip."""
        if self.type not in (TRAJECTORY, ARRAY):
            return ()
        return self.fields if self.kinematics is None else self.kinematics.joints

    def part(self, action: np.ndarray) -> np.ndarray:
        """This output's numbers (n,) of an action (D,), in the message's units."""
        return self.conversion.outward(action[list(self.channels)])

    def velocity(self, velocity: np.ndarray) -> np.ndarray:
        """The same (n,) of velocities (D,)."""
        return self.conversion.velocity(velocity[list(self.channels)])


@dataclass(frozen=True, eq=False)
class CommandSpec:
    """Where commands go, each channel of the action to one of `outputs`, and their limits in the interface's units.

    `low`, `high`, `speed` and `acceleration` (D,) are in units, units / s and units / s^2 (None: no limit); `rate` in
    Hz is how often commands are sent. The arm holds when it is further than `following_error` (D,) units from its
    command; by default half a second at the speed limit. `frame_id` is the frame of what outputs do not say it of.
    """

    outputs: tuple[Output, ...]
    frame_id: str
    rate: float
    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray | None
    following_error: np.ndarray

    @property
    def led(self) -> Output | None:
        """The output whose joints follow from the tip's targets; None if there is none."""
        return next((output for output in self.outputs if output.inverse is not None), None)


@dataclass(frozen=True)
class Timeouts:
    """How long who may be silent before the arm holds, and how far time stamps may be off; seconds."""

    policy: float = 0.13
    """The policy's heartbeat, 25 Hz."""
    monitor: float = 0.13
    """The surprise monitor's heartbeat, 25 Hz."""
    camera: float = 0.18
    """Any observation of the policy: the camera's period and the patience for a frame that is late."""
    state: float = 0.15
    """The robot's state, as the gate hears it."""
    teleop: float = 0.15
    """Commands of teleoperation."""
    chunk: float = 1.0
    """Between the end of what was played and the next chunk."""
    emergency_stop: float | None = None
    """Where there is one that says false as long as nobody presses it."""
    clock_jump: float = 0.1
    slop: float = 0.02
    """Between observations of one moment, and into the future."""
    max_age: float = 0.5
    """Of what is observed, of the robot's state and of teleoperation when they arrive."""


@dataclass(frozen=True)
class Contract:
    """What a robot provides; `name` is the file's. `task` is the instruction until another one is given.

    `pointing` says what is where in a camera's picture, for those who lead the arm with a mouse. A real arm follows a
    policy whose units nobody declared only if it `accepts_unknown_units` ("units_unknown: accept").
    """

    name: str
    robot_type: str
    task: str
    interface: Interface
    streams: tuple[Stream, ...]
    command: CommandSpec
    timeouts: Timeouts
    pointing: Pointing | None = None
    accepts_unknown_units: bool = False

    def stream(self, key: str) -> Stream:
        """The stream of an observation key; `InputError` if there is none."""
        for stream in self.streams:
            if stream.key == key:
                return stream
        raise InputError(f"{self.name}: expected an observation {key!r}, found {[s.key for s in self.streams]}")

    @property
    def silences(self) -> dict[str, float]:
        """How long each observed topic may be silent, in seconds: the part of a vector also as long as its `slop`."""
        return {
            source.topic: max(self.timeouts.camera, stream.slop if len(stream.sources) > 1 else 0.0)
            for stream in self.streams
            for source in stream.sources
        }

    def require(self, needed: Interface, needs: str) -> None:
        """`InputError` naming every difference unless this robot can serve `needs`, e.g. a checkpoint."""
        needed.require(self.interface, needs, f"robot contract {self.name}")

    def require_simulated(self) -> None:
        """`InputError` unless this is the simulated arm: what moves without being asked must not reach a real one."""
        if self.robot_type != SIMULATED:
            expected = f"robot_type: expected the simulated {SIMULATED!r}, found {self.robot_type!r}"
            raise InputError(f"robot contract {self.name}: {expected}")
