"""Who may talk to the page: names and origins, the token, how often."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vla_policy.interfaces import InputError
from vla_policy.utils.files import write_whole

TOKEN = "VLA_WEB_TOKEN"  # the environment variable with a token of the user's own
SHORTEST_TOKEN = 16
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def new_token() -> str:
    """The environment's token, or a new one; `InputError` for one that is too short."""
    token = os.environ.get(TOKEN, "") or secrets.token_urlsafe(18)
    if len(token) < SHORTEST_TOKEN:
        raise InputError(f"{TOKEN}: expected {SHORTEST_TOKEN} characters or more, found {len(token)}")
    return token


def same_token(found: object, expected: str) -> bool:
    """Compared in constant time."""
    return isinstance(found, str) and hmac.compare_digest(found.encode(errors="replace"), expected.encode())


def is_loopback(host: str) -> bool:
    """Whether an address is this computer's own, for itself alone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def from_loopback(scope: Mapping[str, Any]) -> bool:
    """Whether a request comes from this computer."""
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


def state_folder() -> Path:
    """Where the pages keep what only this user may read."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vla_policy"


def write_private(path: Path, data: bytes) -> None:
    """A file that only this user can read, from its first moment on."""

    def write(temporary: Path) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    write_whole(path, write)


class Bucket:
    """A rate limit: `rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._last = burst, time.monotonic()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """Refuses requests to another name than `hosts` (against rebinding of names) and from another origin than the page,
    and gives every answer the headers that keep foreign scripts and frames out.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], scheme: str) -> None:
        self._app, self._hosts, self._scheme = app, {host.lower() for host in hosts}, scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._refusal(scope)
        if not reason:
            await self._app(scope, receive, with_headers)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(reason, 403)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return "another host"
        needed = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if len(origins) > 1 or ((origins or needed) and origins != [f"{self._scheme}://{hosts[0]}"]):
            return "another origin"
        return ""


def _name(host: str) -> str:
    """The name in a Host header, without the port and the brackets; "" for one that is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
