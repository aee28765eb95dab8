"""The training loop, for any number of devices."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor

from vla_policy.conf.training_config import TrainerConfig
from vla_policy.interfaces import Failure
from vla_policy.models import TrainableModel
from vla_policy.training.batches import StepSampler, loader
from vla_policy.training.ema import averaged_model
from vla_policy.training.frozen import FrozenWindows, TrainingWindows
from vla_policy.training.logs import Display, MetricsLog
from vla_policy.training.optimizers import make_optimizers
from vla_policy.training.state import load_state, save_state
from vla_policy.training.validation import validate_policy

log = logging.getLogger(__name__)

Rollouts = Callable[[Any], Mapping[str, float]]  # of a policy; has at least success_rate and mean_max_reward
Validate = Callable[[Any, TrainingWindows, int], Mapping[str, float]]  # of a model, on so many of the held-out windows
Annotate = Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]]  # more entries for a batch

STATE_FILE = "state.safetensors"
SELECTION = "highest success rate in rollouts during training, then highest mean max reward"


class TrainingDiverged(Failure):
    """A step had a gradient that is not finite; the run can be continued from its last saved state."""


class Trainer:
    """Trains `model` on `windows` in `run_dir`, which gets checkpoints/last (and best), state.safetensors and metrics.

    Everything random in a step follows from `seed` and the step, so that a run resumed from its last saved state takes
    the same steps as one that was never interrupted. `validate` measures the averaged model on `val_windows`,
    `rollouts` plays it every `config.rollout_every` steps. `annotate` adds to every batch what the dataset does not
    hold.
    """

    def __init__(
        self,
        model: TrainableModel,
        windows: TrainingWindows,
        run_dir: Path,
        config: TrainerConfig,
        seed: int = 0,
        val_windows: TrainingWindows | None = None,
        rollouts: Rollouts | None = None,
        num_workers: int = 0,
        settings: Mapping[str, Any] | None = None,
        annotate: Annotate | None = None,
        validate: Validate = validate_policy,
    ) -> None:
        self.annotate, self.validate = annotate, validate
        self.windows, self.val_windows, self.rollouts = windows, val_windows, rollouts
        self.run_dir, self.config, self.seed, self.num_workers = run_dir, config, seed, num_workers
        self.settings = dict(settings or {})
        AcceleratorState._reset_state()  # a second run in this process may choose another precision
        self.accelerator = Accelerator(mixed_precision=mixed_precision(config.precision))
        self.model = model.to(self.accelerator.device).train()
        self._averaged = averaged_model(self.model, config.ema_power, config.ema_max_decay)
        self.average = cast(TrainableModel, self._averaged.module)
        if config.compile:
            inner = windows.windows if isinstance(windows, FrozenWindows) else windows
            play = getattr(inner, "imitated", None) is not None  # how many actions a batch has then varies
            for part in self.model.compiled_parts():
                part.compile(dynamic=None if play else False)
        self.optimizers = make_optimizers(self.model, config)
        schedule = get_cosine_schedule_with_warmup(self.optimizers[0], config.warmup_steps, config.steps)
        self._schedule = schedule.lr_lambdas[0]
        self.wrapped, *self.prepared = self.accelerator.prepare(self.model, *self.optimizers)
        self.progress: dict[str, Any] = {"step": 0, "best": None, "core_seconds": 0.0}
        self._began = process_time()

    def fit(self, resume: bool = False) -> None:
        """Train until `config.steps`; with `resume` from the last saved state, if there is one."""
        state = self.run_dir / STATE_FILE
        if resume and state.is_file():
            self.progress |= load_state(state, self.model, self.average, self.optimizers)
        start, steps = self.progress["step"], self.config.steps
        self._averaged.n_averaged.fill_(start + 1)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sampler = StepSampler(
            len(self.windows), self.config.batch_size, self.seed, start, steps, rank, world, self.windows.probabilities
        )
        main = self.accelerator.is_main_process
        self.metrics = MetricsLog(self.run_dir, start, self.config.wandb, self.settings) if main else None
        display = Display(start, steps, self.config.batch_size * world, self.config.print_every_s) if main else None
        recent: dict[str, list[Tensor]] = {}
        try:
            for step, batch in enumerate(loader(self.windows, sampler, self.num_workers), start + 1):
                for name, value in self.train_step(step, batch).items():
                    recent.setdefault(name, []).append(value)
                loss = None
                if step % self.config.log_every == 0 or step == steps:
                    means = {f"train/{name}": float(torch.stack(values).mean()) for name, values in recent.items()}
                    recent, loss = {}, means["train/loss"]
                    self.write(step, means | {"train/lr": self.learning_rate(step)})
                if display:
                    display.update(step, loss)
                self.after_step(step)
        finally:
            if display:
                display.close()
            if self.metrics:
                self.metrics.close()

    def train_step(self, step: int, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """One optimiser step, from 1 on; `TrainingDiverged`, and nothing changed, if the gradient is not finite."""
        rank = self.accelerator.process_index
        seed = int(np.random.SeedSequence([self.seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        torch.manual_seed(seed)  # dropout draws from the global generator
        generator = torch.Generator(self.accelerator.device).manual_seed(seed)
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = self.learning_rate(step)
        if self.annotate is not None:
            batch = {**batch, **self.annotate(batch, np.random.default_rng(seed))}
        loss, parts = self.wrapped(batch, generator)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        if not bool(torch.isfinite(norm)):
            raise TrainingDiverged(self._not_finite(step, batch, float(loss.detach())))
        for optimizer in self.prepared:
            optimizer.step()
            optimizer.zero_grad()
        self._averaged.update_parameters(self.model)
        return {"loss": loss.detach(), "grad_norm": norm, **parts}

    def after_step(self, step: int) -> None:
        """Measure and keep what is due after this step."""
        last = step == self.config.steps
        if not self.accelerator.is_main_process:
            return
        if self.val_windows is not None and (last or _due(step, self.config.validate_every)):
            values = self.validate(self.average, self.val_windows, self.config.val_windows)
            self.write(step, values)
            shown = {name: value for name, value in values.items() if "_row_" not in name}
            log.info("step %d  %s", step, "  ".join(f"{name} {value:.5g}" for name, value in shown.items()))
        if self.rollouts is not None and self.config.rollout_every and (last or _due(step, self.config.rollout_every)):
            self._roll_out(step)
        if last or _due(step, self.config.save_every):
            self._save("last", step)
            self.progress |= {"step": step, "core_seconds": self.core_seconds}
            self._began = process_time()
            save_state(self.run_dir / STATE_FILE, self.model, self.average, self.optimizers, self.progress)

    @property
    def core_seconds(self) -> float:
        """Processor time of the whole run so far, of all threads and over all resumptions."""
        return float(self.progress["core_seconds"]) + process_time() - self._began

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine to 0; steps count from 1."""
        return self.config.lr * self._schedule(step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.write(step, metrics)

    def _roll_out(self, step: int) -> None:
        assert self.rollouts is not None
        values = dict(self.rollouts(self.average))
        self.write(step, {f"rollout/{name}": value for name, value in values.items()})
        log.info("step %d  rollouts: %s", step, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        score = [values["success_rate"], values["mean_max_reward"]]
        if self.progress["best"] is None or score > self.progress["best"]:
            self.progress["best"] = score
            self._save("best", step, {f"rollout_{name}": round(value, 4) for name, value in values.items()})

    def _save(self, name: str, step: int, measured: Mapping[str, Any] | None = None) -> None:
        minutes = round(self.core_seconds / 60, 2)
        training = {**self.average.card.get("training", {}), "step": step, "core_minutes": minutes, **(measured or {})}
        if self.rollouts is not None:
            training["checkpoint"] = f"{name}; best means: {SELECTION}"
        card = {**self.average.card, "training": training}
        kept, self.average.card = self.average.card, card
        self.average.save_pretrained(self.run_dir / "checkpoints" / name)
        self.average.card = kept

    def _not_finite(self, step: int, batch: Mapping[str, Any], loss: float) -> str:
        bad = [key for key, value in batch.items() if isinstance(value, Tensor) and not value.float().isfinite().all()]
        cause = f"the data of {bad} is not finite" if bad else "lower trainer.lr or trainer.grad_clip"
        kept = (
            f"the state of step {self.progress['step']} is kept" if self.progress["step"] else "no state was saved yet"
        )
        return f"training stopped at step {step}: loss {loss:g}, gradient not finite; {cause}; {kept}"


def mixed_precision(precision: str) -> str:
    """Accelerate's name for `trainer.precision`; "auto" is bfloat16 where the hardware multiplies it."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
        return "bf16" if fast else "no"
    return "bf16" if precision == "bf16" else "no"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
