"""Trivial and privileged policies as baselines for success rates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from sim import PushTConfig
from sim.expert.expert import Expert
from sim.geometry import pose_from_features
from sim.interface import pusht_interface
from sim.language.instructions import commanded_pose
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, ActionChunk, InputError, Interface, Observation, Policy


class HoldPolicy:
    """Holds the current position."""

    n_obs_steps = 1
    n_action_steps = 8

    def __init__(self, seed: int = 0, scene: PushTConfig | None = None) -> None:
        self.interface: Interface = pusht_interface({}).select([STATE])

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        dt = 1.0 / self.interface.fps
        return [
            ActionChunk(np.repeat(history[-1].values[STATE][None], self.n_action_steps, axis=0), history[-1].t, dt)
            for history in histories
        ]


class ExpertPolicy:
    """The scripted expert, which sees the block's pose and parses instructions made from the templates.

    It is stateful: every episode needs its own.
    """

    n_obs_steps = 1
    n_action_steps = 1

    def __init__(self, seed: int = 0, scene: PushTConfig | None = None) -> None:
        self.interface: Interface = pusht_interface({})
        self._scene = scene or PushTConfig()
        self._expert: Expert | None = None

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        return [self._act(history[-1]) for history in histories]

    def _act(self, seen: Observation) -> ActionChunk:
        self._expert = self._expert or Expert(commanded_pose(seen.task, self._scene))
        target = self._expert.act(seen.values[STATE], pose_from_features(seen.values[ENVIRONMENT_STATE]))
        return ActionChunk(target[None], seen.t, 1.0 / self.interface.fps)


BASELINES: dict[str, Callable[..., Policy]] = {"hold": HoldPolicy, "expert": ExpertPolicy}


def baseline_factory(name: str, scene: PushTConfig | None = None) -> Callable[[int], Policy]:
    """A factory of the baseline in `scene`, called with the seed of an episode; `InputError` for an unknown name."""
    if name not in BASELINES:
        raise InputError(f"baseline: expected one of {sorted(BASELINES)}, found {name!r}")
    return functools.partial(BASELINES[name], scene=scene)
