"""Where a run writes what it measures: metrics.csv, TensorBoard, wandb; and what people see while they wait."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from vla_policy.utils.progress import progress_bar

log = logging.getLogger(__name__)


class MetricsLog:
    """metrics.csv (step, metric, value), TensorBoard events, and wandb if it is installed and a project is named
    (offline unless WANDB_API_KEY or WANDB_MODE says otherwise).
    """

    def __init__(self, run_dir: Path, start: int, wandb_project: str | None, config: Mapping[str, Any]) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / "metrics.csv"
        rows = _rows_until(self.path, start)
        self.file = open(self.path, "w", newline="", buffering=1)  # noqa: SIM115, closed with the log
        self.csv = csv.writer(self.file)
        self.csv.writerows([["step", "metric", "value"], *rows])
        self.tensorboard = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)
        self.wandb = _wandb_run(wandb_project, run_dir, config)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.csv.writerow([step, name, repr(float(value))])
            self.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=step)

    def close(self) -> None:
        self.file.close()
        self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


class Display:
    """A progress bar on a terminal; elsewhere a plain line every `every_s` seconds."""

    def __init__(self, start: int, steps: int, batch_size: int, every_s: float) -> None:
        self.start, self.steps, self.batch_size, self.every_s = start, steps, batch_size, every_s
        self.began = self.printed = time.monotonic()
        console = Console()
        self.bar = progress_bar(console) if console.is_terminal else None
        self.task = self.bar.add_task("train", total=steps, completed=start, state="") if self.bar else None
        if self.bar:
            self.bar.start()

    def update(self, step: int, loss: float | None = None) -> None:
        """`step` steps are done; `loss` is the recent mean where it is known."""
        now = time.monotonic()
        if self.bar is not None and self.task is not None:
            state = {} if loss is None else {"state": f"loss {loss:.4f}, {self.rate(step, now):.0f} samples/s"}
            self.bar.update(self.task, completed=step, **state)  # type: ignore[arg-type]
        elif loss is not None and (now - self.printed >= self.every_s or step == self.steps):
            self.printed = now
            rate = self.rate(step, now)
            minutes = (self.steps - step) * self.batch_size / max(rate, 1e-9) / 60
            log.info("step %d/%d  loss %.4f  %.0f samples/s  %.1f min left", step, self.steps, loss, rate, minutes)

    def rate(self, step: int, now: float) -> float:
        """Samples a second since the start of this process."""
        return (step - self.start) * self.batch_size / max(now - self.began, 1e-9)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _rows_until(path: Path, step: int) -> list[list[str]]:
    """Rows of an earlier part of this run; what it wrote after its last saved state is measured again."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]
    return [row for row in rows if int(row[0]) <= step]


def _wandb_run(project: str | None, run_dir: Path, config: Mapping[str, Any]) -> Any:
    if project is None or importlib.util.find_spec("wandb") is None:
        return None
    import wandb

    mode = None if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") else "offline"
    return wandb.init(
        project=project, dir=str(run_dir), config=dict(config), mode=mode, id=run_dir.name, resume="allow"
    )
