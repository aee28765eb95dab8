"""Checks that a policy and a robot use the same units: they must be declared, and their ranges must overlap.

A policy in degrees on a robot in radians matches in every other respect and saturates at the limits of the box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vla_policy.interfaces import ACTION, STATE, InputError, Interface
from vla_policy.robot.contract import SIMULATED, Contract

Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # low and high (D,) of absolute values, by feature key

MARGIN = 0.1  # of the box's width, added on either side: arms fold and grippers close there
LEAST_OVERLAP = 0.2  # of the data's range; detects degrees in a joint that uses a ninth of its box or more
SCALES = {
    "rad": {"degrees": math.pi / 180},
    "m": {"millimetres": 1e-3, "centimetres": 1e-2},
    "1": {"percent": 1e-2},
}


def require_same_scale(contract: Contract, interface: Interface, ranges: Ranges, needs: str) -> None:
    """`InputError` unless `needs`, e.g. a checkpoint with this interface and these typical ranges of state and action,
    uses the units of the robot of `contract`.

    A real robot requires declared units, unless its contract accepts unknown ones. On any robot a fifth of each
    channel's typical range must lie within the contract's box; the message names the channels that violate this.
    """
    action, command = contract.interface.action, contract.command
    box = dict(zip(action.names, zip(command.low, command.high, strict=True), strict=True))
    unit = dict(zip(action.names, action.units, strict=True))
    problems = []
    if contract.robot_type != SIMULATED and not contract.accepts_unknown_units:
        undeclared = _undeclared(interface)
        if undeclared:
            problems.append(
                f"units: expected declared ones, found none of {' and '.join(undeclared)}; declare them in its "
                "interface.json or, knowing that they are the robot's, set 'units_unknown: accept' in the contract"
            )
    outside: dict[str, str] = {}
    for key, names in ((ACTION, action.names), (STATE, contract.interface.observations[STATE].names)):
        for name, low, high in zip(names, *ranges.get(key, ((), ())), strict=False):
            if name in box and name not in outside and overlap((low, high), box[name]) < LEAST_OVERLAP:
                outside[name] = (
                    f"{key} {name} {low:.4g} to {high:.4g}, {_expected(low, high, box[name], unit[name], name)}"
                )
    if outside:
        problems.append("expected ranges within the contract's box, found " + "; ".join(outside.values()))
    if problems:
        raise InputError(f"{needs} and robot contract {contract.name} do not fit: " + "; ".join(problems))


def _undeclared(interface: Interface) -> list[str]:
    vectors = {key: feature for key, feature in interface.observations.items() if feature.dtype != "image"}
    features = {**vectors, ACTION: interface.action}
    return [key for key, feature in features.items() if not feature.units or not all(feature.units)]


def overlap(data: tuple[float, float], box: tuple[float, float]) -> float:
    """The fraction (0 to 1) of the data's range that lies within the box and its margin."""
    margin = MARGIN * (box[1] - box[0])
    low, high = max(data[0], box[0] - margin), min(data[1], box[1] + margin)
    width = data[1] - data[0]
    return float(low <= high) if width <= 0 else max(0.0, high - low) / width


def _expected(low: float, high: float, box: tuple[float, float], unit: str, name: str) -> str:
    """A channel's range and box in words, with the unit that would explain a mismatch."""
    scales = SCALES.get(unit, {})
    words = [word for word, scale in scales.items() if overlap((low * scale, high * scale), box) >= LEAST_OVERLAP]
    if "gripper" in name and low >= 0 and high <= 100 and "percent" not in words:
        words.append("percent")
    hint = f" ({' or '.join(words)}?)" if words else ""
    return f"expected {box[0]:g} to {box[1]:g}{' ' + unit if unit else ''}{hint}"
