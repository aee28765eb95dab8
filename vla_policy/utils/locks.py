"""One at a time, also after a kill."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from vla_policy.interfaces import InputError


def only_one(path: Path, who: str) -> IO[str]:
    """Keep every other `who` out until the returned file is closed or the process dies; `InputError` for a second one.

    `path` is the lock's file; its folder, which is made if needed, is what `who` works on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")  # which leaves a file alone that is somebody else's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path.parent}: expected no other {who}, found one at work") from None
    return file
