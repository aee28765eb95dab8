"""Mouse input over the camera image: the point on the table under the cursor while the left button is held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from vla_policy.robot.pointing import Pointing

DOWN, UP, HELD = 1, 4, 1  # OpenCV's EVENT_LBUTTONDOWN, EVENT_LBUTTONUP and EVENT_FLAG_LBUTTON
SIDE = 480  # minimum length of the image's shorter side on the screen, pixels
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
MARK = (255, 0, 0)  # RGB


class Window(Protocol):
    """A window that shows an image."""

    def show(self, picture: np.ndarray, mark: tuple[int, int] | None) -> str | None:
        """Show an image (H, W, 3) RGB with a mark at a pixel; returns the key pressed since the last call, "" if none.

        None once the window was closed.
        """

    def close(self) -> None: ...


def obstacle() -> str:
    """Why no window can be opened, "" if one can. Probed in a subprocess: without a display OpenCV aborts."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    last = probe.stderr.strip().splitlines()[-1:]
    return "" if probe.returncode == 0 else f"OpenCV opens no window: {''.join(last)}"


class OpenCVWindow:
    """An OpenCV window that calls `on_mouse(event, u, v, flags)`."""

    def __init__(self, title: str, on_mouse: Callable[[int, int, int, int], None]) -> None:
        import cv2

        self._cv2, self._title, self._shown = cv2, title, False
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | getattr(cv2, "WINDOW_GUI_NORMAL", 0))
        cv2.setMouseCallback(title, lambda event, u, v, flags, _: on_mouse(event, u, v, flags))

    def show(self, picture: np.ndarray, mark: tuple[int, int] | None) -> str | None:
        if self._shown and self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1:
            return None  # imshow would open a new one without the mouse callback
        self._shown = True
        drawn = np.ascontiguousarray(picture)
        if mark is not None:
            self._cv2.circle(drawn, mark, 6, MARK, 2)
        self._cv2.imshow(self._title, drawn[..., ::-1])
        key = self._cv2.waitKey(1)
        return chr(key & 0xFF) if key >= 0 else ""

    def close(self) -> None:
        self._cv2.destroyAllWindows()


class Pointer:
    """Converts mouse events over an enlarged image to points on the table; the left button is the deadman.

    A release outside the window takes effect at the next mouse movement.
    """

    def __init__(self, pointing: Pointing, shape: tuple[int, ...]) -> None:
        self._pointing, self._shape = pointing, shape[:2]
        self._factor = max(1, -(-SIDE // min(self._shape)))
        self._held, self._at = False, (0, 0)

    def on_mouse(self, event: int, u: int, v: int, flags: int, *_: Any) -> None:
        """An OpenCV mouse event at a pixel of the enlarged image."""
        self._at = (u, v)
        self._held = event == DOWN or (self._held and event != UP and bool(flags & HELD))

    @property
    def mark(self) -> tuple[int, int] | None:
        """The cursor's pixel in the enlarged image while the button is held."""
        return self._at if self._held else None

    @property
    def place(self) -> np.ndarray | None:
        """The target (2,); None while the button is not held, or outside the image or the table."""
        pixel = (np.array(self._at) + 0.5) / self._factor
        inside = (pixel >= 0).all() and (pixel < self._shape[::-1]).all()
        return self._pointing.place(pixel) if self._held and inside else None

    def enlarged(self, picture: np.ndarray) -> np.ndarray:
        """The image (H, W, 3) scaled for the screen."""
        return picture.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
