"""vla-eval world-model: what a world model knows of held-out episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.cli.load import load_world_model
from vla_policy.cli.progress import work_bars
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    description = "Imagine held-out episodes and compare with what was seen; read true states from latents."
    parser = config_parser("vla-eval world-model", description, "world_model_eval")
    parser.add_argument("CHECKPOINT", help="folder or hub name of a world model")
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.imagination.report import world_model_tables
    from vla_policy.evaluation.imagination.study import WorldModelEvalConfig, evaluate_world_model

    config = typed_config(WorldModelEvalConfig, "world_model_eval", options.overrides)
    model = load_world_model(options.CHECKPOINT, config.device, config.threads)
    dataset, out = LeRobotDataset(options.DATASET), Path(config.out)
    with work_bars(console) as tick:
        summary = evaluate_world_model(model, dataset, config, out, options.CHECKPOINT, tick)
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    for table in world_model_tables(summary):
        console.print(table)
    if summary["probes"] is None:
        console.print("no probes: the dataset has no observation.environment_state (x, y, cos, sin) to read")
    console.print(f"world_model.json and pictures are in {out}", markup=False, highlight=False)
