"""Loading a policy in a node's process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vla_policy.interfaces import ACTION, STATE
from vla_policy.robot.contract import Contract
from vla_policy.robot.units import require_same_scale

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy

GIL_SECONDS = 0.001  # switch interval, so that inference does not delay the heartbeat thread


def load_policy(contract: Contract, checkpoint: str, device: str, threads: int) -> DiffusionPolicy:
    """The policy of a folder or hub repository on `device`, with `threads` torch threads.

    `InputError` unless the robot provides its interface in the same units.
    """
    import torch  # takes seconds: part of configure, not of the node's start

    from vla_policy.models import DiffusionPolicy

    torch.set_num_threads(threads)
    sys.setswitchinterval(GIL_SECONDS)
    policy = DiffusionPolicy.from_pretrained(checkpoint)
    needs = f"checkpoint {Path(checkpoint).name}"
    contract.require(policy.interface, needs)
    absolute = [key for key in (STATE, ACTION) if key != ACTION or not policy.config.action_relative]
    known = [key for key in absolute if key == ACTION or key in policy.interface.observations]
    ranges = {key: policy.normalizer.usual_range(key) for key in known}
    require_same_scale(contract, policy.interface, ranges, needs)
    return policy.to(device)
