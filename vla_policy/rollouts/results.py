"""Starts and results of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_policy.interfaces import InputError, Interface, Policy

if TYPE_CHECKING:
    from vla_policy.rollouts.watch import Watcher


@dataclass(frozen=True)
class EpisodeSpec:
    """What a simulation worker needs to know of the policy and the watcher; cheap to send to another process.

    `delay` is the inference time in control periods, `chunking` how it is bridged (`runtime.Chunking`).
    `watched` are the watcher's observation keys (None: no watcher), `may_halt` is the watcher's.
    """

    interface: Interface
    n_obs_steps: int
    n_action_steps: int
    delay: int = 0
    chunking: str = "async"
    watched: tuple[str, ...] | None = None
    may_halt: bool = False

    @classmethod
    def of(cls, policy: Policy, delay: int = 0, watcher: Watcher | None = None, chunking: str = "async") -> EpisodeSpec:
        if delay < 0:
            raise InputError(f"delay: expected 0 or more control periods, found {delay}")
        spec = cls(policy.interface, policy.n_obs_steps, policy.n_action_steps, delay, chunking)
        return spec if watcher is None else replace(spec, watched=tuple(watcher.cameras), may_halt=watcher.may_halt)


@dataclass(frozen=True)
class Start:
    """The start of an episode: the environment's seed and, where there are several goals, the commanded one's name.

    Without a name the environment draws a goal from the seed.
    """

    seed: int
    goal: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The environment's `reset` options."""
        return {"goal": self.goal} if self.goal else {}


@dataclass(frozen=True)
class EpisodeResult:
    """The outcome of one episode. Metres and radians in the base frame; coverage and reward are in [0, 1].

    `task` is the instruction, `goal` the name of the goal that it commands; `reached` is the goal where the block
    ended up, commanded or not. Names are "" for no goal, and where there is only one.
    """

    seed: int
    success: bool
    steps: int
    max_coverage: float
    final_coverage: float
    max_reward: float
    sum_reward: float
    clipped_steps: int  # commands that a limit changed
    held_steps: int  # commands without a usable action
    pusher: tuple[float, float]  # initial conditions
    block_pose: tuple[float, float, float]
    actions: np.ndarray = field(repr=False, compare=False)  # (steps, D) commands; with the seed they replay the episode
    path: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False, compare=False)
    """(steps, 2) of the pusher, after each command"""
    seams: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    """(n,) how far the command jumped at each boundary of chunks, in the action's units (`ControlLoop`)"""
    plans: tuple[tuple[int, Mapping[str, np.ndarray]], ...] = field(default=(), repr=False, compare=False)
    """the steps at which chunks began, and what was then imagined (`ActionChunk.imagined`); empty without a planner"""
    task: str = ""
    goal: str = ""
    reached: str = ""
    refused: bool = False  # not started: the policy cannot follow the instruction
    aftermath: Aftermath | None = None  # of an event that disturbed the episode
    # recorded by a watcher:
    watched: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def plan(self, step: int) -> Mapping[str, np.ndarray]:
        """What the chunk of this step imagined from then on (T, D) by key; empty if nothing."""
        begun = [(begin, imagined) for begin, imagined in self.plans if begin <= step]
        if not begun:
            return {}
        begin, imagined = begun[-1]
        left = {key: states[step - begin :] for key, states in imagined.items()}
        return {key: states for key, states in left.items() if len(states)}


@dataclass(frozen=True)
class Aftermath:
    """The time after an event: the first step that it changed, the steps acted (not held) and wrong pushes from there
    on, and the first step that the monitor halted (None: it did not).
    """

    event_step: int
    acted: int
    wrong_pushes: int
    stopped_step: int | None
