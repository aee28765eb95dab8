"""The token that a server asks its clients for. It comes from the environment: a command line can be read by others."""

from __future__ import annotations

import hmac
import ipaddress
import os
from pathlib import Path

from vla_policy.interfaces import InputError

TOKEN, TOKEN_FILE = "VLA_SERVE_TOKEN", "VLA_SERVE_TOKEN_FILE"
SHORTEST = 16  # characters


def token() -> str | None:
    """The token in `VLA_SERVE_TOKEN`, or in the file that `VLA_SERVE_TOKEN_FILE` names; None without either."""
    value, file = os.environ.get(TOKEN), os.environ.get(TOKEN_FILE)
    if value is not None and file is not None:
        raise InputError(f"token: expected one of {TOKEN} and {TOKEN_FILE}, found both")
    if value is None and file is None:
        return None
    found = value if file is None else Path(file).read_text(encoding="utf-8")
    assert found is not None
    found = found.strip()
    if len(found) < SHORTEST or not (found.isascii() and found.isprintable() and " " not in found):
        source = TOKEN if file is None else file
        raise InputError(
            f"{source}: expected a token of {SHORTEST} or more printable ASCII characters, found one of {len(found)}"
        )
    return found


def require_token(token: str | None, host: str) -> None:
    """`InputError` for a server without a token that others than this computer can reach."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"host: expected a loopback address where there is no token, found {host}; a token is put into {TOKEN}, or "
            f"into a file that {TOKEN_FILE} names"
        )


def authorization(token: str) -> str:
    """The header `Authorization` of a client."""
    return f"Bearer {token}"


def authorized(given: str, token: str) -> bool:
    """Whether the header `Authorization` has this token; takes as long for any wrong one."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), authorization(token).encode())


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches a server that listens on `host`, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
