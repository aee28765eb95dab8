"""Pinhole cameras over PyBullet's software renderer, with their calibration.

Pixel coordinates (u, v) run right and down from the image's upper left corner; the first pixel's middle is (0.5, 0.5).
The camera's frame is OpenCV's: x right, y down, z forward. PyBullet's renderer looks through a corner of each pixel,
not through its middle, so that bodies appear half a ray right of and above where `project` says: 0.25 pixels with two
rays a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sim.bullet import pb
from sim.config import TABLE_HALF, CameraConfig, ColourConfig
from sim.geometry import WORKSPACE_CENTRE
from sim.overrides import Vector

NEAR, FAR = 0.2, 3.0  # metres
EMPTY = 0.999999  # depth buffer where nothing was drawn, less rounding


@dataclass(frozen=True)
class Light:
    """A directional lamp and ambient light; a surface has `ambient` + `diffuse` * cos(angle) of its colour."""

    direction: Vector = (0.3, 0.2, 1.0)
    """Towards the lamp, of any length."""
    ambient: float = 0.65
    diffuse: float = 0.4

    @property
    def on_table(self) -> float:
        """Brightness of upward faces, 0 to 1."""
        return min(1.0, self.ambient + self.diffuse * self.direction[2] / float(np.linalg.norm(self.direction)))


class Camera:
    """`intrinsics` (3, 3) in pixels and `extrinsics` (4, 4), which takes world to camera coordinates."""

    def __init__(self, config: CameraConfig, colours: ColourConfig | None = None, light: Light | None = None) -> None:
        self.config, self.light = config, light or Light()
        focal = config.size / 2 / np.tan(np.radians(config.field_of_view) / 2)
        self.intrinsics = np.array([[focal, 0, config.size / 2], [0, focal, config.size / 2], [0, 0, 1]])
        self.extrinsics = _look_at(np.array(config.position), np.array(config.target), np.array(config.up))
        opengl = np.diag([1.0, -1.0, -1.0, 1.0]) @ self.extrinsics
        self._view = opengl.T.ravel().tolist()  # OpenGL wants columns
        self._projection = pb.computeProjectionMatrixFOV(config.field_of_view, 1.0, NEAR, FAR)
        self._background = self._table(colours or ColourConfig())

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in metres as pixel coordinates (..., 2)."""
        rotation, translation = self.extrinsics[:3, :3], self.extrinsics[:3, 3]
        image = (np.asarray(points, float) @ rotation.T + translation) @ self.intrinsics.T
        return image[..., :2] / image[..., 2:]

    def locate(self, pixels: np.ndarray, height: float = 0.0) -> np.ndarray:
        """World points (..., 3) at a height (metres) above the table at pixel coordinates (..., 2)."""
        pixels = np.asarray(pixels, float)
        rays = np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1) @ np.linalg.inv(self.intrinsics).T
        rays = rays @ self.extrinsics[:3, :3]  # rotation.T applied to rows
        origin = np.array(self.config.position)
        return origin + rays * ((height - origin[2]) / rays[..., 2:])

    def render(self, client: int) -> np.ndarray:
        """The image (size, size, 3) uint8 of the client's scene."""
        factor, size = self.config.supersampling, self.config.size
        _, _, pixels, depth, _ = self._image(client, size * factor, pb.ER_NO_SEGMENTATION_MASK)
        shape = (size * factor, size * factor)
        pixels, depth = _array(pixels, np.uint8, (*shape, 4)), _array(depth, np.float32, shape)
        picture = Image.frombuffer("RGBX", shape, np.ascontiguousarray(pixels), "raw", "RGBX", 0, 1)
        picture = Image.composite(picture, self._background, Image.fromarray(depth < EMPTY))
        return np.array(picture.reduce(factor))[..., :3].copy()

    def _table(self, colours: ColourConfig) -> Image.Image:
        """The bare table, ray traced once: most of an image, which the renderer then need not fill."""
        size, factor = self.config.size * self.config.supersampling, self.config.supersampling
        centres = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1) + 0.5) / factor
        points = self.locate(centres)
        ahead = (points - self.config.position) @ self.extrinsics[2, :3] > 0
        hit = ahead & (np.abs(points[..., :2] - WORKSPACE_CENTRE) <= TABLE_HALF[:2]).all(axis=-1)
        picture = self.light.on_table * np.where(hit[..., None], colours.table, colours.backdrop)
        return Image.fromarray(np.round(255 * picture).astype(np.uint8)).convert("RGBX")

    def segment(self, client: int) -> np.ndarray:
        """Body index + (link index + 1) << 24 of every pixel (size, size), -1 where there is nothing."""
        size = self.config.size
        mask = self._image(client, size, pb.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX)[4]
        return _array(mask, np.int32, (size, size))

    def _image(self, client: int, size: int, flags: int) -> tuple:
        return pb.getCameraImage(
            size,
            size,
            viewMatrix=self._view,
            projectionMatrix=self._projection,
            lightDirection=self.light.direction,
            shadow=0,
            lightAmbientCoeff=self.light.ambient,
            lightDiffuseCoeff=self.light.diffuse,
            lightSpecularCoeff=0.0,
            renderer=pb.ER_TINY_RENDERER,
            flags=flags,
            physicsClientId=client,
        )


def _array(values: np.ndarray | tuple, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A PyBullet image as an array; builds without NumPy return flat tuples."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype, len(values)).reshape(shape)


def _look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    extrinsics = np.eye(4)
    extrinsics[:3, :3], extrinsics[:3, 3] = rotation, -rotation @ position
    return extrinsics
