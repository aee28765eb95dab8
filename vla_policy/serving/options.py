"""Options of whoever may have chunks computed by a server."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.interfaces import InputError


@dataclass
class ServerOptions:
    """Where chunks are computed."""

    server: str = ""  # ws://HOST:PORT or wss://HOST:PORT of a vla-serve with this policy; empty: here
    jpeg: int = 0  # quality of the pictures that the server gets, 1 to 95; 0: as they are

    def __post_init__(self) -> None:
        if self.jpeg and not self.server:
            raise InputError(f"jpeg: expected 0 without a server, found {self.jpeg}")
