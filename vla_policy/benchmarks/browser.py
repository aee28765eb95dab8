"""An installed Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vla_policy.interfaces import InputError

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Callable[[], Any]]:
    """Launches browsers without a window; `InputError` where Playwright or a browser is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("playwright: expected it to be installed (pip install playwright), found none") from None
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise InputError(f"browser: expected one of {', '.join(NAMES)} to be installed, found none")
    with sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
        yield partial(started.chromium.launch, executable_path=path, args=arguments)
