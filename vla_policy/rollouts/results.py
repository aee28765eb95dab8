"""What an episode is begun with, and what came of it."""

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
    """What the environment's side must know of a policy and of a watcher; cheap to send to another process.

    `delay` is how many control periods a chunk takes: it is entered so much later, at the row that is due by then.
    `watched` are the observation keys that a watcher looks at (None: there is none), `may_halt` is the watcher's.
    """

    interface: Interface
    n_obs_steps: int
    n_action_steps: int
    delay: int = 0
    watched: tuple[str, ...] | None = None
    may_halt: bool = False

    @classmethod
    def of(cls, policy: Policy, delay: int = 0, watcher: Watcher | None = None) -> EpisodeSpec:
        if not 0 <= delay < policy.n_action_steps:
            raise InputError(f"delay: expected 0 to {policy.n_action_steps - 1} control periods, found {delay}")
        spec = cls(policy.interface, policy.n_obs_steps, policy.n_action_steps, delay)
        return spec if watcher is None else replace(spec, watched=tuple(watcher.cameras), may_halt=watcher.may_halt)


@dataclass(frozen=True)
class Start:
    """An episode to play: the environment's seed, and the name of the goal to command where there are several.

    Without a goal the environment draws one from the seed.
    """

    seed: int
    goal: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The environment's `reset` options."""
        return {"goal": self.goal} if self.goal else {}


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode came to. Metres and radians in the base frame; coverage and reward are in [0, 1].

    `task` is the instruction, `goal` the name of the goal that it commands; `reached` is the goal that an environment
    says the block was brought to, whatever was commanded. Names are "" where there is but one goal, and for none.
    """

    seed: int
    success: bool
    steps: int
    max_coverage: float
    final_coverage: float
    max_reward: float
    sum_reward: float
    clipped_steps: int  # commands that a limit changed
    held_steps: int  # commands that had no usable action
    pusher: tuple[float, float]  # initial conditions
    block_pose: tuple[float, float, float]
    actions: np.ndarray = field(repr=False, compare=False)  # (steps, D) commands sent: with the seed they replay it
    task: str = ""
    goal: str = ""
    reached: str = ""
    refused: bool = False  # before it began, by a policy that cannot read the instruction
    aftermath: Aftermath | None = None  # of an event that disturbed the episode
    # what a watcher recorded:
    watched: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Aftermath:
    """What came after an event: the step that it changed first, steps acted (not held) and wrong pushes from there on,
    and the first step that was held because of the monitor, None if none was.
    """

    event_step: int
    acted: int
    wrong_pushes: int
    stopped_step: int | None
