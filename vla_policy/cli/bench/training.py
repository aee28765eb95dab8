"""vla-bench training: samples a second, and the part of a step that waits for data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vla_policy.cli.common import stdout
from vla_policy.cli.help import KEYS, config_parser
from vla_policy.utils.configuration import load_config, options

if TYPE_CHECKING:
    from vla_policy.training import Trainer

console = stdout()

DEFAULTS = {"steps": 50, "warmup": 5, "out": "outputs/bench/training.json"}
OPTIONS = f"""{KEYS}

  steps: {DEFAULTS["steps"]}   # timed, from each source of pictures
  warmup: {DEFAULTS["warmup"]}   # steps before them
  out: {DEFAULTS["out"]}
  # and the keys of vla-train, for instance: vla-bench training DATASET policy=masked trainer.batch_size=64
"""
SOURCES = {"videos": False, "frame cache": True}  # of pictures, and their data.cache


def main(arguments: Sequence[str]) -> None:
    """Train some steps from either source of pictures, and tell how long they took."""
    description = (
        "Samples a second in training, and the part of a step spent waiting for data, with and without the frame cache."
    )
    parser = config_parser("vla-bench training", description, more=OPTIONS)
    parser.add_argument("DATASET", help="folder of a LeRobotDataset")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)
    own = [word for word in parsed.overrides if word.partition("=")[0] in DEFAULTS]
    of_training = [word for word in parsed.overrides if word not in own]
    chosen = options(own, DEFAULTS)

    from vla_policy.benchmarks.training_speed import training_speed
    from vla_policy.jobs.trainer import make_trainer
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    out = Path(chosen["out"])
    config = load_config("train", of_training)
    config.data.root = parsed.DATASET
    found: dict[str, Any] = {"dataset": parsed.DATASET, "overrides": of_training, "git_commit": git_commit()}
    speeds = {}
    for name, cache in SOURCES.items():
        config.data.cache = cache
        trainer = make_trainer(config, out.parent)
        found |= _about(trainer)
        with console.status(name):
            speeds[name] = training_speed(trainer, chosen["warmup"], chosen["steps"]) | {"cache": cache}
    write_json(out, found | {"speed": list(speeds.values())})
    console.print(_table(found, speeds))
    console.print(f"written to {out}", markup=False, highlight=False)


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
