"""The exit status for an error that ends a program: 2 for a mistake of its user, 1 for a failure."""

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
"""Errors of the operating system that are caused by a path, which the user has named."""


def exit_status(error: BaseException) -> int:
    """1 for a `Failure` and for an error of the operating system that no path causes, such as a full disk; otherwise 2.

    An `OSError` without a number comes from a library that could not read a file, and is a mistake as well.
    """
    if isinstance(error, (Failure, TimeoutError, ConnectionError)):
        return 1
    return 1 if isinstance(error, OSError) and error.errno is not None and error.errno not in OF_PATHS else 2
