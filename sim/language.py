"""Questions about the scene and their answers, told from its state, and example sentences of all that is said here.

Directions are as seen by the arm: left is +y, beyond a thing is farther from the arm, before it is nearer. A turn is
the block's against the goal, seen from above. Lengths are in whole centimetres, angles in tens of degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sim.config import PushTConfig
from sim.geometry import coverage, wrap_angle
from sim.instructions import centre, place, places, sentences
from sim.interface import draw_start
from vla_policy.interfaces import InputError

Pair = tuple[str, str]


def question_answer(
    pusher: np.ndarray, block_pose: np.ndarray, config: PushTConfig, generator: np.random.Generator
) -> Pair:
    """A random question about a scene with the pusher (2,) and the block (3,), and its answer.

    `InputError` for a scene without `config.goals`, which questions call by their names.
    """
    names = _names(config)
    kind = _KINDS[generator.integers(len(_KINDS))]
    name = names[generator.integers(len(names))]
    return kind(np.asarray(pusher, float), np.asarray(block_pose, float), name, config)


def corpus(config: PushTConfig, count: int, generator: np.random.Generator) -> Iterator[str]:
    """`count` sentences, instructions from the training templates, questions and answers in turn, of random scenes."""
    names = _names(config)
    for i in range(count):
        if i % 3 == 0:
            choices = sentences(config, names[generator.integers(len(names))], "training")
            yield choices[generator.integers(len(choices))]
        elif i % 3 == 1:
            question, answer = question_answer(*draw_start(generator), config, generator)
            yield question
        else:
            yield answer


def _names(config: PushTConfig) -> list[str]:
    if not config.goals:
        raise InputError("task.goals: expected at least one goal to speak of, found none")
    return list(config.goals)


def offset_words(offset: np.ndarray) -> str:
    """An offset (2,) in metres from a thing called "it"."""
    beyond, left = (round(100 * float(metres)) for metres in offset)
    words = [f"{abs(left)} cm {'left of' if left > 0 else 'right of'} it"] if left else []
    words += [f"{abs(beyond)} cm {'beyond' if beyond > 0 else 'before'} it"] if beyond else []
    return ", ".join(words) or "at it"


def turn_words(angle: float) -> str:
    """A turn by an angle in radians."""
    degrees = 10 * round(float(np.degrees(wrap_angle(angle))) / 10)
    if degrees == 0:
        return "not turned"
    sense = "" if abs(degrees) == 180 else " counterclockwise" if degrees > 0 else " clockwise"
    return f"turned {abs(degrees)} degrees{sense}"


def _pose_words(block_pose: np.ndarray, goal: np.ndarray) -> str:
    return f"{offset_words(centre(block_pose) - centre(goal))}, {turn_words(block_pose[2] - goal[2])}"


def _goal(name: str, config: PushTConfig) -> np.ndarray:
    return np.array(config.goals[name].pose)


def _distance(block_pose: np.ndarray, name: str, config: PushTConfig) -> float:
    return float(np.linalg.norm(centre(block_pose) - centre(_goal(name, config))))


def _nearest_goal(block_pose: np.ndarray, config: PushTConfig) -> str:
    return min(config.goals, key=lambda name: _distance(block_pose, name, config))


def _caption(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    nearest = _nearest_goal(block_pose, config)
    words = _pose_words(block_pose, _goal(nearest, config)).replace(" it", f" the {nearest} goal", 1)
    return "what do you see?", f"the T is {words}"


def _where(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return f"where is the T seen from the {name} goal?", _pose_words(block_pose, _goal(name, config))


def _turn(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return f"how is the T turned against the {name} goal?", turn_words(block_pose[2] - _goal(name, config)[2])


def _far(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return f"how far is the T from the {name} goal?", f"{round(100 * _distance(block_pose, name, config))} cm"


def _nearest(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return "which goal is nearest to the T?", f"the {_nearest_goal(block_pose, config)} goal"


def _covered(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    percent = 10 * round(10 * coverage(block_pose, _goal(name, config)))
    return f"how much of the {name} goal does the T cover?", f"{percent} percent" if percent else "nothing"


def _pusher(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return "where is the pusher seen from the T?", offset_words(pusher - centre(block_pose))


def _block_place(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return "where is the T?", f"at the arm's {place(block_pose)}"


def _goal_place(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    return f"where is the {name} goal?", f"at the arm's {place(_goal(name, config))}"


def _goal_there(pusher: np.ndarray, block_pose: np.ndarray, name: str, config: PushTConfig) -> Pair:
    known = places(config)
    if name not in known:  # it shares its quarter, so that the answer would not be the only one
        return _goal_place(pusher, block_pose, name, config)
    return f"which goal is at the arm's {known[name]}?", f"the {name} goal"


_KINDS: list[Callable[[np.ndarray, np.ndarray, str, PushTConfig], Pair]] = [
    _caption, _where, _turn, _far, _nearest, _covered, _pusher, _block_place, _goal_place, _goal_there
]  # fmt: skip
