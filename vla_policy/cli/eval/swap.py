"""vla-eval swap: the same starts under different instructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, save_config, stdout
from vla_policy.cli.help import checkpoint_arguments, config_parser
from vla_policy.cli.progress import rollout_bar
from vla_policy.interfaces import InputError, Policy
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Run the same starts under different instructions and report which goals are reached."""
    checkpoint, overrides = checkpoint_arguments(config_parser("vla-eval swap", main.__doc__, "swap"), arguments)

    from vla_policy.evaluation.language.swap import SwapConfig, swap_tables, swap_test
    from vla_policy.models.loading import load_policy
    from vla_policy.rollouts.baselines import baseline_factory

    config = typed_config(SwapConfig, "swap", overrides)
    if (checkpoint is None) == (config.baseline is None):
        raise InputError("vla-eval swap: expected either a CHECKPOINT or baseline=hold|expert (see --help)")
    baseline = None if config.baseline is None else baseline_factory(config.baseline, config.pusht)
    name = checkpoint or f"baseline {config.baseline}"
    policy: Policy = load_policy(name, config.device, config.threads) if baseline is None else baseline(0)
    out = Path(config.out)
    with rollout_bar(console, Path(name).name, config.n_starts * config.instructions, "commanded") as callbacks:
        summary = swap_test(policy, config, out, name, baseline, callbacks)
    save_config(config, out)
    for table in swap_tables(summary):
        console.print(table)
    print_line(f"summary.json and episodes.csv are in {out}")
