"""Questions about the scene with answers computed from its state, and a corpus of such sentences.

Directions are as seen by the arm: left is +y, beyond a thing is farther from the arm, before it is nearer. A turn is
the block's against the goal, seen from above. Lengths are in whole centimetres, angles in tens of degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sim.config import PushTConfig
from sim.geometry import coverage, wrap_angle
from sim.interface import draw_start
from sim.language.instructions import centre, place, places, sentences
from vla_policy.interfaces import InputError

Pair = tuple[str, str]
INSTRUCTIONS = 0.5  # of the questions


@dataclass(frozen=True)
class Question:
    """A scene with the pusher (2,) and the block (3,), and the goal of the question."""

    pusher: np.ndarray
    block: np.ndarray
    goal: str
    config: PushTConfig
    generator: np.random.Generator

    def pose(self, goal: str) -> np.ndarray:
        """Of a goal (3,)."""
        return np.array(self.config.goals[goal].pose)

    def distance(self, goal: str) -> float:
        """Of the block from a goal, metres."""
        return float(np.linalg.norm(centre(self.block) - centre(self.pose(goal))))

    @property
    def nearest(self) -> str:
        """The goal nearest to the block."""
        return min(self.config.goals, key=self.distance)

    def offset(self, goal: str) -> str:
        """The block's position and rotation relative to a goal, in words."""
        pose = self.pose(goal)
        return f"{offset_words(centre(self.block) - centre(pose))}, {turn_words(self.block[2] - pose[2])}"


def question_answer(
    pusher: np.ndarray,
    block_pose: np.ndarray,
    config: PushTConfig,
    generator: np.random.Generator,
    kind: str | None = None,
) -> Pair:
    """A question of a `kind` (default: drawn, half of them an instruction) about a scene with the pusher (2,) and the
    block (3,), and its answer.

    `InputError` for a scene without `config.goals`, by whose names questions refer to them.
    """
    names = _names(config)
    if kind is None:
        others = list(KINDS)[1:]
        kind = "instruction" if generator.random() < INSTRUCTIONS else others[generator.integers(len(others))]
    goal = names[generator.integers(len(names))]
    return KINDS[kind](Question(np.asarray(pusher, float), np.asarray(block_pose, float), goal, config, generator))


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
        raise InputError("scene.goals: expected at least one goal, found none")
    return list(config.goals)


def offset_words(offset: np.ndarray) -> str:
    """An offset (2,) in metres from "it", in words."""
    beyond, left = (round(100 * float(metres)) for metres in offset)
    words = [f"{abs(left)} cm {'left of' if left > 0 else 'right of'} it"] if left else []
    words += [f"{abs(beyond)} cm {'beyond' if beyond > 0 else 'before'} it"] if beyond else []
    return ", ".join(words) or "at it"


def turn_words(angle: float) -> str:
    """A rotation by an angle in radians, in words."""
    degrees = 10 * round(float(np.degrees(wrap_angle(angle))) / 10)
    if degrees == 0:
        return "not turned"
    sense = "" if abs(degrees) == 180 else " counterclockwise" if degrees > 0 else " clockwise"
    return f"turned {abs(degrees)} degrees{sense}"


def _instruction(question: Question) -> Pair:
    choices = sentences(question.config, question.goal, "training")
    sentence = choices[question.generator.integers(len(choices))]
    return sentence, f"the {question.goal} goal, with the T {question.offset(question.goal)}"


def _caption(question: Question) -> Pair:
    words = question.offset(question.nearest).replace(" it", f" the {question.nearest} goal", 1)
    return "what do you see?", f"the T is {words}"


def _where(question: Question) -> Pair:
    return f"where is the T seen from the {question.goal} goal?", question.offset(question.goal)


def _turn(question: Question) -> Pair:
    turn = turn_words(question.block[2] - question.pose(question.goal)[2])
    return f"how is the T turned against the {question.goal} goal?", turn


def _far(question: Question) -> Pair:
    return f"how far is the T from the {question.goal} goal?", f"{round(100 * question.distance(question.goal))} cm"


def _nearest(question: Question) -> Pair:
    return "which goal is nearest to the T?", f"the {question.nearest} goal"


def _covered(question: Question) -> Pair:
    percent = 10 * round(10 * coverage(question.block, question.pose(question.goal)))
    return f"how much of the {question.goal} goal does the T cover?", f"{percent} percent" if percent else "nothing"


def _pusher(question: Question) -> Pair:
    return "where is the pusher seen from the T?", offset_words(question.pusher - centre(question.block))


def _block_place(question: Question) -> Pair:
    return "where is the T?", f"at the arm's {place(question.block)}"


def _goal_place(question: Question) -> Pair:
    return f"where is the {question.goal} goal?", f"at the arm's {place(question.pose(question.goal))}"


def _goal_there(question: Question) -> Pair:
    known = places(question.config)
    if question.goal not in known:  # it shares its quarter, so that the answer would not be the only one
        return _goal_place(question)
    return f"which goal is at the arm's {known[question.goal]}?", f"the {question.goal} goal"


# The answer to an instruction is the goal and the block's pose relative to it.
KINDS: dict[str, Callable[[Question], Pair]] = {
    "instruction": _instruction,
    "caption": _caption,
    "where": _where,
    "turn": _turn,
    "distance": _far,
    "nearest goal": _nearest,
    "coverage": _covered,
    "pusher": _pusher,
    "place": _block_place,
    "goal's place": _goal_place,
    "goal by place": _goal_there,
}
