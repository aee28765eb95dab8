"""Conversion between the units of a robot's messages and those of the interface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_policy.interfaces import InputError

# Factors to the first unit of each line.
_KINDS = (
    {"rad": 1.0, "deg": math.pi / 180.0},
    {"m": 1.0, "cm": 0.01, "mm": 0.001},
    {"1": 1.0, "%": 0.01},
)


@dataclass(frozen=True)
class Conversion:
    """interface value = `scale` * message value + `offset`, per channel (n,).

    `units` are the message's; without any (the default) values are unchanged.
    """

    units: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    def inward(self, values: np.ndarray) -> np.ndarray:
        """Interface values (..., n) from message values."""
        return values * np.array(self.scale) + np.array(self.offset) if self.units else values

    def outward(self, values: np.ndarray) -> np.ndarray:
        """Message values (..., n) from interface values."""
        return (values - np.array(self.offset)) / np.array(self.scale) if self.units else values

    def velocity(self, values: np.ndarray) -> np.ndarray:
        """Message velocities (n,) from interface velocities: scaled, without offset."""
        return values / np.array(self.scale) if self.units else values

    def rates(self, values: np.ndarray) -> np.ndarray:
        """Message magnitudes (n,), e.g. speed limits: scaled, without offset or sign."""
        return values / np.abs(self.scale) if self.units else values


UNCHANGED = Conversion()


def conversion(
    names: Sequence[str],
    units: Sequence[str],
    message_units: Sequence[str],
    ranges: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Conversion:
    """The conversion from the message's units to the interface's, per channel.

    Units of one kind (rad and deg; m, cm and mm; 1 and %) convert by a factor. Any other pair needs `ranges`: two
    message values and the corresponding interface values. `InputError` names the channel.
    """
    scale, offset = [], []
    for name, unit, message_unit in zip(names, units, message_units, strict=True):
        if name in ranges:
            (a, b), (c, d) = ranges[name]
            if a == b or c == d:
                raise InputError(f"ranges: {name}: expected two different numbers on each side, found {ranges[name]}")
            scale.append((d - c) / (b - a))
            offset.append(c - a * scale[-1])
        else:
            scale.append(_factor(name, unit, message_unit))
            offset.append(0.0)
    return Conversion(tuple(message_units), tuple(scale), tuple(offset))


def _factor(name: str, unit: str, message_unit: str) -> float:
    if unit == message_unit:
        return 1.0
    for kind in _KINDS:
        if unit in kind and message_unit in kind:
            return kind[message_unit] / kind[unit]
    raise InputError(
        f"ranges: expected {{{name}: {{message: [...], interface: [...]}}}}, since {message_unit!r} of the message is "
        f"no multiple of {unit!r}, found none"
    )
