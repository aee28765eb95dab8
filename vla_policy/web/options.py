"""Options of `vla-web`."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.runtime import TELEOP_SCALE


@dataclass
class PageConfig:
    """Where a page is served."""

    host: str = "127.0.0.1"  # address to serve at; another than this computer's own is encrypted and asks for the token
    port: int = 8080  # 0: any free one


@dataclass
class LiveConfig(PageConfig):
    """The live page of a running graph."""

    contract: str = "pusht_sim"  # robot contract: a name in config/ or a file
    control: bool = False  # whoever has the token may enable, record, instruct and lead the arm by hand
    scale: float = TELEOP_SCALE  # speed of teleoperation, as a fraction of the contract's limit


@dataclass
class DataConfig(PageConfig):
    """The page of a dataset."""
