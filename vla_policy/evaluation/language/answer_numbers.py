"""Parsing of the numbers in answers (see `sim.language.questions`), and distances between answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_AXES = {"beyond": (1, 0), "before": (-1, 0), "left": (0, 1), "right": (0, -1)}


def parse_offset(answer: str) -> np.ndarray | None:
    """Centimetres (2,) beyond and left of the reference; None for an answer without an offset."""
    parts = re.findall(r"(\d+) cm (beyond|before|left|right)\b", answer)
    if not parts and not re.search(r"\bat (it|the \w+ goal)\b", answer):
        return None
    return sum((int(cm) * np.array(_AXES[where], float) for cm, where in parts), np.zeros(2))


def parse_distance(answer: str) -> np.ndarray | None:
    """Centimetres (1,), without a direction."""
    found = re.fullmatch(r"(\d+) cm", answer)
    return np.array([float(found[1])]) if found else None


def parse_turn(answer: str) -> np.ndarray | None:
    """Degrees (1,) counterclockwise."""
    if re.search(r"\bnot turned\b", answer):
        return np.zeros(1)
    found = re.search(r"\bturned (\d+) degrees( clockwise)?", answer)
    return np.array([float(found[1]) * (-1 if found[2] else 1)]) if found else None


def euclidean(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def angular(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees along the shorter arc."""
    return float(abs((a - b + 180) % 360 - 180)[0])


@dataclass(frozen=True)
class Quantity:
    """A quantity in answers: its parser (None if an answer lacks it), and the distance of two values."""

    unit: str
    read: Callable[[str], np.ndarray | None]
    distance: Callable[[np.ndarray, np.ndarray], float]


QUANTITIES = {
    "offset": Quantity("cm", parse_offset, euclidean),
    "distance": Quantity("cm", parse_distance, euclidean),
    "turn": Quantity("degrees", parse_turn, angular),
}
