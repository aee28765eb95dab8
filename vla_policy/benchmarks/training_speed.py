"""Training throughput, and the fraction of each step spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from vla_policy.interfaces import InputError
from vla_policy.training import Trainer
from vla_policy.training.batches import StepSampler, loader
from vla_policy.utils.percentiles import percentiles


def training_speed(trainer: Trainer, warmup: int, steps: int) -> dict[str, Any]:
    """Run `steps` steps after `warmup` steps, with the trainer's own loader; nothing is saved.

    `samples_per_s` counts observations; `step_ms` and its part `wait_ms`, from asking for a batch until it is there,
    are `percentiles`; `wait_share` is its fraction of the whole time.
    """
    if warmup < 0 or steps < 1:
        raise InputError(f"warmup, steps: expected at least 0 and 1, found {warmup} and {steps}")
    times = np.array(list(islice(_times(trainer, warmup + steps), warmup, None)))
    waited, whole = times.T
    return {
        "samples_per_s": trainer.config.batch_size * steps / float(whole.sum()),
        "step_ms": percentiles(1e3 * whole),
        "wait_ms": percentiles(1e3 * waited),
        "wait_share": float(waited.sum() / whole.sum()),
        "steps": steps,
        "warmup": warmup,
    }


def _times(trainer: Trainer, steps: int) -> Iterator[tuple[float, float]]:
    """Seconds of waiting for data and of the whole step, for one step after the other."""
    windows, batch_size = trainer.windows, trainer.config.batch_size
    sampler = StepSampler(len(windows), batch_size, trainer.seed, 0, steps, probabilities=windows.probabilities)
    batches = iter(loader(windows, sampler, trainer.num_workers))
    for step in range(1, steps + 1):
        begin = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        trainer.train_step(step, batch)
        if trainer.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        yield arrived - begin, time.perf_counter() - begin
