"""What the nodes share: startup and shutdown, parameters, QoS profiles, time, diagnostics."""

from __future__ import annotations

import importlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import NameValidationException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.time import Time

from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.exits import exit_status
from vla_policy.utils.starter import Starter

HEARTBEAT_RATE = 25.0  # Hz
CHECKS_PER_HEARTBEAT = 4  # how often per heartbeat period a node checks whether it must stop at once
CRASHED = threading.Event()  # a vital thread has ended with an exception
PRIORITY = 40  # SCHED_FIFO, below the kernel's threads and ros2_control
OF_RCLPY = ("use_sim_time", "start_type_description_service", "qos_overrides")  # parameters that every node has
# What a node's start raises: of parameters and files, of names of topics and nodes, of ROS arguments.
START_ERRORS = (InputError, Failure, OSError, NameValidationException, RCLError, UnknownROSArgsError)
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def _qos(reliability: ReliabilityPolicy, depth: int, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


IMAGE_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, 2, DurabilityPolicy.VOLATILE)
STATE_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, 5, DurabilityPolicy.VOLATILE)
COMMAND_QOS = _qos(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.VOLATILE)
HEARTBEAT_QOS = _qos(ReliabilityPolicy.RELIABLE, 50, DurabilityPolicy.VOLATILE)  # deep enough not to lose a stop
LATCHED_QOS = _qos(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)


def best_effort(depth: int) -> QoSProfile:
    """Best-effort, volatile, with a queue of `depth` messages."""
    return _qos(ReliabilityPolicy.BEST_EFFORT, depth, DurabilityPolicy.VOLATILE)


def run(make: Callable[[], Node]) -> None:
    """Run one node until Ctrl-C, SIGTERM, the end of the launch that started it, or the crash of a vital thread, which
    is status 1. A mistake of the user's is one line and status 2, a failure one line and status 1.
    """
    stop, starter = threading.Event(), Starter()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    status, node = 0, None
    try:
        # rclpy's own handlers would shut the context down while the node's threads still use it.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        _require_known_parameters(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not (stop.is_set() or CRASHED.is_set() or starter.gone()):
            executor.spin_once(timeout_sec=0.2)
        status = int(CRASHED.is_set())
    except START_ERRORS as error:
        if node is not None and not isinstance(error, (InputError, Failure)):
            raise
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        status = exit_status(error)
    finally:
        if node is not None:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    sys.exit(status)


def _require_known_parameters(node: Node) -> None:
    """`InputError` for a parameter that the node does not declare: rclpy ignores those silently."""
    known = {name for name in node.get_parameters_by_prefix("") if not name.startswith(OF_RCLPY)}
    for name in node._parameter_overrides:
        if name not in known and not name.startswith(OF_RCLPY):
            raise InputError(f"{node.get_name()}: expected the parameters {sorted(known)}, found {name!r}")


def request_realtime() -> bool:
    """Give this thread SCHED_FIFO priority, as ros2_control's manager does; false without permission (ulimit -r)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def drop_realtime() -> None:
    """Return this thread to normal scheduling; threads that it has started keep their priority."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def parameter(node: Node, name: str, default: Any, description: str, bounds: tuple[Any, Any] | None = None) -> Any:
    """Declare a read-only parameter and return its value; `InputError` if it is out of `bounds`."""
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if bounds is not None and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds[0], to_value=bounds[1], step=0.0)]
    elif bounds is not None:
        descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1], step=1)]
    try:
        value = node.declare_parameter(name, default, descriptor).value
        if value is None:
            raise InputError("nothing")  # rclpy's value for an empty list
        return value
    except Exception as error:  # rclpy's parameter exceptions have no common base class
        within = f" from {bounds[0]} to {bounds[1]}" if bounds is not None else ""
        given = node._parameter_overrides.get(name)
        found = given.value if isinstance(given, Parameter) else error
        raise InputError(
            f"{node.get_name()}: parameter {name!r}: expected a {type(default).__name__}{within}, found {found!r}"
        ) from None


def subscribe_with_latched(
    node: Node,
    kind: type,
    topic: str,
    callback: Callable[[Any], None],
    qos: QoSProfile,
    events: SubscriptionEventCallbacks | None = None,
) -> list[Subscription]:
    """Two subscriptions: one volatile, to every publisher, and one for the last message of latched publishers.

    A transient-local subscription alone would not match volatile publishers such as `ros2 topic pub`. New messages of
    a latched publisher arrive twice. `qos` is volatile and reliable.
    """
    unmatched = SubscriptionEventCallbacks(use_default_callbacks=False)  # no warning: a mismatch is expected here
    return [
        node.create_subscription(kind, topic, callback, qos, event_callbacks=events),
        node.create_subscription(kind, topic, callback, LATCHED_QOS, event_callbacks=unmatched),
    ]


def message_class(name: str) -> type:
    """The class of e.g. "sensor_msgs/msg/Image"; `InputError` if the package is not installed."""
    package, _, kind = name.partition("/msg/")
    try:
        found: type = getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        raise InputError(f"message type {name!r}: expected an installed one, found none") from None
    return found


def endpoints(infos: Sequence[Any]) -> list[str]:
    """Node names of endpoints as returned by `get_publishers_info_by_topic`."""
    return sorted(f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos)


def now(node: Node) -> float:
    """ROS time in seconds, the clock of all stamps."""
    return float(node.get_clock().now().nanoseconds * 1e-9)


def steady() -> float:
    """Monotonic time in seconds."""
    return float(STEADY.now().nanoseconds * 1e-9)


def stamp(seconds: float) -> Any:
    """Seconds as a `builtin_interfaces/Time`."""
    return Time(nanoseconds=round(seconds * 1e9)).to_msg()


def duration(seconds: float) -> Any:
    """Seconds as a `builtin_interfaces/Duration`."""
    return Duration(nanoseconds=round(seconds * 1e9)).to_msg()


def every(node: Node, seconds: float, call: Callable[[], None]) -> Any:
    """A timer on the steady clock, independent of jumps and pauses of ROS time."""
    return node.create_timer(seconds, call, clock=STEADY)


def vital(run: Callable[[], None]) -> None:
    """`run` as the target of a thread whose exceptions end the process."""
    try:
        run()
    except Exception:
        traceback.print_exc()
        CRASHED.set()


class Ticker:
    """Calls `tick` at a fixed rate of the steady clock in its own thread, cheaper than an executor's timer.

    Missed ticks are skipped. An exception in `tick` ends the process: a gate that looks alive but no longer ticks
    would be worse.
    """

    def __init__(self, seconds: float, tick: Callable[[], None]) -> None:
        self._seconds, self._tick = seconds, tick
        self._closing = threading.Event()
        self._thread = threading.Thread(target=vital, args=(self._repeat,), name="ticker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _repeat(self) -> None:
        due = time.monotonic()
        while not self._closing.wait(max(0.0, due - time.monotonic())):
            self._tick()
            due += self._seconds * max(1, math.ceil((time.monotonic() - due) / self._seconds))


class Diagnostics:
    """Publishes level, message and values of `report` on /diagnostics once a second."""

    OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

    def __init__(self, node: Node, report: Callable[[], tuple[bytes, str, Mapping[str, Any]]]) -> None:
        self._node, self._report = node, report
        # Not a lifecycle publisher, which would publish nothing until the node is active.
        self._publisher = Node.create_publisher(node, DiagnosticArray, "/diagnostics", 10)
        self._timer = every(node, 1.0, self.publish)

    def publish(self) -> None:
        level, message, values = self._report()
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


def flat(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """{"latency_ms.p50": ...} of {"p50": ...}."""
    return {f"{name}.{key}": value for key, value in values.items()}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
