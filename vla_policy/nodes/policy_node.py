"""A checkpoint as a lifecycle node: observations in, action chunks and a heartbeat out."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk, DataError, Given, InputError, Observation, Policy
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message
from vla_policy.nodes.lifecycle import ModelNode
from vla_policy.nodes.model import robot_policy
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import load_contract
from vla_policy.runtime import CHUNKINGS, Pilot, Timing, Worker, predicted

PERIODS = 3.0  # request intervals, or chunks of a slow policy, that one may take before the policy requests a stop
WARMUP = 3  # chunks


class PolicyNode(ModelNode):
    """Predicts a chunk every `n_action_steps` control periods, in a thread, and publishes it.

    What the arm does meanwhile, and what is published of a chunk, is the choice of `chunking` (`runtime.Chunking`). The
    delay that it expects is the largest of the latest chunks', in control periods; those of the warm-up do not count.

    Arming the gate begins an episode: earlier observations are discarded. The node requests a stop while its
    instruction is one that the policy does not understand (parameter `check_instruction`).
    """

    def __init__(self) -> None:
        self._checkpoint, self._instruction, self._unreadable = "", "", ""
        self._model = threading.Lock()  # used by the worker and the executor
        self._execution = threading.Lock()  # of what the pilot knows of it; the worker answers in its own thread
        self._worker: Worker | None = None
        self._pilot: Pilot | None = None
        self._running, self._gate_state = True, ""
        self._inference, self._age = Timing(), Timing()
        super().__init__("policy")
        self._checkpoint = common.parameter(self, "checkpoint", "checkpoints/pusht_image", "folder or hub name")
        self._contract = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._task = common.parameter(self, "task", "", "the instruction; empty: the contract's")
        self._checked = common.parameter(
            self, "check_instruction", True, "request a stop for one that is not understood"
        )
        self._seed = common.parameter(self, "seed", 0, "of the policy's noise", (0, 2**31 - 1))
        self._chunking = common.parameter(
            self, "chunking", "async", f"while a chunk is computed: {', '.join(CHUNKINGS)}"
        )
        if self._chunking not in CHUNKINGS:
            raise InputError(
                f"policy: parameter 'chunking': expected one of {list(CHUNKINGS)}, found {self._chunking!r}"
            )
        self._device = common.parameter(self, "device", "cpu", "auto, cpu or cuda")
        self._threads = common.parameter(self, "threads", 1, "of torch on a CPU", (1, 256))

    def load(self) -> None:
        contract = load_contract(self._contract)
        policy = robot_policy(contract, self._checkpoint, self._device, self._threads, self._chunking)
        self._policy = policy
        if self._checked and policy.unchecked:
            self.get_logger().warning(policy.unchecked)
        self._instruct(self._task or contract.task)
        self._names, self._frame = policy.interface.action.names, contract.command.frame_id
        took = self._warm_up(policy)
        generator = np.random.default_rng(self._seed)

        def predict(question: tuple[list[Observation], Given | None]) -> tuple[ActionChunk, float]:
            begin, (window, given) = time.perf_counter(), question
            with self._model:
                (chunk,) = predicted(policy, [window], [given], generator)
            return chunk, time.perf_counter() - begin

        self._worker = Worker(predict, self._on_chunk, self.broken)
        self.perception = Perception(self, contract, policy.interface.observations, self._on_sample)
        self._pilot = Pilot(
            policy.interface, policy.n_obs_steps, policy.n_action_steps, self.perception.buffer, self._chunking
        )
        self.patience = PERIODS * max(policy.n_action_steps / policy.interface.fps, took)
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, "~/action_chunk", common.COMMAND_QOS)
        self._inputs = [
            *common.subscribe_with_latched(self, String, "task", self._on_task, common.COMMAND_QOS),
            self.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS),
        ]
        self._run = self.create_service(SetBool, "~/run", self._on_run)

    def begin(self) -> None:
        self._restart()

    def _restart(self) -> None:
        """Forget what was seen, asked and played."""
        assert self._pilot is not None
        with self._execution:
            self._pilot.reset(common.now(self))

    def free(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self.destroy_publisher(self._chunks)
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self.destroy_service(self._run)

    def problem(self) -> str:
        if self.active and self._unreadable:
            self.answered()  # no chunk is expected meanwhile
            return self._unreadable
        return super().problem() or ("" if self._running else "not running")

    def values(self) -> dict[str, Any]:
        return {
            "checkpoint": self._checkpoint,
            "instruction": self._instruction,
            **common.flat("inference_ms", self._inference.summary()),
            **common.flat("observation_age_ms", self._age.summary()),
            **({} if self._pilot is None else {"delay_periods": self._pilot.delay}),
        }

    def _warm_up(self, policy: Policy) -> float:
        """Seconds that a chunk takes when the first ones are over, in the way it is asked for later."""
        values = {
            key: np.zeros(feature.shape, np.uint8 if feature.dtype == "image" else np.float32)
            for key, feature in policy.interface.observations.items()
        }
        observation = Observation(values, self._instruction, 0.0)
        window, given = [observation] * policy.n_obs_steps, None
        if self._chunking == "rtc":
            given = Given(np.zeros((policy.n_action_steps, *policy.interface.action.shape)), 1)
        for _ in range(WARMUP):
            begin = time.perf_counter()
            predicted(policy, [window], [given], np.random.default_rng(0))
        return time.perf_counter() - begin

    def _on_task(self, message: String) -> None:
        self._instruct(message.data)

    def _instruct(self, instruction: str) -> None:
        """Use this instruction from now on, if the policy understands it."""
        with self._model:
            unreadable = self._policy.unreadable(instruction) if self._checked else ""
        self._instruction, self._unreadable = instruction, unreadable

    def _on_gate(self, message: String) -> None:
        state = message.data.partition(":")[0]
        if state == "armed" and self._gate_state not in ("armed", "running"):
            self._restart()
        self._gate_state = state

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.answered()
        self._running = request.data
        self._restart()
        response.success = True
        return response

    def _on_sample(self) -> None:
        if not self.active or not self._running or self._worker is None or self._pilot is None:
            return
        try:
            observation = self._pilot.observe(self._instruction)
        except DataError as error:
            self.broken(error)
            return
        if observation is None:
            return
        self._age.add(common.now(self) - observation.t)
        if self._worker.busy:  # what the next chunk continues is not known before the last one is there
            return
        window = self._pilot.window()
        if window is not None and not self._unreadable:
            with self._execution:  # the answer may be there at once
                self._worker.ask((window, self._pilot.given(window)))
                self._pilot.asked(window)

    def _on_chunk(self, answer: tuple[ActionChunk, float]) -> None:
        assert self._pilot is not None
        chunk, took = answer
        self.answered()
        self._inference.add(took)
        with self._execution:
            played = self._pilot.answer(chunk, common.now(self))
        if played is not None:
            self._chunks.publish(chunk_message(played, self._names, self._frame))


def main() -> None:
    common.run(PolicyNode)


if __name__ == "__main__":
    main()
