"""Loading of checkpoints on a device, and their description in evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from vla_policy.interfaces import ACTION, STATE, InputError, Interface

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vla_policy.data import Normalizer
    from vla_policy.models import DiffusionPolicy, PolicyConfig


class Denoising(Protocol):
    """What evaluations describe: a policy whose transformer takes several `passes` for a chunk."""

    config: Any
    card: dict[str, Any]
    n_action_steps: int

    @property
    def device(self) -> torch.device: ...

    @property
    def passes(self) -> int: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


def load_policy(
    checkpoint: str,
    device: str = "auto",
    threads: int | None = None,
    draft: str | None = None,
    compile: bool = False,
) -> DiffusionPolicy:
    """The policy of a folder or hub repository on the device, with torch's number of threads set.

    `draft` is the checkpoint of a smaller policy that speeds up its action tokens, see `drafts.action_drafter`. With
    `compile` it is prepared for one observation at a time, see `prepared.prepare`.
    """
    from vla_policy.models import DiffusionPolicy

    place = chosen_device(device, threads)
    policy = DiffusionPolicy.from_pretrained(checkpoint).to(place)
    if draft:
        from vla_policy.models.drafts import action_drafter

        policy.drafter = action_drafter(policy, draft, device)
    if compile:
        from vla_policy.models.prepared import prepare

        prepare(policy)
    return policy


def chosen_device(device: str, threads: int | None) -> str:
    """Resolve auto, cpu or cuda to a device and set torch's number of threads; `InputError` if it is unavailable."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda, found {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: expected a GPU for cuda, found none")
    if threads is not None:
        torch.set_num_threads(threads)
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


def machine(policy: Denoising) -> dict[str, object]:
    """The conditions of a latency: device, torch's threads, the transformer's passes per chunk."""
    import torch

    cuda = policy.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(policy.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "inference_steps": policy.passes,
    }


def about(policy: Denoising) -> dict[str, Any]:
    """What evaluations say of a policy: `described`, and as `timing` the conditions of a latency."""
    return {**described(policy), "timing": machine(policy)}


def usual_ranges(
    interface: Interface, normalizer: Normalizer, config: PolicyConfig
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Low and high (D,) of state and actions by key, as the robot has them: not of actions that are normalised as other
    numbers, relative to the state or frequencies.
    """
    others = config.action_relative or config.action_basis == "frequency"
    keys = [key for key in (STATE, ACTION) if (not others if key == ACTION else key in interface.observations)]
    return {key: normalizer.usual_range(key) for key in keys}


def described(policy: Denoising) -> dict[str, Any]:
    """A checkpoint's objective, size, and card entries on data and training."""
    objective = policy.config.objective
    return {
        "objective": {"name": objective.name, "sampler": objective.sampler, "passes": policy.passes},
        "n_action_steps": policy.n_action_steps,
        "parameters": sum(value.numel() for value in policy.parameters()),
        **{key: policy.card[key] for key in ("data", "training") if key in policy.card},
    }
