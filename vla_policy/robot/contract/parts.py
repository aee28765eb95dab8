"""The topics of a vector in a contract file: one for all channels, or a list with some channels each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vla_policy.interfaces import Feature, InputError
from vla_policy.robot.contract import spec, values
from vla_policy.robot.contract.spec import POSE_FIELDS
from vla_policy.robot.contract.units import UNCHANGED, Conversion, conversion
from vla_policy.robot.kinematics import Kinematics

PART = {"topic", "type", "fields", "message_units", "ranges"}


def vector(data: Mapping[str, Any], where: str) -> Feature:
    """The feature of `names` and `units`."""
    names = values.texts(data["names"], f"{where}: names")
    return Feature("float32", (len(names),), names, values.units(data["units"], f"{where}: units", len(names)))


@dataclass(frozen=True)
class Part:
    """The file's entry `where` for a source or output with the channels `names` of a vector.

    `alone` if it is the vector's only one, written in the vector's own mapping.
    """

    data: Mapping[str, Any]
    where: str
    names: tuple[str, ...]
    vector: Feature
    alone: bool

    @property
    def topic(self) -> str:
        return values.topic(self.data["topic"], f"{self.where}: topic")

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(map(self.vector.names.index, self.names))

    def type(self, known: Sequence[str]) -> str:
        return values.choice(self.data["type"], f"{self.where}: type", known)

    def frame_id(self, default: str) -> str:
        return values.text(self.data.get("frame_id", default), f"{self.where}: frame_id", empty=True)

    def fields(self, kind: str) -> tuple[str, ...]:
        """The message's fields, one per channel; by default the channels' names."""
        where = f"{self.where}: fields"
        chosen = values.texts(self.data.get("fields", list(self.names)), where, len(self.names))
        known = {spec.POSE: POSE_FIELDS, spec.TWIST: POSE_FIELDS[:3]}.get(kind, chosen)
        if not set(chosen) <= set(known):
            raise InputError(f"{where}: expected some of {list(known)}, found {list(chosen)}")
        return chosen

    def kinematics(self, known: Kinematics | None) -> Kinematics | None:
        """The contract's kinematics if this part is the tip's: alone, or with the fields of a pose."""
        return known if self.alone or set(self.fields(spec.JOINT_STATE)) <= set(POSE_FIELDS) else None

    def conversion(self, kinematics: Kinematics | None) -> Conversion:
        given = sorted({"message_units", "ranges"} & set(self.data))
        if not given:
            return UNCHANGED
        if kinematics is not None:
            raise InputError(f"{self.where}: expected the kinematics' own m and rad, found {given}")
        units = [self.vector.units[channel] for channel in self.channels]
        message_units = values.units(self.data.get("message_units", units), f"{self.where}: message_units", len(units))
        try:
            return conversion(self.names, units, message_units, self._ranges())
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None

    def _ranges(self) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
        found = {}
        for name, ends in values.by_name(self.data.get("ranges", {}), f"{self.where}: ranges").items():
            where = f"{self.where}: ranges: {name}"
            if name not in self.names:
                raise InputError(f"{where}: expected one of {list(self.names)}, found {name!r}")
            values.mapping(ends, where, {"message", "interface"}, set())
            message, interface = (
                values.numbers(ends[side], f"{where}: {side}", 2) for side in ("message", "interface")
            )
            found[name] = (message, interface)
        return found


def parts(data: Mapping[str, Any], several: str, where: str, optional: set[str]) -> list[Part]:
    """One part with all channels, or the entries of the list `several` with the `names` of their channels.

    `optional` are keys that an entry may have besides those of every part.
    """
    whole = vector(data, where)
    if several not in data:
        values.mapping(data, where, {"topic", "type"}, set(data))
        return [Part(data, where, whole.names, whole, alone=True)]
    beside = sorted((PART | {"constants"}) & set(data))
    if beside:
        raise InputError(f"{where}: expected {beside} in the entries of {several}, found them beside it")
    found, left = [], list(whole.names)
    for k, entry in enumerate(values.items(data[several], f"{where}: {several}", several)):
        here = f"{where}: {several}[{k}]"
        values.mapping(entry, here, {"topic", "type", "names"}, PART | optional)
        names = values.texts(entry["names"], f"{here}: names")
        if not set(names) <= set(left):
            raise InputError(f"{here}: names: expected some of {left}, found {list(names)}")
        left = [name for name in left if name not in names]
        found.append(Part(entry, here, names, whole, alone=False))
    if left:
        raise InputError(f"{where}: {several}: expected every name of {list(whole.names)}, found none of {left}")
    return found
