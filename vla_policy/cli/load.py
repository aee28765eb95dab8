"""What `vla-eval` and `vla-bench` share: typed configuration, the model of a checkpoint on a device and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import OmegaConf

from vla_policy.cli.common import load_config
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.world_model import WorldModel

T = TypeVar("T")


def typed_config(kind: Callable[..., T], name: str, overrides: Sequence[str]) -> T:
    """conf/<name>.yaml with overrides as the dataclass `kind`; unknown keys and values of a wrong type are errors."""
    return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), load_config(name, overrides))))


def load_policy(checkpoint: str, device: str = "auto", threads: int | None = None) -> DiffusionPolicy:
    """The policy of a folder or hub repository on the device, with torch's number of threads set."""
    from vla_policy.models import DiffusionPolicy

    place = chosen_device(device, threads)
    return DiffusionPolicy.from_pretrained(checkpoint).to(place)


def load_world_model(checkpoint: str, device: str = "auto", threads: int | None = None) -> WorldModel:
    """The same of a world model."""
    from vla_policy.world_model import WorldModel

    place = chosen_device(device, threads)
    return WorldModel.from_pretrained(checkpoint).to(place)


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
