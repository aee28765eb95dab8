"""Observations and actions as they are from an object on the table.

A push depends on where the tool is relative to the object, and hardly on where both are: in the object's frame, what
one pose of it teaches holds for all of them. This is the canonicalisation that makes a policy equivariant (Kaba et al.
2023, arXiv 2211.06489), here to the plane's rotations and translations, up to what it is told about where the world is.

An object's pose (..., 4) is x, y in metres and cos, sin of its angle, in the robot's frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_policy.data.plane import EXPECTED, POSITION, planar_pairs
from vla_policy.interfaces import ACTION, GOAL_STATE, Feature, InputError, Interface

POSE = ("x", "y", "cos", "sin")
SEEN = "seen/"  # + key: a normaliser's entry for a vector as it is from the object


class ObjectFrame:
    """The frame of the object whose pose is the feature `key` of `interface`.

    `InputError` if there is no such pose, or a vector or the action has channels that cannot be seen from it.
    """

    def __init__(self, key: str, interface: Interface) -> None:
        self.key = key
        pose = interface.observations.get(key)
        if pose is None or pose.names != POSE or pose.units[:2] != ("m", "m"):
            found = "none" if pose is None else f"{list(pose.names)} {list(pose.units)}"
            raise InputError(
                f"policy.object_frame: expected {key} to be one of observation_keys or auxiliary_keys, with x and y in "
                f"metres, cos and sin, found {found}"
            )
        self.features: dict[str, Feature] = {
            name: feature for name, feature in interface.observations.items() if feature.dtype != "image"
        }
        for name, feature in {**self.features, ACTION: interface.action}.items():
            if not planar_pairs(feature):
                raise InputError(
                    f"policy.object_frame: {name}: expected {EXPECTED}, found {list(feature.names)} "
                    f"{list(feature.units)}"
                )
        self._moved = planar_pairs(interface.action) or []

    def middle(self, positions: Tensor) -> Tensor:
        """(2,), halfway between the least and the greatest of poses (N, 4), such as the two of a normaliser's
        statistics.
        """
        return (positions.amin(0) + positions.amax(0))[:2] / 2

    def seen(self, values: Mapping[str, Tensor], pose: Tensor, middle: Tensor) -> dict[str, Tensor]:
        """Vectors (..., D) by key from an object at `pose`, which has their axes in front; of the object's own poses
        (..., 4), the inverse: from the robot, where the `middle` (2,) of its places is, and the robot's axes; from its
        goal, where that is.

        From the robot's own origin, which is far away, a millimetre would be lost in the turns of the object.
        """
        origins = {self.key: middle, GOAL_STATE: torch.zeros_like(middle)}
        return {
            key: inverse(value, origins[key]) if key in origins else _seen(value, self.features[key], pose)
            for key, value in values.items()
        }

    def turned(self, actions: Tensor, pose: Tensor) -> Tensor:
        """Actions (..., D) that are differences, in the object's axes."""
        return self._turned(actions, transposed(pose))

    def turned_back(self, actions: Tensor, pose: Tensor) -> Tensor:
        """The inverse of `turned`."""
        return self._turned(actions, rotation(pose))

    def _turned(self, actions: Tensor, matrix: Tensor) -> Tensor:
        actions = actions.clone()
        for _, first in self._moved:
            actions[..., first : first + 2] = _times(matrix, actions[..., first : first + 2])
        return actions


def rotation(pose: Tensor) -> Tensor:
    """Matrices (..., 2, 2) from an object's frame to the robot's; estimated directions need not have length 1."""
    c, s = F.normalize(pose[..., 2:], dim=-1).unbind(-1)
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def transposed(pose: Tensor) -> Tensor:
    """Matrices (..., 2, 2) from the robot's frame to an object's."""
    return rotation(pose).mT


def inverse(pose: Tensor, origin: Tensor) -> Tensor:
    """The pose (..., 4), in the object's frame, of the robot's axes at `origin` (2,)."""
    position = _times(transposed(pose), origin - pose[..., :2])
    direction = F.normalize(pose[..., 2:], dim=-1) * pose.new_tensor([1.0, -1.0])
    return torch.cat([position, direction], dim=-1)


def _seen(values: Tensor, feature: Feature, pose: Tensor) -> Tensor:
    seen, matrix = values.clone(), transposed(pose)
    for names, first in planar_pairs(feature) or []:
        pair = values[..., first : first + 2]
        seen[..., first : first + 2] = _times(matrix, pair - pose[..., :2] if names == POSITION else pair)
    return seen


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (matrix @ vectors[..., None])[..., 0]
