"""A policy in a node's process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy

GIL_SECONDS = 0.001  # inference in Python must let the heartbeat pass


def load_policy(checkpoint: str, device: str, threads: int) -> DiffusionPolicy:
    """The policy of a folder or hub repository on `device`, with so many threads for torch."""
    import torch  # takes seconds, which belong to configure

    from vla_policy.models import DiffusionPolicy

    torch.set_num_threads(threads)
    sys.setswitchinterval(GIL_SECONDS)
    return DiffusionPolicy.from_pretrained(checkpoint).to(device)
