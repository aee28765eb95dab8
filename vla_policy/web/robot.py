"""What the live page needs of a robot: `live_node` provides it through ROS."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

HELD = 0.15  # seconds without a message after which the page's finger or key counts as released
QUALITY = 85  # of JPEG


class Picture(NamedTuple):
    """A camera's newest picture as JPEG; `stamp` is the robot's time in seconds, `serial` counts up."""

    serial: int
    stamp: float
    jpeg: bytes


class Robot(Protocol):
    """A robot as the page sees and leads it. All methods may be called from the server's thread."""

    def about(self) -> Mapping[str, Any]:
        """What does not change, as JSON: name, cameras, channels, whether it may be controlled."""

    def status(self) -> Mapping[str, Any]:
        """What is so now, as JSON."""

    def picture(self, camera: int, after: int) -> Picture | None:
        """The newest picture of a camera unless its serial is `after`."""

    def drawn(self, stamp: float) -> None:
        """The page has drawn a picture with this stamp."""

    def stop(self) -> bool:
        """The emergency stop, latched until the request `clear`; whether it was not pressed already."""

    async def request(self, name: str, value: Any) -> str:
        """Carry out one of `messages.REQUESTS` and say what came of it; `Refused` with the reason."""

    def point(self, u: float, v: float) -> None:
        """Lead towards a point of the pointing camera's picture, 0 to 1 right and down, for `HELD` seconds."""

    def push(self, direction: np.ndarray) -> None:
        """Lead in a direction (D,), -1 to 1, for `HELD` seconds."""

    def let_go(self) -> None:
        """Nobody leads."""

    def log(self, text: str) -> None:
        """Note who did what."""


def jpeg(pixels: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
