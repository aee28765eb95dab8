"""Which channels of a vector are positions and directions in the plane of the table."""

from __future__ import annotations

from vla_policy.interfaces import Feature

POSITION, DIRECTION = ("x", "y"), ("cos", "sin")
UNMOVED = {"z", "height", "gripper"}  # by any isometry of the plane
EXPECTED = f"channels x, y in metres, cos, sin or one of {sorted(UNMOVED)}"


def planar_pairs(feature: Feature) -> list[tuple[tuple[str, str], int]] | None:
    """The pairs of channels that an isometry of the plane moves, with the first one's place; None if some channel is
    neither part of one nor `UNMOVED`.
    """
    found, place = [], 0
    while place < len(feature.names):
        pair = tuple(feature.names[place : place + 2])
        metres = set(feature.units[place : place + 2]) == {"m"}
        if pair == DIRECTION or (pair == POSITION and metres):
            found.append((POSITION if pair == POSITION else DIRECTION, place))
            place += 2
        elif feature.names[place] in UNMOVED:
            place += 1
        else:
            return None
    return found if feature.names else None
