"""Isometries of the table that map a task onto itself: a demonstration's image under one is a demonstration too.

Shapes: B windows, n observation steps, T rows of a chunk, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vla_policy.data.plane import EXPECTED, POSITION, planar_pairs
from vla_policy.interfaces import ACTION, Feature, InputError, Interface


@dataclass(frozen=True)
class Symmetry:
    """p -> `matrix` p + `offset` for positions p = (x, y) in metres; directions (cos, sin) turn with `matrix`.

    A direction is that of a body's x axis, about which the body has to be symmetric if the isometry is a reflection.
    `cameras` has the homographies (3, 3) of calibrated cameras by key, from (x, y, 1) on the table to multiples of
    (u, v, 1), places in the picture from its upper left corner (0, 0) to its lower right one (1, 1).
    """

    matrix: np.ndarray
    offset: np.ndarray
    cameras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def check(self, interface: Interface) -> None:
        """`InputError` naming a feature that it cannot act on."""
        for key, feature in {**interface.observations, ACTION: interface.action}.items():
            if feature.dtype == "image":
                if key not in self.cameras:
                    raise InputError(
                        f"data.symmetries: {key}: expected a calibrated camera, found none of {[*self.cameras]}"
                    )
            elif planar_pairs(feature) is None:
                raise InputError(
                    f"data.symmetries: {key}: expected {EXPECTED}, found {list(feature.names)} {list(feature.units)}"
                )

    def vectors(self, values: Tensor, feature: Feature) -> Tensor:
        """Values (..., D) of a feature under the isometry."""
        moved = values.clone()
        matrix = torch.from_numpy(self.matrix).to(values)
        for names, first in planar_pairs(feature) or []:
            pair = values[..., first : first + 2] @ matrix.mT
            moved[..., first : first + 2] = (
                pair + torch.from_numpy(self.offset).to(values) if names == POSITION else pair
            )
        return moved

    def pictures(self, frames: Tensor, key: str) -> Tensor:
        """Frames (B, n, H, W, 3) uint8 of a camera as it would see the table under the isometry.

        Exact for what lies on the table. What stands on it, an arm above all, is mapped as if it were painted there;
        what was outside the picture repeats its border.
        """
        count, steps, height, width, _ = frames.shape
        there = self.sources(key, height, width)
        grid = torch.from_numpy(2 * there - 1).to(frames.device, torch.float32).expand(count * steps, -1, -1, -1)
        planes = frames.flatten(0, 1).movedim(-1, 1).float()
        warped = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return warped.round().to(torch.uint8).movedim(1, -1).unflatten(0, (count, steps))

    def sources(self, key: str, height: int, width: int) -> np.ndarray:
        """For each pixel of the new picture the place (H, W, 2) u, v in the old one, from 0 to 1."""
        to_picture = self.cameras[key]
        move = np.eye(3)
        move[:2, :2], move[:2, 2] = self.matrix, self.offset
        back = to_picture @ np.linalg.inv(move) @ np.linalg.inv(to_picture)
        u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        there = np.stack([u, v, np.ones_like(u)], axis=-1) @ back.T
        places: np.ndarray = there[..., :2] / there[..., 2:]
        return places


class RandomSymmetry:
    """Adds to every batch: each of its windows as it is or under one of the `symmetries`, all equally likely."""

    def __init__(self, symmetries: Sequence[Symmetry], interface: Interface) -> None:
        self.symmetries, self.features = list(symmetries), {**interface.observations, ACTION: interface.action}
        for symmetry in symmetries:
            symmetry.check(interface)

    def __call__(self, batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Tensor]:
        chosen = generator.integers(len(self.symmetries) + 1, size=len(batch[ACTION]))
        changed = {key: batch[key].clone() for key in self.features if key in batch}
        for number, symmetry in enumerate(self.symmetries, 1):
            rows = torch.from_numpy(np.flatnonzero(chosen == number))
            for key, values in changed.items():
                values[rows] = self.moved(symmetry, key, values[rows])
        return changed

    def images(self, values: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Values of features, with any axes in front, under each of the symmetries."""
        return [
            {key: self.moved(symmetry, key, value) for key, value in values.items()} for symmetry in self.symmetries
        ]

    def moved(self, symmetry: Symmetry, key: str, values: Tensor) -> Tensor:
        """Values of a feature, with any axes in front, under one of the symmetries."""
        feature = self.features[key]
        return symmetry.pictures(values, key) if feature.dtype == "image" else symmetry.vectors(values, feature)
