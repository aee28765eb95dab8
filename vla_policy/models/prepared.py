"""A policy compiled for one arm.

With one observation at a time the passes of a small action transformer are hundreds of short operations, and what torch
does around them takes longer than they do. Compiled for one batch size, a pass is a few fused loops and products with
weights that are packed for them.
"""

from __future__ import annotations

import logging
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.interfaces import Given, InputError
from vla_policy.models.heads import AutoregressiveHead, DenoisingHead
from vla_policy.models.seeing import BACKBONE_HIDDEN, BACKBONE_REAL
from vla_policy.models.transformer import Prefix

if TYPE_CHECKING:
    from vla_policy.models.chunks import Origin
    from vla_policy.models.policy import DiffusionPolicy
    from vla_policy.models.vlm.backbone import Backbone

log = logging.getLogger(__name__)


class Static:
    """A function that is compiled for the calls until it is `settled`, its weights constants of the code.

    From then on nothing is compiled: calls of other shapes, or with gradients, run as they did.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        def call(*arguments: Any) -> Any:
            return function(*arguments)

        # What is compiled is kept with the code it is made of. A copy has this function's alone, so that it need not be
        # checked in each call that all modules and weights are those it was compiled with, which takes half as long as
        # a pass.
        call.__code__ = call.__code__.replace()
        options: dict[str, Any] = {
            "freezing": True,
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
        }
        self._compiled = torch.compile(call, fullgraph=True, dynamic=False, options=options)
        self.settled = False

    def __call__(self, *arguments: Any) -> Any:
        with torch.compiler.set_stance("eager_on_recompile" if self.settled else "default"):
            return self._compiled(*arguments)


def prepare(policy: DiffusionPolicy, batch: int = 1) -> None:
    """Compile what a policy on a CPU does for `batch` observations; it then gives the same chunks up to rounding.

    This takes a minute, the next time on this computer seconds. Afterwards weights and torch's number of threads must
    stay as they are. Other batches, several draws an observation, the guided passes of `chunking=rtc` and backbones
    run as ever. `InputError` without a C++ compiler, on a GPU, and for action tokens one after the other, of which each
    has another shape.
    """
    if isinstance(policy.head, AutoregressiveHead):
        raise InputError("compile: expected a policy of flow, ddpm or masked, found autoregressive")
    if policy.device.type != "cpu":
        raise InputError(f"compile: expected a policy on a CPU, found one on {policy.device.type}")
    require_compiler()
    begin = time.perf_counter()
    _ask(policy.eval(), batch)  # what is made once, such as a normaliser's tensors, is there when a graph is traced
    parts = [part for member in policy.members for part in _made_static(member)]
    _ask(policy, batch)
    for part in parts:
        part.settled = True
    log.info("compiled in %.1f s", time.perf_counter() - begin)


def require_compiler() -> None:
    """`InputError` where there is no C++ compiler, or no Python to compile for, which `torch.compile` needs."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise InputError("compile: expected a C++ compiler (apt install g++, or its path in CXX), found none") from None
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise InputError(f"compile: expected Python's headers (apt install python3-dev), found no {header}")


def _made_static(policy: DiffusionPolicy) -> list[Static]:
    """Replace what runs for each chunk and in each pass; of a masked policy's passes, their modulations are a part."""
    encode = Static(policy._encoded)

    def encoded(batch: Mapping[str, Any]) -> tuple[Prefix, Origin]:
        found: tuple[Prefix, Origin] = encode(_tensors(policy, batch))
        return found

    policy._encoded = encoded  # type: ignore[method-assign]
    denoising: list[tuple[nn.Module, str]] = [(policy.head, "denoise"), (policy.transformer, "modulations")]
    parts = [encode]
    for module, name in denoising if isinstance(policy.head, DenoisingHead) else [(policy.head, "predict")]:
        parts.append(Static(getattr(module, name)))
        setattr(module, name, parts[-1])
    return parts


def _tensors(policy: DiffusionPolicy, observed: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of raw observations by key; of instructions, what the backbone makes of them, whose length is filled
    up to that of the longest one, with what is masked.
    """
    tensors = {key: observed[key] for key in policy.interface.observations}
    if policy.backbone is not None:
        hidden, real, _ = policy.read(observed)
        missing = max(_longest(policy.backbone, len(policy.interface.cameras)) - hidden.shape[1], 0)
        tensors[BACKBONE_HIDDEN] = F.pad(hidden, (0, 0, 0, missing))
        tensors[BACKBONE_REAL] = F.pad(real, (0, missing))
    return tensors


def _longest(backbone: Backbone, cameras: int) -> int:
    """The number of tokens of an observation with the longest instruction."""
    return backbone.length("", cameras) + (backbone.config.max_text_tokens if backbone.config.use_instruction else 0)


def _ask(policy: DiffusionPolicy, batch: int) -> None:
    """For chunks from nothing and, if rows can be given without gradients, for such that continue those."""
    observed: dict[str, Any] = {"task": ["push"] * batch}
    for key, feature in policy.interface.observations.items():
        dtype = torch.uint8 if feature.dtype == "image" else torch.float32
        observed[key] = torch.zeros(batch, policy.n_obs_steps, *feature.shape, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    policy.sample(observed, generator)
    guided = isinstance(policy.head, DenoisingHead) and not policy.config.prefix_steps
    if not guided and policy.config.action_basis == "time":
        rows = np.zeros((policy.n_action_steps, *policy.interface.action.shape))
        policy.sample(observed, generator, [Given(rows, 1)] * batch)
