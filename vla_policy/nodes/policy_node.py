"""A policy as a lifecycle node: observations in, action chunks and a heartbeat out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from std_msgs.msg import String, UInt64
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk, DataError, Given, InputError, Observation, Policy, Unavailable
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message
from vla_policy.nodes.lifecycle import ModelNode
from vla_policy.nodes.model import SHIPPED, end_draft, robot_policy, served_policy, shipped_policy
from vla_policy.nodes.perception import Perception
from vla_policy.nodes.planner import PlannerParameters
from vla_policy.planning.options import PlannerConfig, make_objective
from vla_policy.planning.planners import planned
from vla_policy.robot.contract import Contract, load_contract
from vla_policy.runtime import CHUNKINGS, Pilot, Timing, Worker, decided, predicted
from vla_policy.serving.options import ServerOptions, require_together

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.serving.client import RemotePolicy
    from vla_policy.world_model.diffusion_mpc import DiffusionMPC

Question = Callable[[], Callable[[], None]]  # asks the policy in the worker's thread; what to do with its answer
PERIODS = 3.0  # request intervals, or chunks of a slow policy, that one may take before the policy requests a stop
WARMUP = 3  # chunks


class PolicyNode(ModelNode):
    """Predicts a chunk every `n_action_steps` control periods, in a thread, and publishes it.

    What the arm does meanwhile, and what is published of a chunk, is the choice of `chunking` (`runtime.Chunking`). The
    delay that it expects is the largest of the latest chunks', in control periods; those of the warm-up do not count.

    With `planner.name` dmpc a chunk is the best of several, by what is imagined to follow, with foresight the one
    for what is seen when it comes. Enabling the gate begins an episode: earlier observations are discarded. The node
    requests a stop while its instruction is one that the policy does not understand (parameter `check_instruction`),
    and while the policy is served by another computer (parameter `server`) that does not answer. While the node is
    active the policy is asked in the worker's thread alone: one that hangs delays nothing else.
    """

    def __init__(self) -> None:
        self._instruction, self._understood = "", ""  # the one to follow, the last one that the policy was asked about
        self._unreadable, self._silence = "", ""
        self._lock = threading.Lock()  # of the pilot and of what is known of the instruction: answers come in a thread
        self._worker: Worker[Question, Callable[[], None]] | None = None
        self._pilot: Pilot | None = None
        self._disconnect: Callable[[], None] = lambda: None  # from a server
        self._end_draft: Callable[[], None] = lambda: None  # and its process
        self._running, self._engagement = True, 0
        self._inference, self._age = Timing(), Timing()
        super().__init__("policy")
        self._checkpoint = common.parameter(
            self, "checkpoint", "", f"folder or hub name; empty: the server's, without one {SHIPPED}"
        )
        self._server = common.parameter(
            self,
            "server",
            "",
            "ws:// or wss:// address of a vla-serve, whose device and threads count; empty: this process",
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
        self._chunking = common.parameter(
            self, "chunking", "async", f"while a chunk is computed: {', '.join(CHUNKINGS)}"
        )
        if self._chunking not in CHUNKINGS:
            raise InputError(
                f"policy: parameter 'chunking': expected one of {list(CHUNKINGS)}, found {self._chunking!r}"
            )
        self._device = common.parameter(self, "device", "cpu", "auto, cpu or cuda")
        self._threads = common.parameter(self, "threads", 1, "of torch on a CPU", (1, 256))
        self._draft = common.parameter(
            self, "draft", "", "checkpoint of a smaller policy that drafts its action tokens on another core"
        )
        self._compile = common.parameter(
            self, "compile", False, "the policy in configure, for faster chunks; needs a C++ compiler"
        )
        self._ranking: DiffusionMPC | None = None
        self._planner = PlannerParameters(self, self._want)

    def load(self) -> None:
        contract = load_contract(self._contract)
        policy = self._made(contract)
        player: Policy = policy
        if self._planner.config.name != "none":  # a server is refused with it
            player = planned(cast("DiffusionPolicy", policy), self._planner.config)
        self._ranking = cast("DiffusionMPC", player) if self._planner.config.name == "dmpc" else None
        if self._checked and policy.unchecked:
            self.get_logger().warning(policy.unchecked)
        unreadable = policy.unreadable if self._checked else lambda _: ""
        self._instruction = self._task or contract.task
        self._on_read(self._instruction, unreadable(self._instruction))
        self._names, self._frame = policy.interface.action.names, contract.command.frame_id
        took = self._warm_up(player)
        if self._chunking == "wait" and took >= contract.timeouts.chunk:
            raise InputError(
                f"policy: parameter 'chunking': expected another one than wait for chunks that take {took:.2g} s, as "
                f"the arm holds for good after {contract.timeouts.chunk:g} s, found wait"
            )
        generator = np.random.default_rng(self._seed)

        def predict(window: list[Observation], given: Given | None) -> Callable[[], None]:
            begin = time.perf_counter()
            (chunk,) = predicted(player, [window], [given], generator)
            return partial(self._on_chunk, chunk, begin)

        def read(instruction: str) -> Callable[[], None]:
            return partial(self._on_read, instruction, unreadable(instruction))

        self.perception = Perception(self, contract, policy.interface.observations, self._on_sample)
        self._predict, self._read = predict, read
        self._worker = Worker(lambda question: question(), lambda answer: answer(), self._on_failure)
        self._pilot = Pilot(
            policy.interface, policy.n_obs_steps, policy.n_action_steps, self.perception.buffer, self._chunking
        )
        self.patience = PERIODS * max(policy.n_action_steps / policy.interface.fps, took)
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, "~/action_chunk", common.COMMAND_QOS)
        self._inputs = [
            *common.subscribe_with_latched(self, String, "task", self._on_task, common.COMMAND_QOS),
            self.create_subscription(UInt64, "command_gate/engagement", self._on_engagement, common.LATCHED_QOS),
        ]
        self._run = self.create_service(SetBool, "~/run", self._on_run)

    def begin(self) -> None:
        self._silence = ""
        with self._lock:
            if self._understood != self._instruction:
                self._unreadable = "the instruction is not read yet"
        self._reading()
        self._restart()

    def _restart(self) -> None:
        """Forget what was seen, asked and played."""
        assert self._pilot is not None
        with self._lock:
            self._pilot.reset(common.now(self))

    def _want(self, config: PlannerConfig) -> None:
        """Let the planner rank for another objective from the next chunk on."""
        if self._ranking is not None:
            self._ranking.objective = make_objective(config, self._ranking.dynamics.interface)

    def free(self) -> None:
        self._disconnect()  # before the worker ends, which may be waiting for the server
        self._ranking = None
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            del self._predict, self._read  # with the policy
            self.destroy_publisher(self._chunks)
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self.destroy_service(self._run)
        self._end_draft()

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
            **({} if self._pilot is None else {"delay_periods": self._pilot.delay}),
        }

    def _made(self, contract: Contract) -> DiffusionPolicy | RemotePolicy:
        ServerOptions(self._server, self._jpeg)  # report a mistake
        require_together(self._server, self._draft, self._planner.config.name, self._chunking, compile=self._compile)
        if not self._server:
            checkpoint = self._checkpoint or shipped_policy()
            local = robot_policy(
                contract, checkpoint, self._device, self._threads, self._chunking, self._draft, self._compile
            )
            if self._draft:
                self._end_draft = partial(end_draft, local)
            return local
        policy = served_policy(contract, self._server, self._jpeg, self._checkpoint)
        self._disconnect = policy.close
        return policy

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
            (chunk,) = predicted(policy, [window], [given], np.random.default_rng(0))
            decided(chunk, observation)
        return time.perf_counter() - begin

    def _on_task(self, message: String) -> None:
        if message.data != self._instruction and self._pilot is not None:
            with self._lock:
                self._pilot.forget()
        self._instruction = message.data
        self._reading()

    def _reading(self) -> bool:
        """Whether it is known if the policy understands the instruction; if not it is asked, unless it is busy."""
        known = self._understood == self._instruction
        if not known and self._worker is not None:
            self._worker.ask(partial(self._read, self._instruction))
        return known

    def _on_read(self, instruction: str, unreadable: str) -> None:
        with self._lock:
            self._unreadable, self._silence = unreadable, ""
            self._understood = instruction
        self.answered()

    def _on_engagement(self, message: UInt64) -> None:
        if message.data != self._engagement:  # the last one is sent again after an interruption
            self._engagement = message.data
            self._restart()

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
            with self._lock:
                observation = self._pilot.observe(self._instruction)
        except DataError as error:
            self.broken(error)
            return
        if observation is None:
            return
        self._age.add(common.now(self) - observation.t)
        if self._worker.busy:  # what the next chunk continues is not known before the last one is there
            return
        window = self._pilot.window() if self._reading() else None
        if window is not None and not self._unreadable:
            with self._lock:  # the answer may be there at once
                if self._worker.ask(partial(self._predict, window, self._pilot.given(window))):
                    self._pilot.asked(window)

    def _on_chunk(self, chunk: ActionChunk, begin: float) -> None:
        assert self._pilot is not None
        self._silence = ""
        self.answered()
        with self._lock:
            seen = self._pilot.newest
        chunk = decided(chunk, seen)  # nobody else waits while an encoder looks
        self._inference.add(time.perf_counter() - begin)
        with self._lock:
            played = self._pilot.answer(chunk, common.now(self))
            if played is not None:  # before a restart, or not at all
                self._chunks.publish(chunk_message(played, self._names, self._frame))

    def _on_failure(self, error: Exception) -> None:
        if isinstance(error, Unavailable):  # asked again with the next observation that is due
            self._silence = str(error)
            self.answered()
        else:
            self.broken(error)


def main() -> None:
    common.run(PolicyNode)


if __name__ == "__main__":
    main()
