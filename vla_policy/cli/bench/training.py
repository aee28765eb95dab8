"""vla-bench training: samples per second, and the share of a step spent waiting for data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import KEYS, config_parser, parse_arguments
from vla_policy.utils.configuration import load_config, options

if TYPE_CHECKING:
    from vla_policy.training import Trainer

console = stdout()

DEFAULTS = {"steps": 50, "warmup": 5, "out": "outputs/bench/training.json"}
OPTIONS = f"""{KEYS}

  steps: {DEFAULTS["steps"]}   # timed, from each source of images
  warmup: {DEFAULTS["warmup"]}   # steps before them
  out: {DEFAULTS["out"]}
  # and the keys of vla-train, for instance: vla-bench training DATASET policy=masked trainer.batch_size=64
"""
SOURCES = {"videos": False, "frame cache": True}  # of images, and their data.cache


def main(arguments: Sequence[str]) -> None:
    """Time some training steps with each source of images."""
    description = "Training samples per second, and the share of a step spent waiting for data."
    parser = config_parser("vla-bench training", description, more=OPTIONS)
    (dataset,), overrides = parse_arguments(parser, arguments, DATASET="folder of a LeRobotDataset")
    own = [word for word in overrides if word.partition("=")[0] in DEFAULTS]
    of_training = [word for word in overrides if word not in own]
    chosen = options(own, DEFAULTS)

    from vla_policy.benchmarks.training_speed import training_speed
    from vla_policy.jobs.trainer import make_trainer
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    out = Path(chosen["out"])
    config = load_config("train", of_training)
    config.data.root = dataset
    found: dict[str, Any] = {"dataset": dataset, "overrides": of_training, "git_commit": git_commit()}
    speeds = {}
    for name, cache in SOURCES.items():
        config.data.cache = cache
        trainer = make_trainer(config, out.parent)
        found |= _about(trainer)
        with console.status(name):
            speeds[name] = training_speed(trainer, chosen["warmup"], chosen["steps"]) | {"cache": cache}
    write_json(out, found | {"speed": list(speeds.values())})
    console.print(_table(found, speeds))
    print_line(f"written to {out}")


def _about(trainer: Trainer) -> dict[str, Any]:
    """The hardware and the settings that the speed depends on."""
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
    for column in ("images", "samples / s", "step, p50 / p95 ms", "waiting for data"):
        table.add_column(column, justify="left" if column == "images" else "right")
    for name, speed in speeds.items():
        step = speed["step_ms"]
        table.add_row(
            name,
            f"{speed['samples_per_s']:.1f}",
            f"{step['p50']:.1f} / {step['p95']:.1f}",
            f"{100 * speed['wait_share']:.1f} %",
        )
    return table
