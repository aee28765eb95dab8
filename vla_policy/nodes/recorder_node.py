"""Every message of an episode to an MCAP file, and every finished episode to a LeRobotDataset."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from vla_policy.bags import BagWriter
from vla_policy.contract import IMAGE, JOINT_STATE, TRAJECTORY, find_config, load_contract
from vla_policy.interfaces import InputError
from vla_policy.nodes import common
from vla_policy.runtime import Watchdog

FLUSH_SECONDS = 0.25  # how much of a running episode a kill may cost
LEAST_FREE = 1 << 30  # bytes on the disk to begin an episode
BOOL, FLOAT = "std_msgs/msg/Bool", "std_msgs/msg/Float64"
OTHERS = {
    "command/executed": JOINT_STATE,
    "policy/action_chunk": TRAJECTORY,
    "teleop/target": JOINT_STATE,
    "teleop/intervention": BOOL,
    "surprise_monitor/surprise": FLOAT,
}
TASK, RESULT = "task", "recorder/result"


class RecorderNode(Node):
    """`~/start_episode`, then `~/end_episode` (true: a success) or `~/discard_episode`; `~/status` says what it does.

    A bag is written as `<root>/bags/episode_<n>.mcap.part` and loses its last suffix when the episode ends; another
    process then adds it to `<root>/dataset`. What a killed recorder left behind goes to `<root>/bags/interrupted`.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        name = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._contract_file, self._contract = find_config(name), load_contract(name)
        self._root = Path(common.parameter(self, "root", "outputs/recordings", "folder of bags and dataset"))
        self._task = common.parameter(self, "task", "", "the instruction; empty: the contract's") or self._contract.task
        self._bags = self._root / "bags"
        self._bag: BagWriter | None = None
        self._status = self.create_publisher(String, "~/status", common.LATCHED_QOS)
        self._told = ""
        streams = {stream.topic: stream.type for stream in self._contract.streams}
        self._watchdog = Watchdog(dict.fromkeys(streams, self._contract.timeouts.camera))
        for topic, kind in {**streams, **OTHERS}.items():
            qos = common.IMAGE_QOS if kind == IMAGE else common.STATE_QOS
            self.create_subscription(common.message_class(kind), topic, partial(self._on, topic, kind), qos, raw=True)
        self.create_subscription(String, TASK, self._on_task, common.LATCHED_QOS)
        self.create_service(Trigger, "~/start_episode", self._on_start)
        self.create_service(SetBool, "~/end_episode", self._on_end)
        self.create_service(Trigger, "~/discard_episode", self._on_discard)
        self._timer = common.every(self, FLUSH_SECONDS, self._look_after)
        self._finished: queue.Queue[Path | None] = queue.Queue()
        self._importer = threading.Thread(target=self._import_bags, name="import", daemon=True)
        self._importer.start()
        self._repair()

    def close(self) -> None:
        """An episode in progress is kept as an interrupted one."""
        if self._bag is not None:
            self._bag.close()
            self._repair()
        self._finished.put(None)
        self._importer.join()

    def _say(self, text: str, problem: bool = False) -> None:
        if text != self._told:
            self._told = text
            self._status.publish(String(data=text))
            if problem:  # two calls: rclpy refuses one whose severity changes
                self.get_logger().error(text)
            else:
                self.get_logger().info(text)

    def _repair(self) -> None:
        """Put aside what was being recorded when a recorder was killed; import what was not yet."""
        for part in sorted(self._bags.glob("*.mcap.part")):
            place = self._bags / "interrupted" / part.name.removesuffix(".part")
            place.parent.mkdir(exist_ok=True)
            part.rename(place)
            self._say(f"an interrupted episode was found and put into {place}")
        if any(self._bags.glob("*.mcap")):
            self._finished.put(self._bags)

    def _on(self, topic: str, kind: str, data: bytes) -> None:
        self._watchdog.feed(topic, common.steady())
        if self._bag is None:
            return
        try:
            self._bag.write(topic, kind, common.now(self), data)
        except OSError as error:
            self._give_up(error)

    def _on_task(self, message: String) -> None:
        self._task = message.data

    def _look_after(self) -> None:
        silent = self._watchdog.check(common.steady())
        if self._bag is None:
            return
        try:
            self._bag.flush()
        except OSError as error:
            self._give_up(error)
            return
        if silent:
            self._say(f"recording, but {', '.join(silent)} is silent", problem=True)
        else:
            self._say(f"recording {self._bag.path.name}")

    def _give_up(self, error: OSError) -> None:
        assert self._bag is not None
        name = self._bag.path.name
        self._bag = None
        self._say(f"{name} was given up: {error.strerror}", problem=True)

    def _start(self) -> str:
        if self._bag is not None:
            raise InputError("start_episode: expected no episode in progress, found one")
        silent = self._watchdog.check(common.steady())
        if silent:
            raise InputError(f"start_episode: expected every stream of the contract, but {', '.join(silent)} is silent")
        self._bags.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._bags).free
        if free < LEAST_FREE:
            raise InputError(f"{self._bags}: expected {LEAST_FREE >> 20} MiB free, found {free >> 20} MiB")
        numbers = [int(path.name[8:14]) for path in self._bags.rglob("episode_*.mcap*")]
        name = f"episode_{max(numbers, default=-1) + 1:06d}.mcap"
        self._bag = BagWriter(self._bags / f"{name}.part")
        self._bag.write_text(TASK, self._task, common.now(self))
        self._say(f"recording {self._bag.path.name}")
        return name

    def _end(self, result: str | None) -> str:
        """`result`: None discards."""
        if self._bag is None:
            raise InputError("recorder: expected an episode in progress, found none")
        bag, self._bag = self._bag, None
        if result is not None:
            bag.write_text(RESULT, result, common.now(self))
        bag.close()
        if result is None:
            bag.path.unlink()
            self._say(f"discarded {bag.path.name}")
            return "discarded"
        place = bag.path.with_name(bag.path.name.removesuffix(".part"))
        bag.path.rename(place)
        self._say(f"{place.name}: {result}, {bag.messages} messages")
        self._finished.put(place)
        return str(place)

    def _import_bags(self) -> None:
        """Each in a process of its own, so that the next recording loses no frames meanwhile."""
        while (bags := self._finished.get()) is not None:
            words = ["import-bag", str(bags), str(self._root / "dataset"), f"contract={self._contract_file}"]
            command = [sys.executable, "-m", "vla_policy.cli.dataset", *words]
            done = subprocess.run(command, capture_output=True, text=True, process_group=0)
            said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
            self._say(" ".join(said[-1:]) or f"import ended with status {done.returncode}", done.returncode != 0)

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, self._start)

    def _on_end(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return _answer(response, lambda: self._end("success" if request.data else "failure"))

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, lambda: self._end(None))


def _answer(response: Any, action: Callable[[], str]) -> Any:
    """The response of a service with `success` and `message`."""
    try:
        response.success, response.message = True, action()
    except (InputError, OSError) as error:
        response.success, response.message = False, str(error)
    return response


def main() -> None:
    common.run(RecorderNode)


if __name__ == "__main__":
    main()
