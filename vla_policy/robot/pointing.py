"""From a pixel of a camera image to the point on the table in the robot's coordinates."""

from __future__ import annotations

import numpy as np

from vla_policy.interfaces import InputError


class Pointing:
    """A camera's homography to a plane, from four or more points (K, 2) in the plane and their pixels (K, 2).

    `camera` is the observation's key, `channels` are the action's two channels of the points' coordinates. Pixel
    coordinates (u, v) run right and down from the image's upper left corner; the first pixel's centre is (0.5, 0.5).
    """

    def __init__(self, camera: str, channels: tuple[str, str], pixels: np.ndarray, places: np.ndarray) -> None:
        for name, points in (("pixels", pixels), ("places", places)):
            if points.ndim != 2 or points.shape[1] != 2 or len(points) < 4 or not np.isfinite(points).all():
                raise InputError(f"pointing: {name}: expected four or more pairs of numbers, found {points.tolist()}")
        if len(pixels) != len(places):
            raise InputError(f"pointing: expected a place for each of {len(pixels)} pixels, found {len(places)}")
        self.camera, self.channels = camera, channels
        matrix = _homography(pixels, places)
        self._matrix = matrix * np.sign(matrix[2] @ [*pixels[0], 1.0])

    def place(self, pixel: np.ndarray) -> np.ndarray | None:
        """The point (2,) in the plane at a pixel (2,); None above the plane's horizon."""
        x, y, scale = self._matrix @ [*pixel, 1.0]
        return np.array([x, y]) / scale if scale > 0 else None

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """The pixels (N, 2) of points (N, 2) in the plane; NaN for those behind the camera."""
        seen = np.column_stack([places, np.ones(len(places))]) @ np.linalg.inv(self._matrix).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(seen[:, 2:] > 0, seen[:, :2] / seen[:, 2:], np.nan)


def _homography(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The least-squares homography (3, 3) from (u, v, 1) to multiples of (x, y, 1) (direct linear transform)."""
    rows, values = [], []
    for (u, v), (x, y) in zip(pixels, places, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v], [0, 0, 0, u, v, 1, -y * u, -y * v]]
        values += [x, y]
    scale = np.abs(rows).max(axis=0)  # pixels and metres differ by orders of magnitude
    solution, _, rank, _ = np.linalg.lstsq(rows / scale, np.array(values), rcond=1e-9)
    if rank < 8:
        raise InputError("pointing: expected pixels of which no three lie on a line, found some that do")
    return np.append(solution / scale, 1.0).reshape(3, 3)
