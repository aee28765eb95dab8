"""vla-bench training: samples a second, and the part of a step that waits for data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vla_policy.cli.common import load_config, stdout
from vla_policy.cli.help import config_parser

if TYPE_CHECKING:
    from vla_policy.training import Trainer

console = stdout()

EXAMPLES = """key=value are those of vla-train, whose --help explains them:
  vla-bench training DATASET scene=pusht trainer.batch_size=64
  vla-bench training DATASET policy=masked data.num_workers=4 --steps 200
"""
SOURCES = {"videos": False, "frame cache": True}  # of pictures, and their data.cache


def training(arguments: Sequence[str]) -> None:
    """Train some steps from either source of pictures, and tell how long they took."""
    description = (
        "Samples a second in training, and the part of a step spent waiting for data, with and without the frame cache."
    )
    parser = config_parser("vla-bench training", description, more=EXAMPLES)
    parser.add_argument("DATASET", help="folder of a LeRobotDataset")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=50, help="timed, from each source of pictures (default 50)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them (default 5)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/training.json"), help="file of the numbers")
    options = parser.parse_intermixed_args(arguments)

    from vla_policy.benchmarks.training_speed import training_speed
    from vla_policy.evaluation.formats import write_json
    from vla_policy.jobs.trainer import make_trainer
    from vla_policy.utils.provenance import git_commit

    config = load_config("train", options.overrides)
    config.data.root = options.DATASET
    found: dict[str, Any] = {"dataset": options.DATASET, "overrides": options.overrides, "git_commit": git_commit()}
    speeds = {}
    for name, cache in SOURCES.items():
        config.data.cache = cache
        trainer = make_trainer(config, options.out.parent)
        found |= _about(trainer)
        with console.status(name):
            speeds[name] = training_speed(trainer, options.warmup, options.steps) | {"cache": cache}
    write_json(options.out, found | {"speed": list(speeds.values())})
    console.print(_table(found, speeds))
    console.print(f"written to {options.out}", markup=False, highlight=False)


def _about(trainer: Trainer) -> dict[str, Any]:
    """What the speed depends on."""
    import torch

    from vla_policy.models import DiffusionPolicy

    device, model = trainer.accelerator.device, trainer.model
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": trainer.accelerator.mixed_precision,
        "batch_size": trainer.config.batch_size,
        "num_workers": trainer.num_workers,
        "windows": len(trainer.windows),
        "cameras": model.interface.cameras,
        "objective": model.config.objective.name if isinstance(model, DiffusionPolicy) else "world model",
        "parameters": sum(value.numel() for value in model.parameters()),
    }


def _table(found: Mapping[str, Any], speeds: Mapping[str, Mapping[str, Any]]) -> Table:
    steps = next(iter(speeds.values()))["steps"]
    title = (
        f"Training, {found['objective']}, {found['parameters'] / 1e6:.2f} M parameters, batch {found['batch_size']}, "
        f"on {found['device']}, {found['threads']} threads, n = {steps} steps"
    )
    table = Table(title=title, title_justify="left")
    for column in ("pictures", "samples a second", "step, p50 / p95 ms", "waiting for data"):
        table.add_column(column, justify="left" if column == "pictures" else "right")
    for name, speed in speeds.items():
        step = speed["step_ms"]
        table.add_row(
            name,
            f"{speed['samples_per_s']:.1f}",
            f"{step['p50']:.1f} / {step['p95']:.1f}",
            f"{100 * speed['wait_share']:.1f} %",
        )
    return table
