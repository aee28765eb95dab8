"""Serves a page from a thread: on the loopback, or encrypted to the network."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
import time

import psutil
import uvicorn
from starlette.types import ASGIApp

from vla_policy.interfaces import Failure, InputError
from vla_policy.web.certificate import certificate
from vla_policy.web.security import Guard, is_loopback, state_folder

LARGEST_MESSAGE = 1 << 14  # bytes of a message from a browser
START, STOP = 10.0, 3.0  # seconds
ANY = ("0.0.0.0", "::", "")


class Server:
    """`app` at `host` and `port` (0: any free one) while it is open.

    Beyond the loopback address it speaks HTTPS alone, with a certificate that it makes itself. `InputError` where the
    address cannot be had.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        self.port = self._socket.getsockname()[1]
        names = _names(host)
        self._secure = not is_loopback(host)
        self.name = names[0]
        self.fingerprint, files = "", {}
        if self._secure:
            path, self.fingerprint = certificate(state_folder(), names)
            files = {"ssl_certfile": path, "ssl_keyfile": path}
        config = uvicorn.Config(
            Guard(app, names, self.scheme),
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=LARGEST_MESSAGE,
            ws_ping_interval=5.0,
            ws_ping_timeout=5.0,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            **files,  # type: ignore[arg-type]
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        end = time.monotonic() + START
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise Failure(f"web: expected a server at {host}:{self.port}, found that it does not start")
            time.sleep(0.01)

    @property
    def scheme(self) -> str:
        return "https" if self._secure else "http"

    def require_alive(self) -> None:
        """`Failure` if it has ended by itself."""
        if not self._thread.is_alive():
            raise Failure("web: expected the server to run, found that it has ended")

    @property
    def url(self) -> str:
        """The page's address."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{self.scheme}://{name}:{self.port}/"

    def close(self) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off now is no error
        self._server.should_exit = True
        self._thread.join(STOP)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):
            self._server.run(sockets=[self._socket])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        dual = family == socket.AF_INET6 and host in ANY and socket.has_dualstack_ipv6()  # and IPv4
        return socket.create_server((host, port), family=family, dualstack_ipv6=dual)
    except (OSError, OverflowError) as error:
        expected = "host, port: expected a free address of this computer"
        raise InputError(f"{expected}, found {host}:{port} ({error})") from None


def _names(host: str) -> list[str]:
    """The names under which the page may be asked for, the one to print first."""
    if is_loopback(host):
        first = "127.0.0.1" if host == "localhost" else host
        return list(dict.fromkeys([first, "localhost", "127.0.0.1", "::1"]))
    mine = _addresses() if host in ANY else [host]
    name = socket.gethostname()
    return list(dict.fromkeys([*mine, name, f"{name}.local", "localhost", "127.0.0.1", "::1"]))


def _addresses() -> list[str]:
    """This computer's addresses beyond the loopback, those of local networks and of IPv4 first."""
    up = {name for name, about in psutil.net_if_stats().items() if about.isup}
    found = [
        ipaddress.ip_address(address.address)
        for name, addresses in psutil.net_if_addrs().items()
        if name in up
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6) and "%" not in address.address
    ]
    outside = [address for address in found if not address.is_loopback]
    return [str(address) for address in sorted(outside, key=lambda a: (a.version, not a.is_private))]
