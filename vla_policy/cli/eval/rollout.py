"""vla-eval rollout: a policy's success in simulation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import checkpoint_arguments, config_parser
from vla_policy.cli.progress import rollout_bar
from vla_policy.interfaces import Failure
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Roll a checkpoint out in simulation and report its success rate with an exact interval."""
    checkpoint, overrides = checkpoint_arguments(config_parser("vla-eval rollout", main.__doc__, "eval"), arguments)

    from vla_policy.evaluation.success.checkpoint import summaries
    from vla_policy.evaluation.success.evaluate import EvalConfig
    from vla_policy.evaluation.success.report import summary_table
    from vla_policy.rollouts.workers import RolloutError

    config = typed_config(EvalConfig, "eval", overrides)
    try:
        found = summaries(checkpoint, config, partial(rollout_bar, console, then=", timing and filming"))
    except RolloutError as error:
        raise Failure(f"{error}\nfinished episodes are in {config.out}") from None
    title = f"{config.n_episodes} episodes in {config.env}, seeds {config.seeds[0]} to {config.seeds[-1]}"
    console.print(summary_table(found, title))
    print_line(f"summary.json, episodes.csv and pictures are in {config.out}")
