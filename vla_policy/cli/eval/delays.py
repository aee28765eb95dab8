"""vla-eval delays: what inference time costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, parse_command
from vla_policy.cli.progress import rollout_bar
from vla_policy.interfaces import Failure

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Roll a checkpoint out under delays of inference, for each way to bridge them, and print the tables."""
    (checkpoint,), config = parse_command("vla-eval delays", main.__doc__, "delays", arguments, CHECKPOINT=CHECKPOINT)

    from vla_policy.evaluation.success.delays import delay_study, delay_tables
    from vla_policy.rollouts.workers import RolloutError

    try:
        found = delay_study(checkpoint, config, partial(rollout_bar, console))
    except RolloutError as error:
        raise Failure(f"{error}\nfinished evaluations are in {config.out}") from None
    for table in delay_tables(found):
        console.print(table)
    print_line(f"delays.json and a folder for each evaluation are in {config.out}")
