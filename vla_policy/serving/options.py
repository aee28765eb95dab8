"""Options of whoever has chunks computed, here or by a server, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.interfaces import InputError
from vla_policy.runtime import CHUNKINGS


@dataclass
class ServerOptions:
    """Where chunks are computed."""

    server: str = ""
    """ws://HOST:PORT or wss://HOST:PORT of a vla-serve with this policy, whose device and threads are used; empty: here
    """
    jpeg: int = 0  # quality of the pictures that the server gets, 1 to 95; 0: as they are

    def __post_init__(self) -> None:
        if self.jpeg and not self.server:
            raise InputError(f"jpeg: expected 0 without a server, found {self.jpeg}")


def require_together(
    server: str,
    draft: str | None,
    planner: str,
    chunking: str,
    monitor: str | None = None,
    compile: bool = False,
) -> None:
    """`InputError` unless these ways to compute and to play chunks go together; `planner` is its name."""
    if chunking not in CHUNKINGS:
        raise InputError(f"chunking: expected one of {list(CHUNKINGS)}, found {chunking!r}")
    if server and (planner != "none" or draft):
        raise InputError(f"server: expected none with a planner or a draft, which need the policy here, found {server}")
    if compile and server:
        raise InputError(f"compile: expected false with a server, which has its own (vla-serve), found {server}")
    if compile and planner != "none":
        raise InputError(
            f"compile: expected false with a planner, which asks for several chunks at once, found {planner!r}"
        )
    if planner == "foresight" and chunking != "rtc":
        raise InputError(f"chunking: expected rtc with planner=foresight, which needs its given rows, found {chunking}")
    if planner not in ("none", "foresight") and chunking in (
        "rtc",
        "ensemble",
    ):  # a mean of the best chunks need not be a good one
        raise InputError(f"planner: expected none with chunking={chunking}, found {planner!r}")
    if planner != "none" and monitor is not None:
        raise InputError(f"planner: expected none with a monitor, which is for the policy, found {planner!r}")
    if draft and chunking == "rtc":
        raise InputError(f"draft: expected none with chunking=rtc, whose chunks are not drafted, found {draft}")
    if monitor is not None and chunking != "async":
        raise InputError(
            f"monitor: expected none with chunking={chunking}, it was calibrated for async, found {monitor}"
        )
