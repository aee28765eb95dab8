"""The graph's operator: brings lifecycle nodes up, arms the gate and runs episodes in the simulated robot."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool, Trigger

from vla_policy.interfaces import Failure
from vla_policy.nodes import common

DISCOVERY = 0.3  # seconds for a server to find a new client; Fast DDS drops its answer after 0.1 s without one
POLL = 0.005  # seconds
RETRY = 0.2  # seconds between attempts to activate a node
ANSWER = 5.0  # seconds without a response after which a node's state is queried
CONFIGURE = (Transition.TRANSITION_CONFIGURE, LifecycleState.PRIMARY_STATE_INACTIVE)
ACTIVATE = (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE)
DEACTIVATE = (Transition.TRANSITION_DEACTIVATE, LifecycleState.PRIMARY_STATE_INACTIVE)


class GraphError(Failure):
    """A node did not respond as requested, or has ended; the message names it."""


@dataclass(frozen=True)
class GraphEpisode:
    """An episode through the graph. `stops` has the gate's reason for every stop; after `rearmed` of them it was armed
    again. `instruction` is "" unless the simulation has several goals.
    """

    seed: int
    instruction: str
    success: bool
    steps: int
    max_coverage: float
    final_coverage: float
    seconds: float
    stops: tuple[str, ...]
    rearmed: int


class Operator:
    """Calls the services of the graph and tracks its state; spins in its own thread.

    `check` is called while waiting and may raise, for instance when a process has died.
    """

    def __init__(self, check: Callable[[], None] = lambda: None, patience: float = 120.0) -> None:
        self._check, self._patience = check, patience
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("operator", context=self._context)
        self.coverages: list[float] = []
        self.gate_state = ""
        self.gate_reason = ""
        self.instruction = ""
        self.node.create_subscription(Float64, "pusht_sim/coverage", self._on_coverage, 50)
        self.node.create_subscription(String, "task", self._on_task, common.LATCHED_QOS)
        self.diagnostics: dict[str, dict[str, str]] = {}  # the last values of every node
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.node.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS)
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown(0)
        self._thread.join(2)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def wait(self, condition: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        """Wait for `condition`; `GraphError` naming `what` after `seconds` (default: `patience`)."""
        end = time.monotonic() + (self._patience if seconds is None else seconds)
        while not condition():
            self._check()
            if time.monotonic() > end:
                raise GraphError(f"{what}: expected within {seconds or self._patience:g} s, found nothing")
            time.sleep(POLL)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Call a service and return its response."""
        future = self._ask(kind, service, request)
        self.wait(future.done, f"answer of {service}")
        return future.result()

    def _ask(self, kind: type, service: str, request: Any) -> Any:
        new = service not in self._clients
        if new:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self.wait(client.service_is_ready, f"service {service}")
        if new:
            time.sleep(DISCOVERY)
        return client.call_async(request)

    def require_alone(self, seconds: float = 1.0, patience: float = 7.0) -> None:
        """`GraphError` if this domain already has nodes; killed nodes stay visible for up to `patience` seconds.

        Discovery takes up to `seconds`.
        """
        time.sleep(seconds)
        end = time.monotonic() + patience
        while others := [name for name in self.node.get_node_names() if name != self.node.get_name()]:
            if time.monotonic() > end:
                domain = os.environ.get("ROS_DOMAIN_ID", "0")
                raise GraphError(
                    f"ROS_DOMAIN_ID {domain}: expected no nodes yet, found {sorted(others)} (another vla-sim? choose "
                    "another domain_id)"
                )
            time.sleep(0.1)

    def bring_up(self, name: str) -> None:
        """Configure and activate a lifecycle node unless it is active; retried until its observations arrive."""
        if self.state(name) == ACTIVATE[1]:
            return
        if self.state(name) != CONFIGURE[1] and not self.change(name, CONFIGURE):
            raise GraphError(f"{name}: could not be configured; its log says why")

        def active() -> bool:
            if self.change(name, ACTIVATE):
                return True
            time.sleep(RETRY)  # the node logs each refusal
            return False

        self.wait(active, f"activation of {name}, whose log says what is missing")

    def state(self, name: str) -> int:
        """The id of a lifecycle node's state; queried again if the response is lost, on a busy computer."""
        service, request = f"{name}/get_state", GetState.Request()
        asked, future = time.monotonic(), self._ask(GetState, service, request)

        def answered() -> bool:
            nonlocal asked, future
            if not future.done() and time.monotonic() > asked + ANSWER:
                asked, future = time.monotonic(), self._ask(GetState, service, request)
            return bool(future.done())

        self.wait(answered, f"answer of {service}")
        return int(future.result().current_state.id)

    def change(self, name: str, transition: tuple[int, int]) -> bool:
        """Request a lifecycle transition such as CONFIGURE; returns whether the node reached its goal state."""
        number, goal = transition
        request = ChangeState.Request(transition=Transition(id=number))
        future = self._ask(ChangeState, f"{name}/change_state", request)
        asked = time.monotonic()

        def there() -> bool:
            return self.state(name) == goal

        def settled() -> bool:
            nonlocal asked
            if future.done():
                return True
            if time.monotonic() < asked + ANSWER:
                return False
            asked = time.monotonic()
            return there()  # the response may be lost on a busy computer

        self.wait(settled, f"answer of {name}/change_state")
        return there()

    def enable(self, wanted: bool) -> None:
        """Arm or disarm the gate; retried while it refuses, for instance until it has received every heartbeat."""
        request = SetBool.Request(data=wanted)
        answer = None

        def accepted() -> bool:
            nonlocal answer
            answer = self.call(SetBool, "command_gate/enable", request)
            return bool(answer.success)

        try:
            self.wait(accepted, "arming", seconds=5.0)
            # The state arrives on a topic, after or before the service's response.
            self.wait(lambda: (self.gate_state in ("armed", "running")) == wanted, "the gate's state", seconds=5.0)
        except GraphError as error:
            raise GraphError(f"command_gate: {error}: {answer.message if answer else 'no answer'}") from None

    def run_episode(self, max_steps: int, success_coverage: float, rearm: int = 0) -> GraphEpisode:
        """One episode: reset, arm, and wait for success or `max_steps` control periods.

        When the gate stops the arm it is armed again, `rearm` times at most; then the episode ends.
        """
        self.enable(False)
        seed = int(self.call(Trigger, "pusht_sim/reset", Trigger.Request()).message.split()[-1])
        self.coverages = []
        self.enable(True)
        begin = time.monotonic()
        stops: list[str] = []
        rearmed = 0

        def finished() -> bool:
            return len(self.coverages) >= max_steps or max(self.coverages, default=0.0) > success_coverage

        while not finished():
            # ten times the nominal duration at 10 Hz
            self.wait(lambda: finished() or self._stopped(), "the end of the episode", seconds=max_steps)
            if self._stopped():
                stops.append(f"{self.gate_state}: {self.gate_reason}")
                if rearmed == rearm or not self._try_to_enable():
                    break  # the limit is reached, or the cause of the stop persists
                rearmed += 1
        coverages = self.coverages[:max_steps] or [0.0]
        seconds = time.monotonic() - begin
        self.enable(False)
        success = max(coverages) > success_coverage
        return GraphEpisode(
            seed,
            self.instruction,
            success,
            len(coverages),
            max(coverages),
            coverages[-1],
            seconds,
            tuple(stops),
            rearmed,
        )

    def _try_to_enable(self) -> bool:
        try:
            self.enable(True)
        except GraphError:
            return False
        return True

    def _stopped(self) -> bool:
        return self.gate_state in ("holding", "fault")

    def _on_coverage(self, message: Float64) -> None:
        self.coverages.append(message.data)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.diagnostics[status.name.removeprefix("/")] = {"message": status.message, **values}

    def _on_task(self, message: String) -> None:
        self.instruction = message.data

    def _on_gate(self, message: String) -> None:
        self.gate_state, _, self.gate_reason = message.data.partition(": ")
