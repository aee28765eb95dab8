"""Episodes of one environment, executed through the runtime like those of a robot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from vla_policy.interfaces import STATE, ActionChunk, Given, InputError, Observation
from vla_policy.rollouts.control import ControlLoop, drive_of
from vla_policy.rollouts.events import EventLog
from vla_policy.rollouts.lookahead import Proposals, best_of
from vla_policy.rollouts.results import EpisodeResult, EpisodeSpec, Start
from vla_policy.rollouts.watch import WatchedStep


class EpisodeRunner:
    """Runs one episode after the other in one environment; time is counted in control periods.

    The environment needs Gymnasium's API, `interface`, `task`, a Box of actions, `observation.state` in the action's
    units, and `is_success`, `coverage`, `pos_agent` and `block_pose` in `info`; `goal` and `reached` there are names of
    goals where there are several. `contract` may name the contract of the simulated robot.
    """

    def __init__(self, env: gymnasium.Env, spec: EpisodeSpec) -> None:
        self._env: Any = env
        self._spec, self._drive = spec, drive_of(env)
        self._keys = list(spec.interface.observations)
        delay, most = spec.delay / spec.interface.fps, self._drive.chunk_timeout
        if spec.chunking == "wait" and delay >= most:
            raise InputError(
                f"delay: expected less than {most:g} s with chunking=wait, after which the arm holds for good, "
                f"found {spec.delay} control periods, {delay:g} s"
            )
        self.steps = 0  # of the current episode
        self.seen: Mapping[str, np.ndarray] = {}  # all of the newest observation, more than the policy gets

    def start(self, start: Start) -> None:
        """Reset the environment and start this episode."""
        observation, info = self._env.reset(seed=start.seed, options=start.options)
        spec = self._spec
        self._control = ControlLoop(spec.interface, spec.n_obs_steps, spec.n_action_steps, self._drive, spec.chunking)
        self._seed, self.steps, self._info = start.seed, 0, info
        self._task: str = self._env.get_wrapper_attr("task")
        self._pusher = tuple(np.asarray(info["pos_agent"], float).tolist())
        self._block_pose = tuple(np.asarray(info["block_pose"], float).tolist())
        self._rewards: list[float] = []
        self._coverages: list[float] = []
        self._actions: list[np.ndarray] = []
        self._path: list[np.ndarray] = []
        self._statuses: list[str] = []
        self._events, self._halted = EventLog(info), False
        self._answer: tuple[int, ActionChunk] | None = None  # a chunk, and the step at which it is ready
        self._plan: Mapping[str, np.ndarray] = {}  # what is imagined from that step on
        self._plans: list[tuple[int, Mapping[str, np.ndarray]]] = []
        self._chunk: ActionChunk | None = None  # accepted since the previous observation
        self._watched: list[WatchedStep] = []
        self._observe(observation, None)

    def ask(self) -> list[Observation] | None:
        """The policy's input if a chunk is needed now and none is being computed, else None."""
        self._enter()
        return self._control.ask() if self._answer is None else None

    @property
    def given(self) -> Given | None:
        """What the chunk that was asked for last should continue."""
        return self._control.given

    def answer(self, chunk: ActionChunk) -> None:
        """Enter the policy's chunk after `delay`; until then `chunking` says what the arm does.

        Of several proposals it is the one that would be best. `InputError` if its last row is over by then.
        """
        rows = len(chunk.actions)
        if self._spec.delay >= rows and self._spec.chunking != "wait":
            raise InputError(f"delay: expected less than a chunk, {rows} control periods, found {self._spec.delay}")
        begins_later = self._spec.chunking == "wait" and not isinstance(chunk, Proposals)  # these see the delay, too
        if isinstance(chunk, Proposals):
            chunk = best_of(chunk, self)
        over = 0 if begins_later else self._spec.delay
        self._plan = {key: states[over:] for key, states in chunk.imagined.items()}
        self._answer = self.steps + self._spec.delay, chunk

    def close_eyes(self) -> None:
        """Let the cameras repeat their last pictures, which saves the time of rendering, until the next episode."""
        if self._env.has_wrapper_attr("freeze_cameras"):
            self._env.get_wrapper_attr("freeze_cameras")(self.seen)

    def halt(self) -> None:
        """Hold until the end of the episode."""
        self._control.halt("monitor")
        self._halted = True

    def take_watched(self) -> list[WatchedStep]:
        """The steps since the last call, oldest first."""
        watched, self._watched = self._watched, []
        return watched

    def step(self) -> EpisodeResult | None:
        """Run one control period; the result if the episode has ended."""
        self._enter()
        command = self._control.command()
        action = command.action.astype(self._env.action_space.dtype)
        observation, reward, terminated, truncated, self._info = self._env.step(action)
        self.steps += 1
        self._rewards.append(float(reward))
        self._coverages.append(float(self._info["coverage"]))
        self._actions.append(action)
        self._path.append(np.asarray(self._info["pos_agent"], float))
        self._statuses.append(command.status)
        self._events.step(self.steps - 1, self._info, command.status == "hold", self._halted)
        self._observe(observation, action)
        return self._result() if terminated or truncated else None

    def refuse(self) -> EpisodeResult:
        """The result of an episode that the policy refuses to start."""
        coverage = float(self._info["coverage"])
        return EpisodeResult(
            seed=self._seed,
            success=False,
            steps=0,
            max_coverage=coverage,
            final_coverage=coverage,
            max_reward=0.0,
            sum_reward=0.0,
            clipped_steps=0,
            held_steps=0,
            pusher=self._pusher,
            block_pose=self._block_pose,
            actions=np.zeros((0, *self._env.action_space.shape)),
            task=self._task,
            goal=self._info.get("goal", ""),
            refused=True,
        )

    def _enter(self) -> None:
        """Play the policy's chunk if it is ready."""
        if self._answer is not None and self.steps >= self._answer[0]:
            chunk, self._answer = self._answer[1], None
            accepted = self._control.offer(chunk)
            self._chunk = self._control.chunk if accepted else None
            if accepted and self._plan:
                self._plans.append((self.steps, self._plan))

    def _observe(self, observation: dict[str, np.ndarray], command: np.ndarray | None) -> None:
        self.seen = observation
        # Only the policy's keys: a camera policy must not get the privileged state.
        values = {key: observation[key] for key in self._keys}
        self._control.observe(values, self._task, observation[STATE])
        if self._spec.watched is not None:
            watched = {key: observation[key] for key in self._spec.watched}
            self._watched.append(WatchedStep(Observation(watched, self._task, self._control.now), command, self._chunk))
            self._chunk = None

    def _result(self) -> EpisodeResult:
        return EpisodeResult(
            seed=self._seed,
            success=bool(self._info["is_success"]),
            steps=self.steps,
            max_coverage=max(self._coverages),
            final_coverage=self._coverages[-1],
            max_reward=max(self._rewards),
            sum_reward=sum(self._rewards),
            clipped_steps=self._statuses.count("clipped"),
            held_steps=self._statuses.count("hold"),
            pusher=self._pusher,
            block_pose=self._block_pose,
            actions=np.array(self._actions),
            path=np.array(self._path),
            seams=np.array(self._control.seams),
            plans=tuple(self._plans),
            task=self._task,
            goal=self._info.get("goal", ""),
            reached=self._info.get("reached", ""),
            aftermath=self._events.aftermath(self.steps),
        )
