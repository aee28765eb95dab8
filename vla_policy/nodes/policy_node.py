"""A checkpoint as a lifecycle node: observations in, action chunks and a heartbeat out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.contract import load_contract
from vla_policy.interfaces import ActionChunk, InputError, Observation
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message
from vla_policy.nodes.perception import Perception
from vla_policy.runtime import Pilot, Timing, Worker

WARMUP = 3  # chunks; the first ones are slow
GIL_SECONDS = 0.001  # inference must let the heartbeat pass


class PolicyNode(LifecycleNode):
    """Asks the policy for a chunk every `n_action_steps` control periods, in a thread, and publishes it.

    configure loads and warms up; activate needs observations that are fresh, and starts; deactivate and errors say
    stop; cleanup frees the model. `~/stop` is a heartbeat: true while the arm must not move on this policy's account.
    When the gate is armed an episode begins: what was seen before does not count any more.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        self._checkpoint = common.parameter(self, "checkpoint", "checkpoints/pusht_image", "folder or hub name")
        self._contract_name = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._task = common.parameter(self, "task", "", "the instruction; empty: the contract's")
        self._seed = common.parameter(self, "seed", 0, "of the policy's noise", (0, 2**31 - 1))
        self._device = common.parameter(self, "device", "cpu", "cpu or cuda")
        self._threads = common.parameter(self, "threads", 1, "of torch on a CPU", (1, 256))
        self._running, self._active, self._error, self._gate_state = True, False, "", ""
        self._told = ""
        self._worker: Worker | None = None
        self._inference, self._age = Timing(), Timing()
        # A plain publisher: the heartbeat says "stop" while the node is not active.
        self._stop = Node.create_publisher(self, Bool, "~/stop", common.HEARTBEAT_QOS)
        self._diagnostics = common.Diagnostics(self, self._report)
        self._heartbeat = common.every(self, 1.0 / common.HEARTBEAT_RATE, self._beat)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure()
        except Exception as error:  # rclpy would swallow it
            return self._fail("configure", error)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        problem = self._perception.problem()
        if problem:
            return self._fail("activate", InputError(f"expected fresh observations, found {problem}"))
        result = super().on_activate(state)
        self._pilot.reset(common.now(self))
        self._active, self._error = True, ""
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self._beat()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self._free()
        return super().on_shutdown(state)

    def close(self) -> None:
        self._free()

    def _configure(self) -> None:
        import torch

        from vla_policy.models import DiffusionPolicy

        contract = load_contract(self._contract_name)
        torch.set_num_threads(self._threads)
        sys.setswitchinterval(GIL_SECONDS)
        policy = DiffusionPolicy.from_pretrained(self._checkpoint).to(self._device)
        contract.require(policy.interface, f"checkpoint {Path(self._checkpoint).name}")
        self._instruction = self._task or contract.task
        self._names, self._frame = policy.interface.action.names, contract.command.frame_id
        generator = np.random.default_rng(self._seed)
        self._warm_up(policy)

        def predict(window: list[Observation]) -> tuple[ActionChunk, float]:
            begin = time.perf_counter()
            return policy.predict([window], generator)[0], time.perf_counter() - begin

        self._worker = Worker(predict, self._on_chunk, self._on_error)
        self._perception = Perception(self, contract, policy.interface.observations, self._on_sample)
        self._pilot = Pilot(policy.interface, policy.n_obs_steps, policy.n_action_steps, self._perception.buffer)
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, "~/action_chunk", common.COMMAND_QOS)
        self._inputs = [
            self.create_subscription(String, "task", self._on_task, common.LATCHED_QOS),
            self.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS),
        ]
        self._run_service = self.create_service(SetBool, "~/run", self._on_run)

    def _warm_up(self, policy: Any) -> None:
        values = {
            key: np.zeros(feature.shape, np.uint8 if feature.dtype == "image" else np.float32)
            for key, feature in policy.interface.observations.items()
        }
        observation = Observation(values, self._instruction, 0.0)
        for _ in range(WARMUP):
            policy.predict([[observation] * policy.n_obs_steps], np.random.default_rng(0))

    def _free(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self._perception.close()
            self.destroy_publisher(self._chunks)
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self.destroy_service(self._run_service)

    def _fail(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self._error = f"{transition}: {error}"
        self.get_logger().error(self._error)
        self._diagnostics.publish()
        return TransitionCallbackReturn.FAILURE

    def _on_task(self, message: String) -> None:
        self._instruction = message.data

    def _on_gate(self, message: String) -> None:
        state = message.data.partition(":")[0]
        if state == "armed" and self._gate_state not in ("armed", "running"):
            self._pilot.reset(common.now(self))
        self._gate_state = state

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._running = request.data
        self._pilot.reset(common.now(self))
        response.success = True
        return response

    def _on_sample(self) -> None:
        if not self._active or not self._running or self._worker is None:
            return
        try:
            observation = self._pilot.observe(self._instruction)
        except InputError as error:
            self._on_error(error)
            return
        if observation is None:
            return
        self._age.add(common.now(self) - observation.t)
        window = self._pilot.window()
        if window is not None and self._worker.ask(window):
            self._pilot.asked(window)

    def _on_chunk(self, answer: tuple[ActionChunk, float]) -> None:
        chunk, took = answer
        self._inference.add(took)
        self._chunks.publish(chunk_message(chunk, self._names, self._frame))

    def _on_error(self, error: Exception) -> None:
        self._error = str(error)
        self.get_logger().error(f"policy: {error}")

    def _beat(self) -> None:
        problem = self._problem()
        if problem != self._told and problem:
            self.get_logger().warning(f"stop: {problem}")
        self._told = problem
        self._stop.publish(Bool(data=bool(problem)))

    def _problem(self) -> str:
        """Why the arm must not move on this policy's account; "" if it may."""
        if not self._active:
            return "not active"
        return self._error or ("" if self._running else "not running") or self._perception.problem()

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        problem = self._error or self._problem()
        level = common.Diagnostics.ERROR if self._error or (problem and self._active) else common.Diagnostics.OK
        values = {
            "active": self._active,
            **common.flat("inference_ms", self._inference.summary()),
            **common.flat("observation_age_ms", self._age.summary()),
        }
        if self._worker is not None:
            values |= common.flat("refused", self._perception.buffer.refused)
        return level, problem or "running", values


def main() -> None:
    common.run(PolicyNode)


if __name__ == "__main__":
    main()
