"""A camera as the page sees it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from vla_policy.nodes import common
from vla_policy.robot.contract import Stream
from vla_policy.robot.messages import decode, seconds
from vla_policy.robot.pointing import Pointing
from vla_policy.web.robot import Picture, jpeg


class View:
    """The newest picture of one camera, silent after `timeout` seconds without one.

    It is made to JPEG once for all pages, when one asks for it.
    """

    def __init__(self, stream: Stream, timeout: float) -> None:
        self.stream, self.name = stream, stream.key.rpartition(".")[2]
        self._timeout, self._seen = timeout, -np.inf  # steady clock
        self._message: tuple[int, Any] = (0, None)
        self._made: Picture | None = None
        self._lock = threading.Lock()

    @property
    def silent(self) -> bool:
        return common.steady() > self._seen + self._timeout

    def is_of(self, pointing: Pointing | None) -> bool:
        """Whether this camera is the calibrated one."""
        return pointing is not None and pointing.camera == self.stream.key

    def pixel(self, u: float, v: float) -> np.ndarray:
        """The pixel (2,) at parts of the picture's width and height."""
        return np.array([u, v]) * self._size

    def parts(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) as parts of the picture's width and height."""
        parts: np.ndarray = pixels / self._size
        return parts

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self.stream.feature.shape[:2]
        return width, height

    def put(self, message: Any) -> None:
        self._seen = common.steady()
        self._message = self._message[0] + 1, message

    def picture(self, after: int) -> Picture | None:
        """The newest one unless its serial is `after`; `DataError` for one that does not fit the contract."""
        serial, message = self._message
        if message is None or serial == after:
            return None
        with self._lock:
            if self._made is None or self._made.serial != serial:
                self._made = Picture(serial, seconds(message.header.stamp), jpeg(decode(message, self.stream)))
            return self._made
