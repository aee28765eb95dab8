"""What an imagined future of any robot is worth: small callables that a planner can be given at run time.

What is wanted of PushT's block is in `sim.objectives`. Scores are in the state's units, the higher the better.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from vla_policy.interfaces import ACTION, STATE, Future, Objective

FORBIDDEN = 10.0  # lost for each step in a forbidden place: more than anything else can gain
ROUGHNESS = 2.0  # lost for each metre by which the commands' step changes from one to the next


@dataclass(frozen=True)
class KeepOut:
    """What is lost by a tool whose centre is nearer than `radius` to `centre` (2,) or (3,): each step counts."""

    centre: tuple[float, ...]
    radius: float

    def __call__(self, future: Future) -> np.ndarray:
        offsets = future[STATE][..., : len(self.centre)] - self.centre
        lost: np.ndarray = -FORBIDDEN * (np.linalg.norm(offsets, axis=-1) < self.radius).sum(1)
        return lost


@dataclass(frozen=True)
class Gentle:
    """What is lost by commands that change their step."""

    def __call__(self, future: Future) -> np.ndarray:
        changes = np.linalg.norm(np.diff(future[ACTION], n=2, axis=1), axis=-1)
        lost: np.ndarray = -ROUGHNESS * changes.sum(1) / max(changes.shape[1], 1)
        return lost


@dataclass(frozen=True)
class Reach:
    """How near the robot's own state comes to `target` (D,), on average over the future.

    The distance is Euclidean over all channels in their own units; angles are not wrapped.
    """

    target: tuple[float, ...]

    def __call__(self, future: Future) -> np.ndarray:
        near: np.ndarray = -np.linalg.norm(future[STATE] - np.array(self.target), axis=-1).mean(1)
        return near


@dataclass(frozen=True)
class LearnedReturn:
    """The return that a learned model (`world_model.returns`) expects of a future, in [0, 1]: the mean over its steps t
    of discount^t times the return expected from step t.

    `layers` are its weights (out, in) and biases (out,): where it only ranks, it needs no torch.
    """

    keys: tuple[str, ...]
    layers: Sequence[tuple[np.ndarray, np.ndarray]]
    discount: float

    def __call__(self, future: Future) -> np.ndarray:
        x = np.concatenate([future[key] for key in self.keys], axis=-1)
        for weight, bias in self.layers[:-1]:
            x = x @ weight.T + bias
            x = x * expit(x)  # SiLU
        weight, bias = self.layers[-1]
        returns = expit((x @ weight.T + bias)[..., 0])
        expected: np.ndarray = (returns * self.discount ** np.arange(1, returns.shape[1] + 1)).mean(1)
        return expected


@dataclass(frozen=True)
class Random:
    """The control that knows nothing: equal proposals have equal scores, wherever they are asked for."""

    def __call__(self, future: Future) -> np.ndarray:
        seed = zlib.crc32(np.ascontiguousarray(future[ACTION]).tobytes())
        return np.random.default_rng(seed).random(len(future[ACTION]))


@dataclass(frozen=True)
class Sum:
    """Several wishes at once."""

    parts: Sequence[Objective]

    def __call__(self, future: Future) -> np.ndarray:
        total: np.ndarray = np.sum([part(future) for part in self.parts], axis=0)
        return total
