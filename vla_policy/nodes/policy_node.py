"""A policy as a lifecycle node: observations in, action chunks and a heartbeat out."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk, DataError, Observation, Policy, Unavailable
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message
from vla_policy.nodes.lifecycle import ModelNode
from vla_policy.nodes.model import SHIPPED, robot_policy, served_policy
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import Contract, load_contract
from vla_policy.runtime import Pilot, Timing, Worker
from vla_policy.serving.options import ServerOptions

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.serving.client import RemotePolicy

Question = Callable[[], Callable[[], None]]  # asks the policy in the worker's thread; what to do with its answer
PERIODS = 3.0  # request intervals that one chunk may take before the policy requests a stop
WARMUP = 3  # chunks


class PolicyNode(ModelNode):
    """Predicts a chunk every `n_action_steps` control periods, in a thread, and publishes it.

    Arming the gate begins an episode: earlier observations are discarded. The node requests a stop while its
    instruction is one that the policy does not understand (parameter `check_instruction`), and while the policy is
    served by another computer (parameter `server`) that does not answer. While the node is active the policy is asked
    in the worker's thread alone: one that hangs delays nothing else.
    """

    def __init__(self) -> None:
        self._instruction, self._understood = "", ""  # the one to follow, the last one that the policy was asked about
        self._unreadable, self._silence = "", ""
        self._worker: Worker[Question, Callable[[], None]] | None = None
        self._disconnect: Callable[[], None] = lambda: None  # from a server
        self._running, self._gate_state = True, ""
        self._inference, self._age = Timing(), Timing()
        super().__init__("policy")
        self._checkpoint = common.parameter(
            self, "checkpoint", "", f"folder or hub name; empty: the server's, without one {SHIPPED}"
        )
        self._server = common.parameter(
            self, "server", "", "ws:// or wss:// address of a vla-serve that computes the chunks; empty: this process"
        )
        self._jpeg = common.parameter(
            self, "jpeg", 0, "quality of the pictures that the server gets, 1 to 95; 0: as they are", (0, 95)
        )
        self._contract = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._task = common.parameter(self, "task", "", "the instruction; empty: the contract's")
        self._checked = common.parameter(
            self, "check_instruction", True, "request a stop for one that is not understood"
        )
        self._seed = common.parameter(self, "seed", 0, "of the policy's noise", (0, 2**31 - 1))
        self._device = common.parameter(self, "device", "cpu", "auto, cpu or cuda")
        self._threads = common.parameter(self, "threads", 1, "of torch on a CPU", (1, 256))

    def load(self) -> None:
        contract = load_contract(self._contract)
        self._disconnect()
        policy = self._made(contract)
        if self._checked and policy.unchecked:
            self.get_logger().warning(policy.unchecked)
        unreadable = policy.unreadable if self._checked else lambda _: ""
        self._instruction = self._task or contract.task
        self._on_read(self._instruction, unreadable(self._instruction))
        self._names, self._frame = policy.interface.action.names, contract.command.frame_id
        self._warm_up(policy)
        generator = np.random.default_rng(self._seed)

        def predict(window: list[Observation]) -> Callable[[], None]:
            begin = time.perf_counter()
            chunk = policy.predict([window], generator)[0]
            return partial(self._on_chunk, chunk, time.perf_counter() - begin)

        def read(instruction: str) -> Callable[[], None]:
            return partial(self._on_read, instruction, unreadable(instruction))

        self._predict, self._read = predict, read
        self._worker = Worker(lambda question: question(), lambda answer: answer(), self._on_failure)
        self.perception = Perception(self, contract, policy.interface.observations, self._on_sample)
        self._pilot = Pilot(policy.interface, policy.n_obs_steps, policy.n_action_steps, self.perception.buffer)
        self.patience = PERIODS * policy.n_action_steps / policy.interface.fps
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, "~/action_chunk", common.COMMAND_QOS)
        self._inputs = [
            *common.subscribe_with_latched(self, String, "task", self._on_task, common.COMMAND_QOS),
            self.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS),
        ]
        self._run = self.create_service(SetBool, "~/run", self._on_run)

    def begin(self) -> None:
        self._silence = ""
        if not self._reading():
            self._unreadable = "the instruction is not read yet"
        self._pilot.reset(common.now(self))

    def free(self) -> None:
        self._disconnect()  # before the worker ends, which may be waiting for the server
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self.destroy_publisher(self._chunks)
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self.destroy_service(self._run)

    def problem(self) -> str:
        if self.active and self._unreadable and not self._silence:
            self.answered()  # no chunk is expected meanwhile
            return self._unreadable
        return super().problem() or self._silence or ("" if self._running else "not running")

    def values(self) -> dict[str, Any]:
        return {
            "checkpoint": self._checkpoint,
            "server": self._server,
            "instruction": self._instruction,
            **common.flat("inference_ms", self._inference.summary()),
            **common.flat("observation_age_ms", self._age.summary()),
        }

    def _made(self, contract: Contract) -> DiffusionPolicy | RemotePolicy:
        ServerOptions(self._server, self._jpeg)  # report a mistake
        if not self._server:
            return robot_policy(contract, self._checkpoint or SHIPPED, self._device, self._threads)
        policy = served_policy(contract, self._server, self._jpeg, self._checkpoint)
        self._disconnect = policy.close
        return policy

    def _warm_up(self, policy: Policy) -> None:
        values = {
            key: np.zeros(feature.shape, np.uint8 if feature.dtype == "image" else np.float32)
            for key, feature in policy.interface.observations.items()
        }
        observation = Observation(values, self._instruction, 0.0)
        for _ in range(WARMUP):
            policy.predict([[observation] * policy.n_obs_steps], np.random.default_rng(0))

    def _on_task(self, message: String) -> None:
        self._instruction = message.data
        self._reading()

    def _reading(self) -> bool:
        """Whether it is known if the policy understands the instruction; if not it is asked, unless it is busy."""
        known = self._understood == self._instruction
        if not known and self._worker is not None:
            self._worker.ask(partial(self._read, self._instruction))
        return known

    def _on_read(self, instruction: str, unreadable: str) -> None:
        self._unreadable, self._silence = unreadable, ""
        self._understood = instruction
        self.answered()

    def _on_gate(self, message: String) -> None:
        state = message.data.partition(":")[0]
        if state == "armed" and self._gate_state not in ("armed", "running"):
            self._pilot.reset(common.now(self))
        self._gate_state = state

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.answered()
        self._running = request.data
        self._pilot.reset(common.now(self))
        response.success = True
        return response

    def _on_sample(self) -> None:
        if not self.active or not self._running or self._worker is None:
            return
        try:
            observation = self._pilot.observe(self._instruction)
        except DataError as error:
            self.broken(error)
            return
        if observation is None:
            return
        self._age.add(common.now(self) - observation.t)
        window = self._pilot.window() if self._reading() else None
        if window is not None and not self._unreadable and self._worker.ask(partial(self._predict, window)):
            self._pilot.asked(window)

    def _on_chunk(self, chunk: ActionChunk, took: float) -> None:
        self._silence = ""
        self.answered()
        self._inference.add(took)
        self._chunks.publish(chunk_message(chunk, self._names, self._frame))

    def _on_failure(self, error: Exception) -> None:
        if isinstance(error, Unavailable):  # asked again with the next observation
            self._silence = str(error)
            self.answered()
        else:
            self.broken(error)


def main() -> None:
    common.run(PolicyNode)


if __name__ == "__main__":
    main()
