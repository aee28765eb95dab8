"""The exit status of a program that an error ends: 2 for what its user can put right, 1 for what went wrong."""

from __future__ import annotations

import errno

from vla_policy.interfaces import Failure

OF_PATHS = {
    errno.ENOENT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
"""Errors of the operating system that a path causes which the user named."""


def exit_status(error: BaseException) -> int:
    """1 of a `Failure` and of an error of the operating system that no path causes, such as a full disk; otherwise 2.

    An `OSError` without a number comes from a library that could not read a file, and is a mistake as well.
    """
    if isinstance(error, (Failure, TimeoutError, ConnectionError)):
        return 1
    return 1 if isinstance(error, OSError) and error.errno is not None and error.errno not in OF_PATHS else 2
