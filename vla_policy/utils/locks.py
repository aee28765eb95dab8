"""Advisory file locks, which the kernel releases when a process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from vla_policy.interfaces import InputError


def lock_file(path: Path, owner: str) -> IO[str]:
    """Lock the file at `path`, until the returned one is closed or the process ends.

    Its folder, which is created if needed, is what the `owner` works on; `InputError` if another owner holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")  # keeps the content of a file that is not this package's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path.parent}: expected no other {owner}, found one that is running") from None
    return file
