"""Records every message of an episode to an MCAP file and imports finished episodes into a LeRobotDataset."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from vla_policy.interfaces import InputError, Refused
from vla_policy.nodes import common
from vla_policy.nodes.importer import Importer
from vla_policy.robot.bag_writer import BagThread, BagWriter
from vla_policy.robot.bags import FAILURE, RESULT, SUCCESS, TASK, name_result
from vla_policy.robot.contract import IMAGE_TYPES, JOINT_STATE, TRAJECTORY, find_config, load_contract
from vla_policy.robot.messages import Reader
from vla_policy.runtime import Watchdog
from vla_policy.utils.locks import lock_file
from vla_policy.utils.recordings import BAG, read_recordings

CHECK_SECONDS = 0.25
WATCH_SECONDS = 0.04  # shorter than a gap that the watchdog takes for a suspension of this process
LONGEST_WAIT = 0.5  # seconds from a message's arrival until it is read; a kill loses as much
LEAST_FREE = 1 << 30  # bytes on the disk to begin an episode
LOCK = ".recorder.lock"
EPISODE = re.compile(r"episode_(\d{6})\.")  # the names of bags
IMAGE_QOS = common.best_effort(30)  # a second of images, in case this process is not scheduled for a moment
STATE_QOS = common.best_effort(1000)  # joint states may come at 1 kHz
BOOL, FLOAT = "std_msgs/msg/Bool", "std_msgs/msg/Float64"
OTHERS = {
    "command/executed": JOINT_STATE,
    "policy/action_chunk": TRAJECTORY,
    "teleop/target": JOINT_STATE,
    "teleop/intervention": BOOL,
    "surprise_monitor/surprise": FLOAT,
}


class RecorderNode(Node):
    """`~/start_episode`, then `~/end_episode` (true: a success) or `~/discard_episode`; `~/status` reports progress.

    A bag is written as `<root>/bags/episode_<n>.mcap.part` and loses its last suffix when the episode ends; another
    process then adds it to `<root>/dataset`. What a killed recorder, a full disk or a gate that turned out to be in a
    dry run left of a running episode goes to `<root>/bags/interrupted`. An episode for whose end the disk had no room
    is `episode_<n>.<result>.mcap`.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        name = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._contract_file, self._contract = find_config(name), load_contract(name)
        self._root = Path(common.parameter(self, "root", "outputs/recordings", "folder of bags and dataset"))
        self._task = common.parameter(self, "task", "", "the instruction; empty: the contract's") or self._contract.task
        self._bags, self._dataset = self._root / "bags", self._root / "dataset"
        self._lock = lock_file(self._root / LOCK, "recorder")
        self._bag: BagThread | None = None
        self._status = self.create_publisher(String, "~/status", common.LATCHED_QOS)
        self._last_status, self._problem, self._given_up = "", False, ""
        self._began = 0.0  # start of the episode, steady clock
        self._dry_run = False  # of the gate, where there is one
        self._behind, self._longest = 0.0, 0.0  # longest wait of a message in seconds, before and since the last check
        self._importer = Importer(self._bags, self._dataset, self._contract_file, self._publish_status)
        self._subscribe()
        self._timer = common.every(self, CHECK_SECONDS, self._check)
        self._watch_timer = common.every(self, WATCH_SECONDS, self._watch)
        self._diagnostics = common.Diagnostics(self, self._report)
        self._repair()

    def close(self) -> None:
        """Stop; an episode in progress is kept as an interrupted one."""
        if self._bag is not None:
            with suppress(Exception):
                self._bag.stop().close()
            self._set_aside(self._bag.path)
        self._importer.close()
        self._lock.close()

    def _subscribe(self) -> None:
        streams = Reader(self._contract.streams).topics
        self._watchdog = Watchdog(self._contract.silences)
        for topic, kind in {**streams, **OTHERS}.items():
            qos = IMAGE_QOS if kind in IMAGE_TYPES else STATE_QOS
            self.create_subscription(common.message_class(kind), topic, partial(self._on, topic, kind), qos, raw=True)
        common.subscribe_with_latched(self, String, TASK, self._on_task, common.COMMAND_QOS)
        self.create_subscription(Bool, "command_gate/dry_run", self._on_dry_run, common.LATCHED_QOS)
        self.create_service(Trigger, "~/start_episode", self._on_start)
        self.create_service(SetBool, "~/end_episode", self._on_end)
        self.create_service(Trigger, "~/discard_episode", self._on_discard)

    def _publish_status(self, text: str, problem: bool = False) -> None:
        if text != self._last_status:
            self._last_status, self._problem = text, problem
            self._status.publish(String(data=text))
            if problem:  # separate call sites: rclpy refuses a changing severity at one
                self.get_logger().error(text)
            else:
                self.get_logger().info(text)

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        wrong = self._problem or self._importer.failed
        level = common.Diagnostics.ERROR if wrong else common.Diagnostics.OK
        values: dict[str, Any] = {"free_mib": _free(self._root) >> 20, "import": self._importer.last_message}
        values["behind_s"] = self._behind
        if (bag := self._bag) is not None:
            dropped = common.flat("dropped", bag.dropped)
            values |= {"messages": bag.messages, "waiting_mib": bag.waiting / 2**20, **dropped}
        return level, self._last_status, values

    def _repair(self) -> None:
        """Set aside unfinished recordings of a killed recorder; import finished ones that are not in the dataset."""
        parts = sorted(self._bags.glob("*.mcap.part"))
        places = [str(self._set_aside(part)) for part in parts]
        if places:
            self._publish_status(f"an interrupted episode was found and put into {', '.join(places)}")
        if any(self._bags.glob("*.mcap")):
            self._importer.put(self._bags)

    def _set_aside(self, part: Path) -> Path:
        place = self._bags / "interrupted" / part.name.removesuffix(".part")
        place.parent.mkdir(exist_ok=True)
        return part.rename(place)

    def _on(self, topic: str, kind: str, data: bytes, info: Mapping[str, int]) -> None:
        """Write a message, unless it was received before the episode began and only waited to be read."""
        self._watchdog.feed(topic, common.steady())
        arrived = 1e-9 * info["received_timestamp"] or time.time()  # 0 with CycloneDDS
        waited = max(0.0, time.time() - arrived)
        self._longest = max(self._longest, waited)
        if self._bag is not None and common.steady() - waited >= self._began:
            self._bag.put(topic, kind, common.now(self) - waited, data)

    def _on_task(self, message: String) -> None:
        self._task = message.data

    def _on_dry_run(self, message: Bool) -> None:
        self._dry_run = message.data
        if self._dry_run and self._bag is not None:
            why = "the gate is in a dry run"
            try:
                self._bag.stop().close()
            except Exception as error:  # also those of the writing thread
                why += f", and {_why(error)}"
            self._give_up(why)

    def _watch(self) -> None:
        self._watchdog.check(common.steady())

    def _check(self) -> None:
        silent = self._watchdog.check(common.steady())
        self._behind, self._longest = self._longest, 0.0
        if self._bag is None:
            return
        if self._bag.error is not None:
            self._give_up(_why(self._bag.error))
            return
        problems = [f"{topic} is silent" for topic in silent]
        problems += ["messages are delayed, this computer is too busy"] if self._behind > LONGEST_WAIT else []
        problems += [f"messages of {topic} are dropped: the disk is too slow" for topic in sorted(self._bag.dropped)]
        problems += [f"less than {LEAST_FREE >> 20} MiB are free"] if _free(self._bags) < LEAST_FREE else []
        if problems:
            self._publish_status(f"recording, but {'; '.join(problems)}", problem=True)
        else:
            self._publish_status(f"recording {self._bag.path.stem}")

    def _give_up(self, why: str) -> None:
        assert self._bag is not None
        bag, self._bag = self._bag, None
        try:
            kept = f"what was written is {self._set_aside(bag.path)}"
        except OSError:
            kept = f"what was written is {bag.path}"
        self._given_up = f"{bag.path.stem} was given up: {why}; {kept}"
        self._publish_status(self._given_up, problem=True)

    def _start(self) -> str:
        if self._bag is not None:
            raise Refused("start_episode: expected no episode in progress, found one")
        if common.now(self) <= 0:
            raise Refused("start_episode: expected a clock, found no time yet (use_sim_time without /clock?)")
        if self._dry_run and self.count_publishers("command_gate/dry_run"):  # what is called executed, nobody does
            raise Refused(
                "start_episode: expected a robot that is sent commands, found a gate in a dry run; dry_run:=false"
            )
        silent = self._watchdog.check(common.steady())
        if silent:
            raise Refused(f"start_episode: expected every stream of the contract, but {', '.join(silent)} is silent")
        if self._behind > LONGEST_WAIT:
            raise Refused(f"start_episode: expected to keep up, but messages are delayed by {self._behind:.1f} s")
        self._bags.mkdir(parents=True, exist_ok=True)
        free = _free(self._bags)
        if free < LEAST_FREE:
            raise Refused(f"{self._bags}: expected {LEAST_FREE >> 20} MiB free, found {free >> 20} MiB")
        name = f"episode_{self._next_number():06d}.mcap"
        writer = BagWriter(self._bags / f"{name}.part")
        self._began = common.steady()
        writer.write_text(TASK, self._task, common.now(self))
        writer.flush()
        self._bag, self._given_up = BagThread(writer), ""
        self._publish_status(f"recording {self._bag.path.stem}")
        return name

    def _next_number(self) -> int:
        """One above the bags here and those in the dataset, which may have been moved away."""
        here = [path.name for path in self._bags.rglob("episode_*")]
        imported = [Path(about.get(BAG, "")).name for about in read_recordings(self._dataset)]
        numbers = [int(found[1]) for name in here + imported if (found := EPISODE.match(name))]
        return max(numbers, default=-1) + 1

    def _end(self, result: str) -> str:
        bag = self._take()
        place = bag.path.with_name(bag.path.name.removesuffix(".part"))
        try:
            writer = bag.stop()
            writer.write_text(RESULT, result, common.now(self))
            writer.close()
        except Exception as error:  # also those of the writing thread
            kept = bag.path.rename(name_result(place, result))
            text = f"{place.name} lost its end: {_why(error)}; the next start of the recorder imports {kept}"
            self._publish_status(text, problem=True)
            raise Refused(text) from None
        bag.path.rename(place)
        dropped = sum(bag.dropped.values())
        self._publish_status(f"{place.name}: {result}, {bag.messages} messages, {dropped} dropped", problem=dropped > 0)
        self._importer.put(place)
        return str(place)

    def _discard(self) -> str:
        bag = self._take()
        with suppress(Exception):
            bag.stop().abandon()
        bag.path.unlink()
        self._publish_status(f"discarded {bag.path.stem}")
        return "discarded"

    def _take(self) -> BagThread:
        """The running episode's bag, which ends the episode."""
        if self._bag is None:
            raise Refused(f"recorder: expected an episode in progress, found {self._given_up or 'none'}")
        bag, self._bag = self._bag, None
        return bag

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, self._start)

    def _on_end(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return _answer(response, lambda: self._end(SUCCESS if request.data else FAILURE))

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, self._discard)


def _answer(response: Any, action: Callable[[], str]) -> Any:
    """Fill the `success` and `message` of a service response."""
    try:
        response.success, response.message = True, action()
    except (InputError, Refused, OSError) as error:
        response.success, response.message = False, str(error)
    return response


def _why(error: Exception) -> str:
    """The cause in a few words."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or f"{type(error).__name__}: {error}"


def _free(folder: Path) -> int:
    """Free disk space, bytes."""
    return shutil.disk_usage(folder).free


def main() -> None:
    common.run(RecorderNode)


if __name__ == "__main__":
    main()
