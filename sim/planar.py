"""Quasi-static planar pushing of the T by a round pusher at one contact point.

Friction on the table is modelled by an ellipsoidal limit surface (Goyal, Ruina and Papadopoulos 1991; Lynch, Maekawa
and Tanie 1992): under a force f with moment m about the centre of friction the block moves with the twist
(v, omega) ~ (f, m / r^2), with r the ratio of the largest frictional moment to the largest frictional force. A pusher
that stays at its contact point and pushes along the inward normal therefore turns the block about a point that is
fixed in the block: the push is a circular arc, known in closed form.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from shapely import Point
from shapely.geometry.polygon import orient

from sim.geometry import PIXEL, PUSHER_RADIUS, T_SHAPE, wrap_angle

_MIN_TURN = 1e-3  # rad per metre: keeps the centre of rotation finite (1 km away) for pushes that do not turn


@dataclass(frozen=True)
class Contacts:
    """Contact points (N, 2) on the block's outline and unit inward normals (N, 2), in the block's frame."""

    points: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def pusher(self, gap: float = 0.0) -> np.ndarray:
        """Centres (N, 2) of a pusher at a distance of `gap` metres from each contact."""
        return self.points - (PUSHER_RADIUS + gap) * self.normals


def outline_contacts(pitch: float = 0.004, margin: float = 0.004) -> Contacts:
    """Contacts every `pitch` metres along the sides of the T, `margin` off its corners, where the pusher has room."""
    corners = np.array(orient(T_SHAPE).exterior.coords)  # counter-clockwise, closed
    points, normals = [], []
    for start, end in itertools.pairwise(corners):
        length = float(np.linalg.norm(end - start))
        along = (end - start) / length
        inward = np.array([-along[1], along[0]])
        count = int((length / 2 - margin) / pitch)
        for offset in pitch * np.arange(-count, count + 1):
            point = (start + end) / 2 + offset * along
            if T_SHAPE.distance(Point(point - (PUSHER_RADIUS + 1e-6) * inward)) >= PUSHER_RADIUS - 1e-9:
                points.append(point)
                normals.append(inward)
    return Contacts(np.array(points), np.array(normals))


@dataclass(frozen=True)
class PlanarModel:
    """The T on a table with friction.

    `centre` is the centre of friction in the block's frame [m]; `radius` the largest frictional moment over the
    largest frictional force [m]. The defaults are gym-pusht's (centre of gravity, square root of inertia over mass).
    """

    centre: tuple[float, float] = (-45 * PIXEL, 0.0)
    radius: float = np.sqrt(3000.0) * PIXEL
    contacts: Contacts = field(default_factory=outline_contacts)

    @property
    def turns(self) -> np.ndarray:
        """(N,) radians that a push turns the block by, per metre that the contact advances along its normal."""
        moment = self._moments()
        turn = moment / (self.radius**2 + moment**2)
        return np.where(np.abs(turn) < _MIN_TURN, np.where(turn < 0, -_MIN_TURN, _MIN_TURN), turn)

    @property
    def pivots(self) -> np.ndarray:
        """(N, 2) centres of rotation in the block's frame."""
        moment = self._moments()
        velocity = self.contacts.normals / (1 + (moment / self.radius) ** 2)[:, None]
        turn = self.turns[:, None]
        return np.array(self.centre) + np.stack([-velocity[:, 1], velocity[:, 0]], axis=1) / turn

    def _moments(self) -> np.ndarray:
        arm = self.contacts.points - np.array(self.centre)
        return arm[:, 0] * self.contacts.normals[:, 1] - arm[:, 1] * self.contacts.normals[:, 0]


class Pushes:
    """The pushes of a model with precomputed constants, vectorised over poses and contacts."""

    def __init__(self, model: PlanarModel) -> None:
        self.model = model
        self.contacts = model.contacts
        self.turns = model.turns
        self.pivots = model.pivots

    def apply(self, pose: np.ndarray, contact: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Poses (..., 3) after the contacts (...,) advanced by `distance` (...,) metres along their normals."""
        angle = np.asarray(self.turns[contact] * distance)
        pivot = self.pivots[contact]
        c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
        turned = pose[..., 2] + angle
        c, s = c - np.cos(turned), s - np.sin(turned)  # position = fixed pivot - R(angle) pivot
        x = pose[..., 0] + c * pivot[..., 0] - s * pivot[..., 1]
        y = pose[..., 1] + s * pivot[..., 0] + c * pivot[..., 1]
        return np.stack([x, y, wrap_angle(turned)], axis=-1)

    def best(self, pose: np.ndarray, goal: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
        """The distance (M, N) of each push from poses (M, 3) that ends nearest to `goal` (3,), and the rest (M, N).

        Both in metres; the rest is a `pose_distance` with the same `spread`. Exact, since a push is a rotation. A
        distance is negative if the push would have to be a pull.
        """
        centre = np.array(self.model.centre)
        away = _centre(goal, centre) - _centre(pose, centre)
        left = goal[2] - pose[:, 2]
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        away = np.stack([c * away[:, 0] + s * away[:, 1], c * away[:, 1] - s * away[:, 0]], axis=1)  # block's frame
        arm = centre - self.pivots
        arm_squared = (arm**2).sum(1)
        inner = away @ arm.T
        along = arm_squared + inner + spread**2 * np.cos(left)[:, None]
        across = away @ np.stack([-arm[:, 1], arm[:, 0]]) + spread**2 * np.sin(left)[:, None]
        squared = 2 * (arm_squared + inner + spread**2 - np.hypot(along, across)) + (away**2).sum(1)[:, None]
        return np.arctan2(across, along) / self.turns, np.sqrt(np.maximum(squared, 0.0))


def pose_distance(pose: np.ndarray, goal: np.ndarray, spread: float, centre: np.ndarray) -> np.ndarray:
    """Root mean square distance (...,) in metres of points of the block from their goal positions.

    The points have root mean square radius `spread` around `centre` (block's frame), so that this is the distance
    of the centre and the chord of the angle: sqrt(|dp|^2 + 2 spread^2 (1 - cos dtheta)).
    """
    offset = _centre(pose, centre) - _centre(goal, centre)
    return np.sqrt((offset**2).sum(-1) + 2 * spread**2 * (1 - np.cos(pose[..., 2] - goal[2])))


def _centre(pose: np.ndarray, centre: np.ndarray) -> np.ndarray:
    c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    return pose[..., :2] + np.stack([c * centre[0] - s * centre[1], s * centre[0] + c * centre[1]], axis=-1)
