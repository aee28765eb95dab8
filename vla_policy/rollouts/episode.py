"""One environment, played through the runtime as the robot will be."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from vla_policy.interfaces import ActionChunk, Observation
from vla_policy.rollouts.events import EventLog
from vla_policy.rollouts.results import EpisodeResult, PolicySpec, Start
from vla_policy.rollouts.watch import Watch
from vla_policy.runtime import Executor, Limits


class Player:
    """Plays one episode after the other in one environment; time is the step count divided by fps.

    Of the environment it wants Gymnasium's API, `interface`, `task`, a Box of actions, and `is_success`, `coverage`,
    `pos_agent` and `block_pose` in `info`; `goal` and `reached` there are names of goals where there are several.
    A watch sees what its cameras show, and may halt the arm.
    """

    def __init__(self, env: gymnasium.Env, spec: PolicySpec, watch: Watch | None = None) -> None:
        self._env: Any = env
        self._watch = watch
        self._keys = list(spec.interface.observations)
        box: Any = env.action_space
        self._executor = Executor(
            spec.interface, spec.n_obs_steps, spec.n_action_steps, Limits(box.low.astype(float), box.high.astype(float))
        )
        self._dt = 1.0 / spec.interface.fps
        self._delay = spec.delay
        self.steps = 0  # of the current episode

    def start(self, start: Start) -> None:
        """Begin this episode."""
        observation, info = self._env.reset(seed=start.seed, options=start.options)
        self._executor.reset()
        self._seed, self.steps, self._info = start.seed, 0, info
        self._task: str = self._env.get_wrapper_attr("task")
        self._pusher = tuple(np.asarray(info["pos_agent"], float).tolist())
        self._block_pose = tuple(np.asarray(info["block_pose"], float).tolist())
        self._rewards: list[float] = []
        self._coverages: list[float] = []
        self._actions: list[np.ndarray] = []
        self._statuses: list[str] = []
        self._events, self._halted = EventLog(info), False
        self._chunk: ActionChunk | None = None
        if self._watch is not None:
            self._watch.reset()
        self._see(observation, None)

    def window(self) -> list[Observation]:
        """The policy's input now."""
        return self._executor.window()

    def play(self, chunk: ActionChunk) -> EpisodeResult | None:
        """Execute the chunk until the next one is wanted (None) or the episode is over (its result).

        While a chunk is delayed the one before it is played on, and before the first one the arm holds.
        """
        for _ in range(self._delay):
            if self._step():
                return self._result()
        if self._executor.accept(chunk, self._now):
            self._chunk = chunk
        over = False
        while not over:
            over = self._step()
            if not over and self._executor.needs_chunk(self._now):
                return None
        return self._result()

    def refuse(self) -> EpisodeResult:
        """The episode that the policy does not begin."""
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

    @property
    def _now(self) -> float:
        return self.steps * self._dt

    def _see(self, observation: dict[str, np.ndarray], command: np.ndarray | None) -> None:
        # Only what the policy needs: a policy for cameras must not carry the privileged state around.
        values = {key: observation[key] for key in self._keys}
        self._executor.observe(Observation(values, self._task, self._now))
        if self._watch is not None:
            seen = {key: observation[key] for key in self._watch.cameras}
            if self._watch.update(Observation(seen, self._task, self._now), command, self._chunk):
                self._executor.halt()
                self._halted = True

    def _step(self) -> bool:
        """One control period; whether the episode is over."""
        command = self._executor.command(self._now)
        action = command.action.astype(self._env.action_space.dtype)
        observation, reward, terminated, truncated, self._info = self._env.step(action)
        self.steps += 1
        self._rewards.append(float(reward))
        self._coverages.append(float(self._info["coverage"]))
        self._actions.append(action)
        self._statuses.append(command.status)
        self._events.step(self.steps - 1, self._info, command.status == "hold", self._halted)
        self._see(observation, action)
        return bool(terminated or truncated)

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
            task=self._task,
            goal=self._info.get("goal", ""),
            reached=self._info.get("reached", ""),
            aftermath=self._events.aftermath(self.steps),
            watched=self._watch.record() if self._watch is not None else {},
        )
