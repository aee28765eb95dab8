"""PushT in PyBullet as a robot in real time: cameras, arm and table."""

from __future__ import annotations

import array
import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Header, String
from std_srvs.srv import Trigger

from sim import Disturbance, DisturbedEnv, PushTEnv, make_env
from vla_policy.interfaces import IMAGES, InputError
from vla_policy.nodes import common
from vla_policy.robot.contract import IMAGE, POSE, load_contract
from vla_policy.robot.messages import seconds
from vla_policy.rollouts.scenes import load_scene
from vla_policy.runtime import Timing

GRACE = 0.004  # seconds after the end of a control period during which its last command may still arrive
JOINT_NAMES = [f"joint{k}" for k in range(1, 7)]


class PushTSimNode(Node):
    """Publishes the observations of a contract and executes its commands, one control period at a time.

    As in the Gymnasium environment an action is the target of a whole period: the last command stamped within a period
    is executed, and its end is observed. Without a command the arm keeps its target. When the computer is too slow the
    simulation pauses for whole periods, which are counted. With several goals `task` has the episode's instruction.
    """

    def __init__(self) -> None:
        super().__init__("pusht_sim")
        contract = load_contract(common.parameter(self, "contract", "pusht_sim", "robot contract: name or file"))
        seed = common.parameter(self, "seed", 0, "of the first start; each reset adds one", (0, 2**31 - 1))
        scene = common.parameter(self, "scene", "pusht", "pusht or pusht_language, with several goals")
        task = common.parameter(self, "task", "", "the instruction of all episodes; empty: each has its own")
        kind = common.parameter(self, "disturbance", "", "happens once in every episode; empty: none")
        clock_rate = common.parameter(self, "clock_rate", 0.0, "Hz of /clock; 0: none, all use system time", (0.0, 1e3))
        contract.require_simulated()  # else its images and poses could mix with those of a real arm
        if [output.type for output in contract.command.outputs] != [POSE]:
            found = [output.type for output in contract.command.outputs]
            raise InputError(f"pusht_sim: expected one topic of commands of type {POSE}, found {found}")
        if any([source.type for source in s.sources] not in ([IMAGE], [POSE]) for s in contract.streams):
            raise InputError(f"pusht_sim: expected observations of type {IMAGE} or {POSE} alone, found others")
        self._contract, self._next_seed = contract, seed
        cameras = [key.removeprefix(IMAGES) for key in contract.interface.cameras]
        env = make_env("pybullet", cameras, load_scene(scene, task))
        assert isinstance(env, PushTEnv)
        self._env = env
        self._world: Any = DisturbedEnv(self._env, Disturbance(kind)) if kind else self._env
        contract.interface.require(self._env.interface, f"robot contract {contract.name}", "the simulation")
        self._advertise(clock_rate)
        self._dt = 1.0 / contract.interface.fps
        self._offset = common.now(self) - time.monotonic()  # stamps continue the system's time on a steady clock
        self._commands: deque[tuple[float, np.ndarray]] = deque(maxlen=16)
        self._target = np.zeros(2)
        self._lock = threading.Lock()
        self._stalled, self._late = 0, Timing()
        self._reset(seed)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=common.vital, args=(self._run,), name="world", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the simulation."""
        self._closing.set()
        self._thread.join()
        self._env.close()

    def _advertise(self, clock_rate: float) -> None:
        command = self._contract.command
        self._streams = {
            stream.key: self.create_publisher(Image, stream.source.topic, common.IMAGE_QOS)
            if stream.is_camera
            else self.create_publisher(PoseStamped, stream.source.topic, common.STATE_QOS)
            for stream in self._contract.streams
        }
        self._info = self.create_publisher(CameraInfo, "~/camera/camera_info", common.IMAGE_QOS)
        self._joints = self.create_publisher(JointState, "~/joint_states", common.STATE_QOS)
        self._coverage = self.create_publisher(Float64, "~/coverage", 50)
        self._event = self.create_publisher(Header, "~/event", common.LATCHED_QOS)
        if self._env.config.goals:
            self._task = self.create_publisher(String, "task", common.LATCHED_QOS)
        self.create_subscription(PoseStamped, command.outputs[0].topic, self._on_command, common.COMMAND_QOS)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._diagnostics = common.Diagnostics(self, self._report)
        if clock_rate > 0:
            self._clock_publisher = self.create_publisher(ClockMessage, "/clock", common.STATE_QOS)
            self._clock_timer = common.every(self, 1.0 / clock_rate, self._publish_clock)

    def _time(self) -> float:
        return time.monotonic() + self._offset

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(ClockMessage(clock=common.stamp(self._time())))

    def _on_command(self, message: PoseStamped) -> None:
        target = np.array([message.pose.position.x, message.pose.position.y])
        if np.isfinite(target).all():
            self._commands.append((seconds(message.header.stamp), target))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            seed, self._next_seed = self._next_seed, self._next_seed + 1
            self._reset(seed)
        response.success, response.message = True, f"seed {seed}"
        return response

    def _reset(self, seed: int) -> None:
        observation, info = self._world.reset(seed=seed)
        self._seed, self._happened = seed, False
        if self._env.config.goals:
            self._task.publish(String(data=self._env.task))
        self._commands.clear()
        self._target = np.asarray(info["pos_agent"], float)
        self._end = self._time() + self._dt  # of the control period in progress
        self._publish(observation, info, self._end - self._dt)

    def _run(self) -> None:
        while not self._closing.is_set():
            wait = self._end + GRACE - self._time()
            if wait > 0:
                self._closing.wait(wait)
                continue
            with self._lock:
                if self._time() >= self._end:  # false if a reset came between
                    self._step()

    def _step(self) -> None:
        """Simulate the control period that has just ended."""
        commands = list(self._commands)  # a copy: another thread appends
        self._target = next((target for t, target in reversed(commands) if t < self._end), self._target)
        observation, _, _, _, info = self._world.step(self._target)
        self._publish(observation, info, self._end)
        self._late.add(self._time() - self._end)
        late = math.floor((self._time() - self._end) / self._dt)
        self._stalled += late
        self._end += (1 + late) * self._dt

    def _publish(self, observation: dict[str, np.ndarray], info: dict[str, Any], t: float) -> None:
        stamp = common.stamp(t)
        for key, publisher in self._streams.items():
            value = observation[key]
            publisher.publish(_image(value, stamp) if key.startswith(IMAGES) else self._pose(value, stamp))
        for camera in self._env.cameras.values():
            self._info.publish(_camera_info(camera.config.size, camera.config.field_of_view, stamp))
        joints = JointState(name=JOINT_NAMES, position=self._env.scene.save().joints.tolist())
        joints.header.stamp = stamp
        self._joints.publish(joints)
        self._coverage.publish(Float64(data=float(info["coverage"])))
        if info.get("event") and not self._happened:
            self._happened = True
            self._event.publish(Header(stamp=stamp, frame_id=info["event"]))

    def _pose(self, position: np.ndarray, stamp: Any) -> PoseStamped:
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = stamp, self._contract.command.frame_id
        message.pose.position.x, message.pose.position.y = map(float, position)
        message.pose.position.z = self._env.config.arm.tip_height
        message.pose.orientation.x, message.pose.orientation.w = 1.0, 0.0  # tool down
        return message

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        level = common.Diagnostics.WARN if self._stalled else common.Diagnostics.OK
        message = f"paused for {self._stalled} control periods" if self._stalled else "in real time"
        values = {
            "seed": self._seed,
            "instruction": self._env.task,
            "stalled_periods": self._stalled,
            **common.flat("publishing_after_stamp_ms", self._late.summary()),
        }
        return level, message, values


def _image(pixels: np.ndarray, stamp: Any) -> Image:
    height, width, _ = pixels.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp, message.header.frame_id = stamp, "camera_optical"
    message.data = array.array("B", pixels.tobytes())  # an ndarray would be copied element by element
    return message


def _camera_info(size: int, field_of_view: float, stamp: Any) -> CameraInfo:
    focal, centre = size / 2 / math.tan(math.radians(field_of_view) / 2), size / 2
    message = CameraInfo(height=size, width=size, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp, message.header.frame_id = stamp, "camera_optical"
    message.k = [focal, 0.0, centre, 0.0, focal, centre, 0.0, 0.0, 1.0]
    message.p = [focal, 0.0, centre, 0.0, 0.0, focal, centre, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return message


def main() -> None:
    common.run(PushTSimNode)


if __name__ == "__main__":
    main()
