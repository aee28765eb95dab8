"""Checkpoints on a device, and what an evaluation says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy


def load_policy(checkpoint: str, device: str = "auto", threads: int | None = None) -> DiffusionPolicy:
    """The policy of a folder or hub repository on the device, with torch's number of threads set."""
    from vla_policy.models import DiffusionPolicy

    place = chosen_device(device, threads)
    return DiffusionPolicy.from_pretrained(checkpoint).to(place)


def chosen_device(device: str, threads: int | None) -> str:
    """cpu or cuda for auto, cpu or cuda, with torch's number of threads set; `InputError` for what is not there."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda, found {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: expected a GPU for cuda, found none")
    if threads is not None:
        torch.set_num_threads(threads)
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


def machine(policy: DiffusionPolicy) -> dict[str, object]:
    """What a latency depends on: the device, torch's threads, the transformer's passes a chunk."""
    import torch

    cuda = policy.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(policy.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "inference_steps": policy.head.calls,
    }


def described(policy: DiffusionPolicy) -> dict[str, Any]:
    """What an evaluation says of a checkpoint: its objective, its size, and its card on data and training."""
    objective = policy.config.objective
    return {
        "objective": {"name": objective.name, "sampler": objective.sampler, "passes": policy.head.calls},
        "n_action_steps": policy.n_action_steps,
        "parameters": sum(value.numel() for value in policy.parameters()),
        **{key: policy.card[key] for key in ("data", "training") if key in policy.card},
    }
