"""A policy in a node's process, checked against the robot that it is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vla_policy.interfaces import ACTION, STATE, Interface
from vla_policy.robot.contract import Contract
from vla_policy.robot.units import require_same_scale

if TYPE_CHECKING:
    from vla_policy.data import Normalizer
    from vla_policy.models import DiffusionPolicy, PolicyConfig

GIL_SECONDS = 0.001  # switch interval, so that inference does not delay the heartbeat thread


def robot_policy(
    contract: Contract, checkpoint: str, device: str, threads: int, chunking: str = "async", draft: str = ""
) -> DiffusionPolicy:
    """The policy of a folder or hub repository on `device`, with `threads` threads of torch and, unless it is empty,
    the checkpoint of a draft; `InputError` unless the robot provides what it needs, in the same units, and it can do
    what `chunking` asks of it.
    """
    from vla_policy.models.continuation import require_continuing
    from vla_policy.models.loading import load_policy  # torch takes seconds, which belong to configure

    share_process(threads)
    policy = load_policy(checkpoint, device, draft=draft)
    _require(contract, checkpoint, policy.interface, policy.normalizer, _other_numbers(policy.config))
    if chunking == "rtc":
        require_continuing(policy.config)
    return policy


def robot_interface(contract: Contract, checkpoint: str) -> Interface:
    """The interface of a policy in another process, with the checks of `robot_policy`; no weights are read."""
    from vla_policy.models import PolicyConfig
    from vla_policy.models.checkpoint import POLICY, parse_config, read_checkpoint

    parts = read_checkpoint(checkpoint, POLICY)
    config = parse_config(PolicyConfig.from_dict, parts)
    interface = parts.interface.select(config.observation_keys)  # without observations of training alone
    _require(contract, checkpoint, interface, parts.normalizer, _other_numbers(config))
    return interface


def share_process(threads: int) -> None:
    """Limit torch to `threads`, and let Python switch threads often: heartbeats in this process must be on time."""
    import torch

    torch.set_num_threads(threads)
    sys.setswitchinterval(GIL_SECONDS)


def _other_numbers(config: PolicyConfig) -> bool:
    """Whether the normaliser of actions has other numbers than the robot is sent."""
    return config.action_relative or config.action_basis == "frequency"


def _require(
    contract: Contract, checkpoint: str, interface: Interface, normalizer: Normalizer, other_numbers: bool
) -> None:
    """`InputError` unless the robot provides what the policy needs, in the same units. Ranges of actions are not
    compared if the normaliser has `other_numbers`: relative to the state, or frequencies.
    """
    needs = f"checkpoint {Path(checkpoint).name}"
    contract.require(interface, needs)
    absolute = [key for key in (STATE, ACTION) if key != ACTION or not other_numbers]
    known = [key for key in absolute if key == ACTION or key in interface.observations]
    require_same_scale(contract, interface, {key: normalizer.usual_range(key) for key in known}, needs)
