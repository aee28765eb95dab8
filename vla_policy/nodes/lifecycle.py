"""Base of the nodes with a model: lifecycle transitions that report why they fail, and a stop heartbeat."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from std_msgs.msg import Bool, String

from vla_policy.interfaces import Refused
from vla_policy.nodes import common
from vla_policy.nodes.perception import Perception
from vla_policy.runtime import Watchdog

ANSWER = "answer"
RCLError = rclpy_implementation.RCLError


class ModelNode(LifecycleNode):
    """configure calls `load`, activate requires fresh observations and calls `begin`, cleanup calls `free`.

    Transitions that the current state does not have are refused.

    `~/stop` is a heartbeat, true while the arm must not move on this node's account. A separate thread sends it in
    every lifecycle state, so that a busy executor does not delay it. `~/stop_reason` is the reason, "" if none.
    """

    perception: Perception | None = None
    patience = 1.0
    """Longest time in seconds between two answers of the model while there are observations."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active, self.error = False, ""
        self._stop_reason = "not active"
        self._answers = Watchdog({ANSWER: self.patience})
        # Not lifecycle publishers, which would publish nothing until the node is active.
        self._stop = Node.create_publisher(self, Bool, "~/stop", common.HEARTBEAT_QOS)
        self._reason = Node.create_publisher(self, String, "~/stop_reason", common.LATCHED_QOS)
        self._reason.publish(String(data=self._stop_reason))
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._on_change, service.callback)
        self.diagnostics = common.Diagnostics(self, self._report)
        self._checks = 0
        self._heartbeat = common.Ticker(1.0 / common.HEARTBEAT_RATE / common.CHECKS_PER_HEARTBEAT, self._check)

    def load(self) -> None:
        """Load and warm up; sets `perception`. An exception fails the configure transition."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start; observations are fresh."""

    def free(self) -> None:
        """Undo `load`, which may have failed at any point; may be called without a prior `load`."""

    def values(self) -> dict[str, Any]:
        """Measurements for /diagnostics."""
        return {}

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.load()
        except Exception as error:  # rclpy would discard its message
            self._release()
            return self._fail("configure", error)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self.perception is not None
        problem = self.perception.problem()
        if problem:
            return self._fail("activate", Refused(f"fresh observations are needed, but {problem}"))
        result = super().on_activate(state)
        self.begin()
        self._answers = Watchdog({ANSWER: self.patience})
        self.answered()
        self.active, self.error = True, ""
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self.beat()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self._release()
        return super().on_error(state)

    def close(self) -> None:
        """Called before the node is destroyed."""
        self.active = False
        self._heartbeat.close()
        self._release()

    def problem(self) -> str:
        """Why the arm must not move on this node's account; "" if it may."""
        # Poll both watchdogs also while inactive: they take a gap in polling for their own process's suspension.
        late = self._answers.check(common.steady())
        unseen = "not configured" if self.perception is None else self.perception.problem()
        if not self.active:
            return "not active"
        problem = self.error or unseen
        if problem:
            self.answered()  # without observations no answer is due
            return problem
        return f"no answer of the model for {late[ANSWER]:.1f} s" if late else ""

    def answered(self) -> None:
        """The model has answered; without this a hanging inference thread would go unnoticed."""
        self._answers.feed(ANSWER, common.steady())

    def broken(self, error: Exception) -> None:
        """Request a stop until the node is activated again."""
        self.error = str(error)
        self.get_logger().error(self.error)

    def beat(self) -> None:
        """Publish the heartbeat, and the reason if it has changed."""
        problem, previous = self.problem(), self._stop_reason
        self._stop_reason = problem
        if problem != previous:
            self._reason.publish(String(data=problem))
        self._stop.publish(Bool(data=bool(problem)))
        if problem and _without_numbers(problem) != _without_numbers(previous):  # last, since logging is slow
            self.get_logger().warning(f"stop: {problem}")

    def _on_change(
        self,
        change: Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response],
        request: ChangeState.Request,
        response: ChangeState.Response,
    ) -> ChangeState.Response:
        """Answer an invalid transition: rclpy raises for it, which would end the process."""
        try:
            return change(request, response)
        except RCLError:
            name = request.transition.label or f"transition {request.transition.id}"
            self.get_logger().warning(f"refused: {name} of a node that is {self._state_machine.current_state[1]}")
            response.success = False
            return response

    def _check(self) -> None:
        self._checks += 1
        if self._checks % common.CHECKS_PER_HEARTBEAT == 0 or bool(self.problem()) != bool(self._stop_reason):
            self.beat()

    def _release(self) -> None:
        self.free()
        if self.perception is not None:
            self.perception.close()
            self.perception = None

    def _fail(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self.error = f"{transition}: {error}"
        self.get_logger().error(self.error)
        self.diagnostics.publish()
        return TransitionCallbackReturn.FAILURE

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        problem = self.error or self.problem()
        level = common.Diagnostics.ERROR if self.error or (problem and self.active) else common.Diagnostics.OK
        refused = {} if self.perception is None else common.flat("refused", self.perception.buffer.refused)
        return level, problem or "running", {"active": self.active, **self.values(), **refused}


def _without_numbers(problem: str) -> str:
    """A problem without its numbers, so that one with a running time in it is logged once."""
    return re.sub(r"\d+(\.\d+)?", "", problem)
