"""What the nodes with a model have in common: transitions that say why they fail, and a heartbeat that says stop."""

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
    """configure loads (`load`), activate needs fresh observations and starts (`begin`), cleanup frees (`free`).

    A transition that the node's state does not have is refused.

    `~/stop` is a heartbeat: true while the arm must not move on this node's account. It is sent by a thread, so that a
    busy executor does not silence it, and in every lifecycle state. `~/stop_reason` says why, in words, "" if it may.
    """

    perception: Perception | None = None
    patience = 1.0
    """Seconds that the model may take from one answer to the next while there are observations."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active, self.error = False, ""
        self._told = "not active"
        self._answers = Watchdog({ANSWER: self.patience})
        # Plain publishers: a lifecycle publisher would be silent until the node is active.
        self._stop = Node.create_publisher(self, Bool, "~/stop", common.HEARTBEAT_QOS)
        self._reason = Node.create_publisher(self, String, "~/stop_reason", common.LATCHED_QOS)
        self._reason.publish(String(data=self._told))
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._on_change, service.callback)
        self.diagnostics = common.Diagnostics(self, self._report)
        self._looks = 0
        self._heartbeat = common.Ticker(1.0 / common.HEARTBEAT_RATE / common.BEATS_LOOK, self._look)

    def load(self) -> None:
        """Load and warm up; sets `perception`. Whatever is raised is the reason why the node is not configured."""
        raise NotImplementedError

    def begin(self) -> None:
        """Observations are there; start."""

    def free(self) -> None:
        """Undo `load`; may be called without it."""

    def values(self) -> dict[str, Any]:
        """Measurements for /diagnostics."""
        return {}

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.load()
        except Exception as error:  # rclpy would swallow it
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
        """Before the node is destroyed."""
        self.active = False
        self._heartbeat.close()
        self._release()

    def problem(self) -> str:
        """Why the arm must not move on this node's account; "" if it may."""
        # Always look at both, also while inactive: what is not looked at would count as the watchdogs' own sleep.
        late = self._answers.check(common.steady())
        unseen = "not configured" if self.perception is None else self.perception.problem()
        if not self.active:
            return "not active"
        problem = self.error or unseen
        if problem:
            self.answered()  # the model is not to blame for what it could not see
            return problem
        return f"no answer of the model for {late[ANSWER]:.1f} s" if late else ""

    def answered(self) -> None:
        """The model is at work: a thread that hangs would leave the heartbeat as it is."""
        self._answers.feed(ANSWER, common.steady())

    def broken(self, error: Exception) -> None:
        """Say stop until the node is activated again."""
        self.error = str(error)
        self.get_logger().error(self.error)

    def beat(self) -> None:
        """Say whether the arm has to stop."""
        problem, told = self.problem(), self._told
        self._told = problem
        if problem != told:
            self._reason.publish(String(data=problem))
        self._stop.publish(Bool(data=bool(problem)))
        if problem and _but_numbers(problem) != _but_numbers(told):  # afterwards, for it takes its time
            self.get_logger().warning(f"stop: {problem}")

    def _on_change(
        self,
        change: Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response],
        request: ChangeState.Request,
        response: ChangeState.Response,
    ) -> ChangeState.Response:
        """rclpy raises at a transition that there is none from the present state, which would end the process."""
        try:
            return change(request, response)
        except RCLError:
            asked = request.transition.label or f"transition {request.transition.id}"
            self.get_logger().warning(f"refused: {asked} of a node that is {self._state_machine.current_state[1]}")
            response.success = False
            return response

    def _look(self) -> None:
        self._looks += 1
        if self._looks % common.BEATS_LOOK == 0 or bool(self.problem()) != bool(self._told):
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


def _but_numbers(problem: str) -> str:
    """A problem that lasts is logged once, though the seconds in it count up."""
    return re.sub(r"\d+(\.\d+)?", "", problem)
