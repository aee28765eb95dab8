"""What an imagined future of PushT is worth: small functions that a planner can be given at run time.

A future has `observation.state` (K, F, 2), `observation.environment_state` (K, F, 4) and `action` (K, F, 2) of K
candidates over F steps; scores (K,) are in metres, the higher the better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sim.geometry import GOAL_POSE, PUSHER_RADIUS, T_CORNERS, transform
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError

Future = Mapping[str, np.ndarray]
Objective = Callable[[Future], np.ndarray]

OBJECTIVES = ("progress", "keep_out", "gentle", "random")
FORBIDDEN = 10.0  # metres lost for each step in a forbidden place: more than progress can gain
ROUGHNESS = 2.0  # metres lost for each metre by which the commands' step changes from one to the next


def corner_distance(features: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The mean distance (...) of the T's corners at poses (..., 4) x, y, cos, sin from their places at `goal` (3,)."""
    cos, sin = features[..., 2], features[..., 3]
    scale = np.maximum(np.hypot(cos, sin), 1e-9)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2) / scale[..., None, None]
    corners = T_CORNERS @ np.swapaxes(rotation, -1, -2) + features[..., None, :2]
    distances: np.ndarray = np.linalg.norm(corners - transform(T_CORNERS, goal), axis=-1).mean(-1)
    return distances


def progress(future: Future, goal: np.ndarray = GOAL_POSE) -> np.ndarray:
    """How near the block comes to `goal` (3,), on average over the future."""
    near: np.ndarray = -corner_distance(future[ENVIRONMENT_STATE], goal).mean(1)
    return near


def keep_out(future: Future, centre: np.ndarray, radius: float) -> np.ndarray:
    """What is lost by a pusher that touches the disc of `radius` around `centre` (2,): each step counts."""
    inside = np.linalg.norm(future[STATE] - centre, axis=-1) < radius + PUSHER_RADIUS
    lost: np.ndarray = -FORBIDDEN * inside.sum(1)
    return lost


def gentle(future: Future) -> np.ndarray:
    """What is lost by commands that change their step."""
    changes = np.linalg.norm(np.diff(future[ACTION], n=2, axis=1), axis=-1)
    lost: np.ndarray = -ROUGHNESS * changes.sum(1) / max(changes.shape[1], 1)
    return lost


def make_objective(name: str, goal: Sequence[float] | None = None, disc: Sequence[float] | None = None) -> Objective:
    """One of `OBJECTIVES`, for a goal pose (x, y, angle) other than PushT's, and a disc (x, y, radius) that "keep_out"
    stays out of; "random" is the control that knows nothing.

    `InputError` for an unknown name, or a goal or a disc that is missing or of another shape.
    """
    if name not in OBJECTIVES:
        raise InputError(f"planner.objective: expected one of {list(OBJECTIVES)}, found {name!r}")
    target = GOAL_POSE if goal is None else _three("planner.goal", goal)
    if name == "keep_out" and disc is None:
        raise InputError("planner.disc: expected x, y and radius with planner.objective=keep_out, found none")
    place = None if disc is None else _three("planner.disc", disc)
    generator = np.random.default_rng(0)

    def objective(future: Future) -> np.ndarray:
        if name == "random":
            return generator.random(len(future[ACTION]))
        score = progress(future, target)
        if name == "keep_out" and place is not None:
            score = score + keep_out(future, place[:2], float(place[2]))
        return score + gentle(future) if name == "gentle" else score

    return objective


def _three(name: str, values: Sequence[float]) -> np.ndarray:
    found = np.asarray(values, float)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise InputError(f"{name}: expected three numbers, found {list(values)}")
    return found
