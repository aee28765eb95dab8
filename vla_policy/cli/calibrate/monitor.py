"""vla-calibrate monitor: the threshold of the surprise monitor, from nominal episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import parse_command
from vla_policy.cli.progress import rollout_bar
from vla_policy.evaluation.formats import percent

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Calibrate the threshold of surprise above which a policy's arm holds, on nominal episodes."""
    (policy_folder, world_model), config = parse_command(
        "vla-calibrate monitor",
        main.__doc__,
        "calibrate",
        arguments,
        POLICY="folder of the policy",
        WORLD_MODEL="folder of the world model",
    )

    from vla_policy.evaluation.surprise.calibration import (
        calibrate_monitor,
        nominal_traces,
        recorded_traces,
        study_traces,
    )
    from vla_policy.models.loading import load_policy
    from vla_policy.world_model import WorldModel, binding

    policy = load_policy(policy_folder, config.device, config.threads)
    bound_to = binding(Path(policy_folder), Path(world_model), policy.interface)
    if config.dataset is not None:
        traces = recorded_traces(WorldModel.from_pretrained(world_model), config.dataset)
    elif config.study is not None:
        traces = study_traces(config.study, bound_to)
    else:
        with rollout_bar(console, "nominal episodes", config.n_episodes) as callbacks:
            traces = nominal_traces(policy, world_model, config, callbacks)
    found = calibrate_monitor(traces, bound_to, world_model, config)
    console.print(_table(found))
    print_line(f"calibration.json is in {config.out}")


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(title="false alarms of successful undisturbed episodes", title_justify="left", show_header=False)
    table.add_row("episodes run, successful", f"{found['played']}, {found['successful']}")
    table.add_row("episodes behind the threshold", str(found["threshold_episodes"]))
    table.add_row("guaranteed on average, at most", percent(found["guaranteed_rate"]))
    table.add_row("expected", percent(found["expected_rate"]))
    table.add_row("of this calibration, with 90 %, below", percent(found["rate_below_with_90_percent"]))
    table.add_row("threshold (standardised)", f"{found['threshold']:.2f}")
    return table
