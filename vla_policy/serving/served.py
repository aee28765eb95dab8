"""What a server says of the policy that it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_policy.interfaces import DataError, InputError, Interface

Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]
TYPES = {"name": str, "digest": str, "unchecked": str, "reads": bool, "about": dict}
COUNTS = ("n_obs_steps", "n_image_steps", "n_action_steps", "rows")


@dataclass(frozen=True)
class Served:
    """A policy as its clients know it.

    `digest` is that of its checkpoint, `n_image_steps` of how many observations it looks at the pictures, `rows` how
    many a chunk has, `ranges` low and high (D,) of usual values by key, with which a robot's units are checked, `about`
    what reports say of it: objective, size, device and so on. `reads` and `unchecked` are those of `DiffusionPolicy`.
    """

    name: str
    digest: str
    interface: Interface
    n_obs_steps: int
    n_image_steps: int
    n_action_steps: int
    rows: int
    reads: bool = False
    unchecked: str = ""
    ranges: Ranges = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """In JSON; `from_dict` restores it."""
        ranges = {key: [np.asarray(side).tolist() for side in sides] for key, sides in self.ranges.items()}
        plain = {name: getattr(self, name) for name in (*TYPES, *COUNTS)}
        return {**plain, "interface": self.interface.to_dict(), "ranges": ranges}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Served:
        """What `to_dict` gave; `DataError` naming the key of anything else."""
        for name, kind in TYPES.items():
            if not isinstance(data.get(name), kind):
                raise DataError(f"{name}: expected a {kind.__name__}, found {data.get(name)!r:.80}")
        for name in COUNTS:
            value = data.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DataError(f"{name}: expected a whole number above 0, found {value!r:.80}")
        try:
            interface = Interface.from_dict(data.get("interface", {}))
            ranges = {key: _range(*sides) for key, sides in dict(data.get("ranges", {})).items()}
        except (InputError, TypeError, ValueError) as error:
            raise DataError(f"the policy's description: {error}") from None
        return cls(interface=interface, ranges=ranges, **{name: data[name] for name in (*TYPES, *COUNTS)})

    def differences(self, other: Served) -> list[str]:
        """What `other` has that a client of this one cannot go on with: it is another policy."""
        names = ("digest", *COUNTS)
        found = [f"{n} {getattr(self, n)} before, {getattr(other, n)} now" for n in names]
        changed = [line for name, line in zip(names, found, strict=True) if getattr(self, name) != getattr(other, name)]
        return changed + self.interface.differences(other.interface)


def _range(low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    sides = np.asarray(low, float), np.asarray(high, float)
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape:
        raise ValueError(f"ranges: expected low and high of each channel, found {low!r:.40} and {high!r:.40}")
    return sides
