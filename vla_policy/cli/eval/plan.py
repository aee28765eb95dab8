"""vla-eval plan: bring the arm and the block to where a picture shows them, with a world model."""

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
    """Play every start and print how many goals were reached."""
    description = "Plan in latent space towards goal pictures out of recorded episodes, in simulation."
    parser = config_parser("vla-eval plan", description, "plan")
    parser.add_argument("WORLD_MODEL", help="folder or hub name of a world model")
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset of PushT")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.planning.report import planning_table
    from vla_policy.evaluation.planning.study import PlanEvalConfig, evaluate_planning

    config = typed_config(PlanEvalConfig, "plan", options.overrides)
    model = load_world_model(options.WORLD_MODEL, config.device, config.threads)
    dataset, out = LeRobotDataset(options.DATASET), Path(config.out)
    with work_bars(console) as tick:
        summary = evaluate_planning(model, dataset, config, out, options.WORLD_MODEL, tick)
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    console.print(planning_table(summary))
    console.print(f"plan.json and episodes.csv are in {out}", markup=False, highlight=False)
