"""Instructions that name the goal by its colour or its place.

Places are in the arm's base frame, not the camera's: far is +x and left is +y.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from sim.config import PushTConfig
from sim.geometry import T_SHAPE, WORKSPACE_CENTRE, transform
from vla_policy.interfaces import InputError

LANGUAGE_TASK = "Push the T-shaped block onto the goal that the instruction names."  # common to all of them

TEMPLATES = {
    "training": (
        "push the T to {goal}",
        "push the T onto {goal}",
        "please push the block to {goal}",
        "move the T onto {goal}",
        "move the block over to {goal}",
        "bring the T to {goal}",
        "slide the T onto {goal}",
        "put the T on {goal}",
        "place the block exactly on {goal}",
        "cover {goal} with the T",
        "align the block with {goal}",
        "line the T up with {goal}",
        "the T belongs on {goal}",
        "{goal} is where the block should go",
        "I want the T to lie on {goal}",
        "make the block match {goal}",
    ),
    "held_out": (
        "please bring the block to {goal}",
        "slide the block exactly over {goal}",
        "{goal} is where the T belongs",
        "the block should lie exactly on {goal}",
        "I want {goal} to be covered with the block",
        "align the T with {goal}, please",
        "shove the T onto {goal}",
        "get the block to {goal}",
    ),
}
_BY_COLOUR = ("the {name} goal", "the {name} target")
_BY_PLACE = ("the goal at the arm's {place}", "the target at the arm's {place}")


def centre(pose: np.ndarray) -> np.ndarray:
    """The middle (2,) of the area of a T at a pose (3,), metres."""
    return transform(np.array([[T_SHAPE.centroid.x, T_SHAPE.centroid.y]]), np.asarray(pose, float))[0]


def place(pose: np.ndarray) -> str:
    """The quarter of the workspace that a T at a pose (3,) lies in: "far left", "near right" and so on."""
    x, y = centre(pose) - WORKSPACE_CENTRE
    return f"{'far' if x > 0 else 'near'} {'left' if y > 0 else 'right'}"


def places(config: PushTConfig) -> dict[str, str]:
    """The goals' places by name, without places that several goals share."""
    found = {name: place(np.array(goal.pose)) for name, goal in config.goals.items()}
    counts = Counter(found.values())
    return {name: words for name, words in found.items() if counts[words] == 1}


def sentences(config: PushTConfig, goal: str, paraphrases: str | None = None) -> list[str]:
    """All instructions for a goal, by its colour and, where no other goal lies in the same quarter, by its place.

    They are made from the training or held-out templates, by default those that `config` says.
    """
    known = names(config, goal)
    templates = TEMPLATES[paraphrases or config.paraphrases]
    return [template.format(goal=name) for template in templates for name in known]


def names(config: PushTConfig, goal: str) -> list[str]:
    """A goal's names: by colour and, if no other goal is in the same quarter, by place."""
    known = places(config)
    by_place = [form.format(place=known[goal]) for form in _BY_PLACE] if goal in known else []
    return [form.format(name=goal) for form in _BY_COLOUR] + by_place


def meanings(config: PushTConfig) -> dict[str, str]:
    """The goal of every instruction that can be made from any of the templates."""
    return {
        sentence: goal for goal in config.goals for split in TEMPLATES for sentence in sentences(config, goal, split)
    }


def named_goal(instruction: str, config: PushTConfig) -> str | None:
    """The goal that an instruction made from any of the templates names; None for any other text."""
    return meanings(config).get(instruction)


def commanded_pose(instruction: str, config: PushTConfig) -> np.ndarray:
    """Pose (3,) of the goal that an instruction names, or of the only one; `InputError` if it names none of several."""
    if not config.goals:
        return np.array(config.goal_pose)
    name = named_goal(instruction, config)
    if name is None:
        raise InputError(f"instruction: expected one that names a goal of {list(config.goals)}, found {instruction!r}")
    return np.array(config.goals[name].pose)
