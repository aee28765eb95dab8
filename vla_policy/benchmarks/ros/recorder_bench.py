"""Reliability of the recorder: frames of two cameras on a busy computer, and kills at random times."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from vla_policy.benchmarks.ros.cameras import TWO_CAMERAS, Cameras, Joints, image_message
from vla_policy.benchmarks.ros.harness import PATIENCE, FakeRobot, wait_for
from vla_policy.graph.processes import Processes
from vla_policy.interfaces import InputError
from vla_policy.nodes import common
from vla_policy.robot.bag_storage import has_end
from vla_policy.robot.bags import RESULT, SUCCESS, read_bag
from vla_policy.robot.contract import load_contract
from vla_policy.robot.messages import seconds
from vla_policy.utils.recordings import read_recordings

SETTLE = 1.0  # seconds for the last frames to arrive
IMPORT_PATIENCE = 600.0
ANSWER_PATIENCE = 3.0
NO_ANSWER = "no answer"
EPISODE_SECONDS = (0.5, 2.0)  # at least and at most
KILLED_AFTER = (0.2, 5.0)  # seconds from the start of the first of them
TOLERANCE = 1.0  # seconds that may be missing at either end of an episode
STATE = "pusht_sim/ee_pose"


class RecorderClient:
    """Calls the recorder's services and collects its status messages; `node` must be spinning.

    Waiting ends once `alive` is false.
    """

    def __init__(self, node: Node, alive: Callable[[], bool] = lambda: True) -> None:
        self._node, self._alive, self.status = node, alive, [""]
        self._clients = {
            name: node.create_client(kind, f"recorder/{name}")
            for name, kind in (("start_episode", Trigger), ("end_episode", SetBool), ("discard_episode", Trigger))
        }
        node.create_subscription(String, "recorder/status", self._on_status, common.LATCHED_QOS)

    def start(self) -> None:
        """Start an episode, once the recorder receives every stream.

        Retried without a response: for a while the middleware sends requests to a killed recorder.
        """
        unanswered = False

        def begun() -> bool:
            nonlocal unanswered
            ok, why = self.try_to_start()
            unanswered |= why == NO_ANSWER
            return ok or (unanswered and why.endswith("found one")) or not self._alive()

        wait_for(begun, "the start of an episode")

    def try_to_start(self) -> tuple[bool, str]:
        """Whether the episode began, and its bag or the reason why not."""
        return self._call("start_episode", Trigger.Request(), ANSWER_PATIENCE)

    def end(self, success: bool = True) -> tuple[bool, str]:
        return self._call("end_episode", SetBool.Request(data=success))

    def discard(self) -> tuple[bool, str]:
        return self._call("discard_episode", Trigger.Request())

    def reported(self, text: str) -> bool:
        return any(text in status for status in self.status)

    def _call(self, service: str, request: Any, patience: float = PATIENCE) -> tuple[bool, str]:
        client, end = self._clients[service], time.monotonic() + patience
        wait_for(lambda: client.service_is_ready() or not self._alive(), service)
        future = client.call_async(request)
        wait_for(lambda: future.done() or not self._alive() or time.monotonic() > end, service, patience + 1.0)
        return (future.result().success, future.result().message) if future.done() else (False, NO_ANSWER)

    def _on_status(self, message: String) -> None:
        self.status.append(message.data)


class RobotWithCamera(FakeRobot):
    """A fake robot with a camera at 10 Hz while `filming` (`frames` so far), and executed commands at 50 Hz."""

    def __init__(self, simulated: bool = False) -> None:
        super().__init__(simulated)
        self.filming, self.frames = True, 0
        self._images = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._executed = self.create_publisher(JointState, "command/executed", common.COMMAND_QOS)
        self._camera_ticker = common.Ticker(0.1, self._publish_image)
        self._command_ticker = common.Ticker(0.02, self._command)

    def close(self) -> None:
        self._camera_ticker.close()
        self._command_ticker.close()
        super().close()

    def _publish_image(self) -> None:
        if self.filming:
            self.frames += 1
            self._images.publish(image_message(bytes([self.frames % 256]) * (96 * 96 * 3), (96, 96), self.now()))

    def _command(self) -> None:
        if "robot" not in self.alive:
            return
        executed = JointState(name=["x", "y"], position=self.pose.tolist())
        executed.header.stamp = common.stamp(self.now())
        self._executed.publish(executed)


@dataclass(frozen=True)
class _Episode:
    """A bag that the recorder reported as finished: its digest at that time, and when it was recorded."""

    bag: Path
    digest: str
    first: float
    last: float

    def intact(self) -> bool:
        """Whether it is unchanged and has its whole time span and its result."""
        if not self.bag.is_file() or _digest(self.bag) != self.digest or not has_end(self.bag):
            return False
        *states, result = read_bag(self.bag, [STATE, RESULT])
        stamps = [seconds(state.message.header.stamp) for state in states]
        whole = stamps[0] < self.first + TOLERANCE and stamps[-1] > self.last - TOLERANCE
        return whole and bool(result.topic == RESULT and result.message.data == SUCCESS)


def survive_kills(
    kills: int,
    root: Path,
    log: Path,
    contract: str = "pusht_sim",
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Kill and restart a recorder of short episodes `kills` times.

    In the result `episodes_expected` were reported as finished, `episodes_intact` still are after all kills and
    `episodes_imported` are in the dataset; `lost_s` is the missing time of each interrupted episode, of which
    `repairs_reported` were reported at the recorder's next start.
    """
    rng = np.random.default_rng(seed)
    episodes: list[_Episode] = []
    lost: list[float] = []
    begin, until, repairs = 0.0, 0.0, 0
    text = log / "recorder.log"
    with Processes(log) as processes, RobotWithCamera() as robot:
        client = RecorderClient(robot, lambda: processes["recorder"].poll() is None)
        for attempt in range(kills + 1):
            parts = [part.name.removesuffix(".part") for part in (root / "bags").glob("*.part")]
            client.status.clear()
            processes.start("recorder", contract=contract, root=str(root))  # with a new log
            if attempt > 0:
                advance()
            if parts:
                # From the log: of status messages sent before the subscription matched only the last is received.
                wait_for(lambda: "an interrupted episode was found" in text.read_text(), "the repair")
                repairs += sum(part in text.read_text() for part in parts)
                lost += [until - _newest(root / "bags" / "interrupted" / part, begin) for part in parts]
            if attempt < kills:
                finished, (begin, until) = _record_until_killed(client, processes["recorder"], rng)
                episodes += finished
        wait_for(lambda: client.reported(f"frames in {root / 'dataset'}"), "the import", IMPORT_PATIENCE)
    return {
        "kills": kills,
        "episodes_expected": len(episodes),
        "episodes_intact": sum(episode.intact() for episode in episodes),
        "episodes_imported": len(read_recordings(root / "dataset")),
        "lost_s": lost,
        "repairs_reported": repairs,
    }


def _record_until_killed(
    client: RecorderClient, recorder: subprocess.Popen, rng: np.random.Generator
) -> tuple[list[_Episode], tuple[float, float]]:
    """Finished episodes, and the time span of the interrupted one."""
    finished: list[_Episode] = []
    client.start()
    begin = time.time()
    killer = threading.Timer(rng.uniform(*KILLED_AFTER), recorder.kill)
    killer.start()
    while True:
        end = time.time() + rng.uniform(*EPISODE_SECONDS)
        while recorder.poll() is None and time.time() < end:
            time.sleep(0.005)
        until = time.time()
        ok, bag = client.end()
        if not ok:
            recorder.wait()
            return finished, (begin, until)
        finished.append(_Episode(Path(bag), _digest(Path(bag)), begin, until))
        client.start()
        begin = time.time()


def _newest(bag: Path, begin: float) -> float:
    """The time of the last surviving message; `begin` if there is none."""
    try:
        return max(seconds(state.message.header.stamp) for state in read_bag(bag, [STATE]))
    except (InputError, ValueError):
        return begin


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def two_cameras(duration: float, root: Path, log: Path) -> dict[str, Any]:
    """Record two cameras for `duration` seconds; frames kept and the recorder's CPU use."""
    contract = load_contract(TWO_CAMERAS)
    with Processes(log) as processes, Cameras(contract) as cameras, Joints(contract) as robot:
        recorder = psutil.Process(processes.start("recorder", contract=TWO_CAMERAS, root=str(root)).pid)
        client = RecorderClient(robot)
        client.start()
        begin = time.time()
        before, _ = recorder.cpu_times(), psutil.cpu_percent()
        time.sleep(duration)
        used, computer, measured = recorder.cpu_times(), psutil.cpu_percent(), time.time() - begin
        sent = cameras.stop()
        time.sleep(SETTLE)
        ok, bag = client.end()
    if not ok:
        raise RuntimeError(f"recorder: expected a finished episode, found {bag}")
    frames = {topic: {stamp for stamp in stamps if stamp >= begin} for topic, stamps in sent.items()}
    found: dict[str, set[float]] = {topic: set() for topic in frames}
    for recorded in read_bag(Path(bag), list(frames)):
        found["/" + recorded.topic].add(seconds(recorded.message.header.stamp))
    count = sum(map(len, frames.values()))
    kept = sum(len(frames[topic] & found[topic]) for topic in frames)
    return {
        "seconds": measured,
        "frames_sent": count,
        "frames_recorded": kept,
        "share": kept / count,
        "sent_hz": count / len(frames) / measured,
        "cpu_percent": 100 * (sum(used[:2]) - sum(before[:2])) / measured,
        "computer_percent": computer,  # of all processors, other processes included
    }
