"""Do a policy's numbers mean what the robot's do? Units have to be declared, and ranges have to overlap.

A policy in degrees on a robot in radians fits in every other respect and runs to the edge of the box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from vla_policy.contract import SIMULATED, Contract
from vla_policy.interfaces import ACTION, STATE, InputError, Interface

Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # low and high (D,) of absolute values, by feature key

MARGIN = 0.1  # of the box's width that data may lie beyond it on either side: arms fold up and grippers close there
LEAST_OVERLAP = 0.1  # of the data's range; 57 times too wide, a joint that uses a fifth of its box is found
SCALES = {
    "rad": {"degrees": math.pi / 180},
    "m": {"millimetres": 1e-3, "centimetres": 1e-2},
    "1": {"percent": 1e-2},
}


def require_same_scale(contract: Contract, interface: Interface, ranges: Ranges, needs: str) -> None:
    """`InputError` unless `needs`, e.g. a checkpoint with this interface and these usual ranges of state and action,
    counts as the robot of `contract` does.

    A real robot wants declared units, unless its contract accepts unknown ones. On any robot each channel has to have
    a tenth of its usual range within the contract's box; the message names the channels that have not.
    """
    problems = []
    if contract.robot_type != SIMULATED and not contract.accepts_unknown_units:
        undeclared = [*_undeclared(interface, "the checkpoint"), *_undeclared(contract.interface, "the contract")]
        if undeclared:
            problems.append(
                f"units: expected declared ones, found none of {', '.join(undeclared)}; declare them (a checkpoint's "
                "are in its interface.json) or, knowing that they are the robot's, say 'units_unknown: accept' in the "
                "contract"
            )
    names = contract.interface.action.names
    box = dict(zip(names, zip(contract.command.low, contract.command.high, strict=True), strict=True))
    for key, channels in ((ACTION, names), (STATE, contract.interface.observations[STATE].names)):
        if key in ranges:
            problems += _implausible(key, channels, contract.interface.action.units, box, ranges[key])
    if problems:
        raise InputError(f"{needs} and robot contract {contract.name} do not fit: " + "; ".join(problems))


def _undeclared(interface: Interface, whose: str) -> list[str]:
    vectors = {key: value for key, value in interface.observations.items() if value.dtype != "image"}
    features = {**vectors, ACTION: interface.action}
    return [f"{key} of {whose}" for key, value in features.items() if not value.units or not all(value.units)]


def _implausible(
    key: str,
    channels: tuple[str, ...],
    units: tuple[str, ...],
    box: Mapping[str, tuple[float, float]],
    found: tuple[np.ndarray, np.ndarray],
) -> Iterator[str]:
    """What is to be said of each channel whose range does not overlap with its part of the box."""
    unit_of = dict(zip(box, units or [""] * len(box), strict=True))
    for channel, low, high in zip(channels, *found, strict=True):
        if channel in box and overlap((low, high), box[channel]) < LEAST_OVERLAP:
            bounds, unit = box[channel], unit_of[channel]
            hint = _hint(low, high, bounds, unit, channel)
            yield (
                f"{key} {channel}: expected a range within {bounds[0]:g} to {bounds[1]:g} {unit or 'units'}, found "
                f"{low:.4g} to {high:.4g} in the normaliser{hint}"
            )


def overlap(data: tuple[float, float], box: tuple[float, float]) -> float:
    """The part of the data's range that lies within the box and a margin: 0 to 1."""
    margin = MARGIN * (box[1] - box[0])
    low, high = max(data[0], box[0] - margin), min(data[1], box[1] + margin)
    width = data[1] - data[0]
    return float(low <= high) if width <= 0 else max(0.0, high - low) / width


def _hint(low: float, high: float, box: tuple[float, float], unit: str, channel: str) -> str:
    """The units that would explain it."""
    scales = SCALES.get(unit, {})
    words = [word for word, scale in scales.items() if overlap((low * scale, high * scale), box) > LEAST_OVERLAP]
    if "gripper" in channel and low >= 0 and high <= 100 and "percent" not in words:
        words.append("percent")
    return f" ({' or '.join(words)}?)" if words else ""
