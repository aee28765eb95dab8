"""Everything a killed run needs to go on, in one safetensors file that is replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_policy.interfaces import InputError
from vla_policy.models import TrainableModel
from vla_policy.models.checkpoint import read_header
from vla_policy.utils.files import write_whole


def save_state(
    path: Path,
    model: TrainableModel,
    average: TrainableModel,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: dict[str, Any],
) -> None:
    """Weights, averaged weights, moments of the optimisers, and `progress` as JSON."""
    tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in model.stored_state().items()}
    tensors |= {f"average/{name}": value for name, value in average.stored_state().items()}
    for which, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            start = f"optimizer/{which}/{index}"
            tensors |= {f"{start}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"progress": json.dumps(progress)}
    write_whole(path, lambda temporary: save_file(plain, temporary, metadata))


def load_state(
    path: Path, model: TrainableModel, average: TrainableModel, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """Put everything back in its place; returns `progress`."""
    names = read_header(path)
    moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata() or {}
    try:
        progress = dict(json.loads(metadata["progress"]))
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, which, index, moment = name.split("/")
                moments[int(which)].setdefault(int(index), {})[moment] = value
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a training state of this run, found another file ({error})") from None
    for kind, module in (("model", model), ("average", average)):
        own = {n.partition("/")[2]: v for n, v in tensors.items() if n.startswith(kind + "/")}
        module.load_stored(own, str(path))
    for optimizer, state in zip(optimizers, moments, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress
