"""The numbers that answers tell (see `sim.language`), and how far two answers are apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_AXES = {"beyond": (1, 0), "before": (-1, 0), "left": (0, 1), "right": (0, -1)}


def told_offset(answer: str) -> np.ndarray | None:
    """Centimetres (2,) beyond and left of a thing; None for an answer that tells no offset."""
    parts = re.findall(r"(\d+) cm (beyond|before|left|right)\b", answer)
    if not parts and not re.search(r"\bat (it|the \w+ goal)\b", answer):
        return None
    return sum((int(cm) * np.array(_AXES[where], float) for cm, where in parts), np.zeros(2))


def told_distance(answer: str) -> np.ndarray | None:
    """Centimetres (1,), without a direction."""
    found = re.fullmatch(r"(\d+) cm", answer)
    return np.array([float(found[1])]) if found else None


def told_turn(answer: str) -> np.ndarray | None:
    """Degrees (1,) counterclockwise."""
    if re.search(r"\bnot turned\b", answer):
        return np.zeros(1)
    found = re.search(r"\bturned (\d+) degrees( clockwise)?", answer)
    return np.array([float(found[1]) * (-1 if found[2] else 1)]) if found else None


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def apart_by_turning(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees, the shorter way round."""
    return float(abs((a - b + 180) % 360 - 180)[0])


@dataclass(frozen=True)
class Quantity:
    """Something that answers tell: how it is read, None where it is not told, and how far two values are apart."""

    unit: str
    read: Callable[[str], np.ndarray | None]
    distance: Callable[[np.ndarray, np.ndarray], float]


QUANTITIES = {
    "offset": Quantity("cm", told_offset, apart),
    "distance": Quantity("cm", told_distance, apart),
    "turn": Quantity("degrees", told_turn, apart_by_turning),
}
