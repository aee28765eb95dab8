"""The data model of a contract."""

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
SIMULATED = "pusht_sim"  # the robot_type of the simulated arm
POSE_FIELDS = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class ImageRegion:
    """A camera's image size and the part of it that is the feature.

    `size` is (height, width) of the message's image; its region `crop` (top, left, height, width) is scaled to the
    feature's size. Pixels.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int]


@dataclass(frozen=True)
class Source:
    """A topic from which a feature, or some of its channels, is read.

    `fields` are joint names of a JointState, or some of x, y, z, qx, qy, qz, qw. Field k is the feature's channel
    `channels[k]`, after `conversion` to the interface's units. With `kinematics` the fields are those of the tip,
    computed from the joints. Poses must be in `frame_id`, unless that is empty.
    """

    topic: str
    type: str
    fields: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    conversion: Conversion = UNCHANGED
    kinematics: Kinematics | None = None
    frame_id: str = ""
    region: ImageRegion | None = None

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that a message must contain."""
        if self.type != JOINT_STATE:
            return ()
        return self.fields if self.kinematics is None else self.kinematics.joints


@dataclass(frozen=True)
class Stream:
    """One observation and its sources: a camera's topic, or one or more topics with the channels of a vector.

    Parts of a vector are combined when they are at most `slop` seconds apart.
    """

    key: str
    feature: Feature
    sources: tuple[Source, ...]
    slop: float = 0.02

    @property
    def source(self) -> Source:
        """The only source, as every camera has one; `ValueError` for a vector of several."""
        (source,) = self.sources
        return source

    @property
    def is_camera(self) -> bool:
        """Whether the observation is an image."""
        return self.feature.dtype == "image"


@dataclass(frozen=True, eq=False)
class Output:
    """A topic that receives some channels of the action, as absolute targets.

    Channel `channels[k]` of the action is field `fields[k]` of the message (see `Source`; x, y, z for the linear
    velocities of a twist), after `conversion` from the interface's units. `constants` are the other fields of a pose.
    With `kinematics` the fields are of the tip's pose, whatever the message type. `low`, `high`, `speed` and
    `acceleration` (n,) are the command's limits in the message's units; `rate` is the message rate in Hz.
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
        """The inverse kinematics from tip targets to joints; None if the message has the action's own fields."""
        return self.kinematics if self.type in (TRAJECTORY, ARRAY) else None

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that a message commands, in its order; none if it commands the tip."""
        if self.type not in (TRAJECTORY, ARRAY):
            return ()
        return self.fields if self.kinematics is None else self.kinematics.joints

    def part(self, action: np.ndarray) -> np.ndarray:
        """This output's part (n,) of an action (D,), in the message's units."""
        return self.conversion.outward(action[list(self.channels)])

    def velocity(self, velocity: np.ndarray) -> np.ndarray:
        """This output's part (n,) of velocities (D,), in the message's units."""
        return self.conversion.velocity(velocity[list(self.channels)])


@dataclass(frozen=True, eq=False)
class CommandSpec:
    """The `outputs` of the action's channels and the limits of commands, in the interface's units.

    `low`, `high`, `speed` and `acceleration` (D,) are in units, units / s and units / s^2 (None: no limit); `rate` is
    the command rate in Hz. The gate holds when the arm is further than `following_error` (D,) units from its command;
    by default half a second at the speed limit. `frame_id` is the default frame of the outputs.
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
    def ik_output(self) -> Output | None:
        """The output that needs inverse kinematics, if any."""
        return next((output for output in self.outputs if output.inverse is not None), None)


@dataclass(frozen=True)
class Timeouts:
    """Longest silence per input before the arm holds, and tolerances of time stamps; seconds."""

    policy: float = 0.13  # the policy's heartbeat, 25 Hz
    monitor: float = 0.13  # the surprise monitor's heartbeat, 25 Hz
    camera: float = 0.18  # any observation of the policy: the camera's period plus the tolerated delay of a frame
    state: float = 0.15  # the robot's state at the gate
    teleop: float = 0.15  # commands of teleoperation
    chunk: float = 1.0  # between the end of a chunk and the next one
    emergency_stop: float | None = None  # for an emergency stop with a heartbeat, false while it is not pressed
    clock_jump: float = 0.1
    slop: float = 0.02  # between observations that are combined, and into the future
    max_age: float = 0.5  # of observations, the robot's state and teleoperation targets on arrival


@dataclass(frozen=True)
class Contract:
    """What a robot provides; `name` is the file's. `task` is the default instruction.

    `pointing` calibrates a camera image for teleoperation with a mouse. A real arm runs a policy without declared units
    only if it `accepts_unknown_units` ("units_unknown: accept").
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
        """The stream of an observation key; `InputError` if unknown."""
        for stream in self.streams:
            if stream.key == key:
                return stream
        raise InputError(f"{self.name}: expected an observation {key!r}, found {[s.key for s in self.streams]}")

    @property
    def silences(self) -> dict[str, float]:
        """Timeout of each observed topic in seconds; at least `slop` for the parts of a vector."""
        return {
            source.topic: max(self.timeouts.camera, stream.slop if len(stream.sources) > 1 else 0.0)
            for stream in self.streams
            for source in stream.sources
        }

    def require(self, needed: Interface, needs: str) -> None:
        """`InputError` naming every difference unless this robot provides what `needs`, e.g. a checkpoint, needs."""
        needed.require(self.interface, needs, f"robot contract {self.name}")

    def require_simulated(self) -> None:
        """`InputError` unless this is the simulated arm."""
        if self.robot_type != SIMULATED:
            expected = f"robot_type: expected the simulated {SIMULATED!r}, found {self.robot_type!r}"
            raise InputError(f"robot contract {self.name}: {expected}")
