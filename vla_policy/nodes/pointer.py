"""A mouse over the camera's picture: the place on the table that a person points at while the left button is held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from vla_policy.robot.pointing import Pointing

DOWN, UP, HELD = 1, 4, 1  # OpenCV's EVENT_LBUTTONDOWN, EVENT_LBUTTONUP and EVENT_FLAG_LBUTTON
SIDE = 480  # pixels that the picture's smaller side has at least on the screen
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
MARK = (255, 0, 0)  # RGB


class Window(Protocol):
    """A picture on a screen."""

    def show(self, picture: np.ndarray, mark: tuple[int, int] | None) -> str | None:
        """Show a picture (H, W, 3) RGB with a mark at a pixel; the key pressed since the last one, "" if none.

        None if somebody has closed the window.
        """

    def close(self) -> None: ...


def obstacle() -> str:
    """Why there can be no window; "" if there can. Tried in another process: without a display OpenCV ends its own."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    last = probe.stderr.strip().splitlines()[-1:]
    return "" if probe.returncode == 0 else f"OpenCV opens no window: {''.join(last)}"


class OpenCVWindow:
    """A window of OpenCV's whose mouse events go to `on_mouse` (event, u, v, flags)."""

    def __init__(self, title: str, on_mouse: Callable[[int, int, int, int], None]) -> None:
        import cv2

        self._cv2, self._title, self._shown = cv2, title, False
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | getattr(cv2, "WINDOW_GUI_NORMAL", 0))
        cv2.setMouseCallback(title, lambda event, u, v, flags, _: on_mouse(event, u, v, flags))

    def show(self, picture: np.ndarray, mark: tuple[int, int] | None) -> str | None:
        if self._shown and self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1:
            return None  # imshow would open another one, whose mouse nobody hears
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
    """The mouse's events over an enlarged picture, as a place; the left button is the deadman.

    A release that the window did not see (outside of it) counts from the next movement on.
    """

    def __init__(self, pointing: Pointing, shape: tuple[int, ...]) -> None:
        self._pointing, self._shape = pointing, shape[:2]
        self._factor = max(1, -(-SIDE // min(self._shape)))
        self._held, self._at = False, (0, 0)

    def on_mouse(self, event: int, u: int, v: int, flags: int, *_: Any) -> None:
        """An event of OpenCV's at a pixel of the screen's picture."""
        self._at = (u, v)
        self._held = event == DOWN or (self._held and event != UP and bool(flags & HELD))

    @property
    def mark(self) -> tuple[int, int] | None:
        """Where the mouse is on the screen's picture while the button is held."""
        return self._at if self._held else None

    @property
    def place(self) -> np.ndarray | None:
        """Where (2,) the arm is to go; None while the button is not held, or outside of the picture or the table."""
        pixel = (np.array(self._at) + 0.5) / self._factor
        inside = (pixel >= 0).all() and (pixel < self._shape[::-1]).all()
        return self._pointing.place(pixel) if self._held and inside else None

    def enlarged(self, picture: np.ndarray) -> np.ndarray:
        """The picture (H, W, 3) as it is shown."""
        return picture.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
