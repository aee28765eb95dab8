"""A policy in a node's process, checked against the robot that it is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vla_policy.interfaces import InputError, Interface
from vla_policy.robot.contract import Contract
from vla_policy.robot.units import Ranges, require_same_scale
from vla_policy.serving.checkpoint import remote_policy

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.serving.client import RemotePolicy

SHIPPED = "checkpoints/pusht_image"
GIL_SECONDS = 0.001  # switch interval, so that inference does not delay the heartbeat thread


def shipped_policy() -> str:
    """The folder of the shipped policy, here or in the clone that the package is installed from.

    It is no name of the hub, where anybody may have it: `InputError` if there is no such folder.
    """
    for root in (Path(), Path(__file__).parents[2]):
        if (root / SHIPPED).is_dir():
            return str(root / SHIPPED)
    raise InputError(
        f"parameter 'checkpoint': expected a folder or hub name, found none, and no {SHIPPED} in {Path.cwd()}"
    )


def robot_policy(
    contract: Contract,
    checkpoint: str,
    device: str,
    threads: int,
    chunking: str = "async",
    draft: str = "",
    compile: bool = False,
) -> DiffusionPolicy:
    """The policy of a folder or hub repository on `device`, with `threads` threads of torch and, unless it is empty,
    the checkpoint of a draft; compiled for the robot with `compile`. `InputError` unless the robot provides what it
    needs, in the same units, and it can do what `chunking` asks of it.
    """
    from vla_policy.models.continuation import require_continuing
    from vla_policy.models.loading import load_policy, usual_ranges  # torch takes seconds, which belong to configure
    from vla_policy.models.prepared import prepare

    share_process(threads)
    policy = load_policy(checkpoint, device, draft=draft)
    try:
        ranges = usual_ranges(policy.interface, policy.normalizer, policy.config)
        _require(contract, f"checkpoint {Path(checkpoint).name}", policy.interface, ranges)
        if chunking == "rtc":
            require_continuing(policy.config)
        if compile:  # last, as it takes long
            prepare(policy)
    except InputError:
        end_draft(policy)
        raise
    return policy


def end_draft(policy: DiffusionPolicy) -> None:
    """End the process that drafts for this policy, if there is one."""
    from vla_policy.speculation.process import DraftProcess

    if isinstance(policy.drafter, DraftProcess):
        policy.drafter.close()


def served_policy(contract: Contract, server: str, jpeg: int, checkpoint: str) -> RemotePolicy:
    """The policy of a server, that of `checkpoint` unless this is "", with the checks of `robot_policy`."""
    sys.setswitchinterval(GIL_SECONDS)
    policy = remote_policy(server, jpeg, checkpoint)
    try:
        _require(contract, f"server {server}", policy.interface, policy.served.ranges)
    except InputError:
        policy.close()
        raise
    return policy


def robot_interface(contract: Contract, checkpoint: str) -> Interface:
    """The interface of a policy in another process, with the checks of `robot_policy`; no weights are read."""
    from vla_policy.models import PolicyConfig
    from vla_policy.models.checkpoint import POLICY, parse_config, read_checkpoint
    from vla_policy.models.loading import usual_ranges

    parts = read_checkpoint(checkpoint, POLICY)
    config = parse_config(PolicyConfig.from_dict, parts)
    interface = parts.interface.select(config.observation_keys)  # without observations of training alone
    ranges = usual_ranges(interface, parts.normalizer, config)
    _require(contract, f"checkpoint {Path(checkpoint).name}", interface, ranges)
    return interface


def share_process(threads: int) -> None:
    """Limit torch to `threads`, and let Python switch threads often: heartbeats in this process must be on time."""
    import torch

    torch.set_num_threads(threads)
    sys.setswitchinterval(GIL_SECONDS)


def _require(contract: Contract, needs: str, interface: Interface, ranges: Ranges) -> None:
    """`InputError` unless the robot provides what the policy needs, in the same units."""
    contract.require(interface, needs)
    require_same_scale(contract, interface, ranges, needs)
