"""PushT with several goals on the table, one of which the instruction names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.config import PushTConfig
from sim.env import Assignment, PushTEnv
from sim.geometry import coverage, pose_features, relative_pose
from sim.interface import GOAL_STATE
from sim.language.instructions import named_goal, sentences
from vla_policy.interfaces import InputError

MOST_AT_START = 0.5  # initial coverage above which a goal is not sampled


class LanguagePushTEnv(PushTEnv):
    """`PushTEnv` with `config.goals`; `task` and `info["instruction"]` name the commanded one.

    A seed starts with the pusher and the block where `PushTEnv` has them. The block's colour, the goal and the sentence
    are drawn after that, the colour first, so that the image is the same whatever goal is asked for. Coverage, reward
    and success are the commanded goal's; covering another one changes nothing. Observations gain GOAL_STATE,
    the block's pose seen from it; `info` gains `goal` (name), `instruction` and `coverages` (of all goals, by name).
    """

    start_options = (*PushTEnv.start_options, "goal", "instruction")

    def __init__(self, config: PushTConfig, cameras: Sequence[str] = ("top",), render_mode: str | None = None) -> None:
        if not config.goals:
            raise InputError("scene.goals: expected at least one goal, found none")
        super().__init__(config, cameras, render_mode)

    def _assign(self, block_pose: np.ndarray, options: Mapping[str, Any]) -> Assignment:
        """The goal of `options`, else the one named by the given instruction, else a random one that is not covered.

        `options={"goal": name, "instruction": text}` override `config.instruction`, which overrides sampled sentences.
        """
        config, generator = self.config, self.np_random.spawn(1)[0]
        colours = list(config.block_colours.values()) or [config.colours.block]
        colour = colours[generator.integers(len(colours))]
        instruction = _text(options.get("instruction", config.instruction))
        goal = self._draw_goal(block_pose, generator)
        if "goal" in options:
            goal = options["goal"]
        elif instruction is not None:
            goal = named_goal(instruction, config) or goal
        if goal not in config.goals:
            raise InputError(f"goal: expected one of {list(config.goals)}, found {goal!r}")
        choices = sentences(config, goal)
        drawn = choices[generator.integers(len(choices))]
        return Assignment(instruction or drawn, goal, config.goals[goal].pose, colour)

    def _draw_goal(self, block_pose: np.ndarray, generator: np.random.Generator) -> str:
        covered = self._coverages(block_pose)
        names = [name for name in covered if covered[name] < MOST_AT_START] or list(covered)
        return names[generator.integers(len(names))]

    def _coverages(self, block_pose: np.ndarray) -> dict[str, float]:
        return {name: coverage(block_pose, np.array(goal.pose)) for name, goal in self.config.goals.items()}

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        observation, info = super()._observe()
        seen = relative_pose(info["block_pose"], info["goal_pose"])
        observation[GOAL_STATE] = pose_features(seen).astype(np.float32)
        info["goal"] = self._assignment.goal
        info["instruction"] = self._assignment.instruction
        info["coverages"] = self._coverages(info["block_pose"])
        return observation, info


def _text(instruction: object) -> str | None:
    if instruction is None or (isinstance(instruction, str) and instruction.strip()):
        return instruction
    raise InputError(f"instruction: expected some words, found {instruction!r}")
