"""vla-eval refusals: which sentences a policy refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, save_config, stdout
from vla_policy.cli.help import CHECKPOINT, parse_command

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Count the held-out paraphrases and the unrelated sentences that a calibrated policy refuses."""
    (checkpoint,), config = parse_command(
        "vla-eval refusals", main.__doc__, "refusals", arguments, CHECKPOINT=CHECKPOINT
    )

    from vla_policy.evaluation.language.refusals import (
        refusal_tables,
        summarize_refusals,
        try_sentences,
        write_refusals,
    )
    from vla_policy.models.loading import load_policy

    policy = load_policy(checkpoint, config.device, config.threads)
    judged, known = try_sentences(policy, config.pusht)
    summary, out = summarize_refusals(judged, known, checkpoint=checkpoint), Path(config.out)
    write_refusals(out, judged, summary)
    save_config(config, out)
    for table in refusal_tables(summary):
        console.print(table)
    print_line(f"summary.json and sentences.csv are in {out}")
