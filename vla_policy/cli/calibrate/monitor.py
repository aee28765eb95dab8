"""vla-calibrate monitor: the threshold of the surprise monitor, from nominal episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.cli.progress import rollout_bar
from vla_policy.evaluation.formats import percent
from vla_policy.utils.configuration import typed_config

if TYPE_CHECKING:
    from vla_policy.evaluation.surprise.calibration import CalibrateConfig
    from vla_policy.evaluation.surprise.traces import Trace
    from vla_policy.models import DiffusionPolicy

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Play or read nominal episodes, calibrate, print what the threshold promises."""
    description = "Find the surprise above which the arm is to hold, from episodes in which nothing was wrong."
    parser = config_parser("vla-calibrate monitor", description, "calibrate")
    parser.add_argument("POLICY", help="folder of the policy that is to be watched")
    parser.add_argument("WORLD_MODEL", help="folder of a world model")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)

    from vla_policy.evaluation.surprise.calibration import (
        CalibrateConfig,
        calibrate_monitor,
        recorded_traces,
        study_traces,
    )
    from vla_policy.models.loading import load_policy
    from vla_policy.world_model import WorldModel, binding

    config = typed_config(CalibrateConfig, "calibrate", parsed.overrides)
    policy = load_policy(parsed.POLICY, config.device, config.threads)
    bound_to = binding(Path(parsed.POLICY), Path(parsed.WORLD_MODEL), policy.interface)
    if config.dataset is not None:
        traces = recorded_traces(WorldModel.from_pretrained(parsed.WORLD_MODEL), config.dataset)
    elif config.study is not None:
        traces = study_traces(config.study, bound_to)
    else:
        traces = _played(policy, parsed.WORLD_MODEL, config)
    found = calibrate_monitor(traces, bound_to, parsed.WORLD_MODEL, config)
    console.print(_table(found))
    console.print(f"calibration.json is in {config.out}", markup=False, highlight=False)


def _played(policy: DiffusionPolicy, world_model: str, config: CalibrateConfig) -> list[Trace]:
    from vla_policy.evaluation.surprise.calibration import nominal_traces
    from vla_policy.rollouts.workers import RolloutError

    try:
        with rollout_bar(console, "nominal episodes", config.n_episodes) as hear:
            return nominal_traces(policy, world_model, config, hear)
    except RolloutError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        raise SystemExit(1) from None


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(title="false alarms of successful undisturbed episodes", title_justify="left", show_header=False)
    table.add_row("episodes played, successful", f"{found['played']}, {found['successful']}")
    table.add_row("episodes behind the threshold", str(found["threshold_episodes"]))
    table.add_row("guaranteed on average, at most", percent(found["guaranteed_rate"]))
    table.add_row("expected", percent(found["expected_rate"]))
    table.add_row("of this calibration, with 90 %, below", percent(found["rate_below_with_90_percent"]))
    table.add_row("threshold (standardised)", f"{found['threshold']:.2f}")
    return table
