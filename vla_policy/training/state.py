"""Everything a killed run needs to go on, in one safetensors file that is replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_policy.data.files import write_whole
from vla_policy.interfaces import InputError
from vla_policy.models import TrainableModel


def save_state(
    path: Path,
    model: TrainableModel,
    average: TrainableModel,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Weights, averaged weights, optimiser moments, and `progress` as JSON."""
    tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in model.stored_state().items()}
    tensors |= {f"average/{name}": value for name, value in average.stored_state().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"progress": json.dumps(progress)}
    write_whole(path, lambda temporary: save_file(plain, temporary, metadata))


def load_state(
    path: Path, model: TrainableModel, average: TrainableModel, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put everything back in its place; returns `progress`."""
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a training state ({error})") from None
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, moment = rest.partition("/")
            moments.setdefault(int(index), {})[moment] = value
    for kind, module in (("model", model), ("average", average)):
        own = {n.partition("/")[2]: v for n, v in tensors.items() if n.startswith(kind + "/")}
        module.load_stored(own, str(path))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return progress
