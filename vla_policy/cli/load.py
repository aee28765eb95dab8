"""What `vla-eval` and `vla-bench` share: typed configuration, the policy of a checkpoint on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from omegaconf import OmegaConf

from vla_policy.cli.common import load_config
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy

T = TypeVar("T")


def typed_config(kind: Callable[..., T], name: str, overrides: Sequence[str]) -> T:
    """conf/<name>.yaml with overrides as the dataclass `kind`; unknown keys and values of a wrong type are errors."""
    return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), load_config(name, overrides))))


def load_policy(checkpoint: str, device: str = "auto", threads: int | None = None) -> DiffusionPolicy:
    """The policy of a folder or hub repository on the device, with torch's number of threads set."""
    import torch

    from vla_policy.models import DiffusionPolicy

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda, found {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: expected a GPU for cuda, found none")
    if threads is not None:
        torch.set_num_threads(threads)
    policy = DiffusionPolicy.from_pretrained(checkpoint)
    return policy.to("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def machine(policy: DiffusionPolicy) -> dict[str, object]:
    """What a latency depends on: the device, torch's threads, the denoising steps."""
    import torch

    cuda = policy.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(policy.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "inference_steps": policy.config.objective.inference_steps,
    }
