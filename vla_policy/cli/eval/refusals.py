"""vla-eval refusals: which sentences a policy refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, save_config, stdout
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Put the sentences to the policy and print how many it refuses."""
    description = "Count the held-out paraphrases and the unrelated sentences that a policy refuses to act on."
    parser = config_parser("vla-eval refusals", description, "refusals")
    help_text = "folder or hub name of a policy whose instructions are checked"
    (checkpoint,), overrides = parse_arguments(parser, arguments, CHECKPOINT=help_text)

    from vla_policy.evaluation.language.refusals import (
        RefusalsConfig,
        refusal_tables,
        summarize_refusals,
        try_sentences,
        write_refusals,
    )
    from vla_policy.models.loading import load_policy

    config = typed_config(RefusalsConfig, "refusals", overrides)
    policy = load_policy(checkpoint, config.device, config.threads)
    judged, known = try_sentences(policy, config.pusht)
    summary, out = summarize_refusals(judged, known, checkpoint=checkpoint), Path(config.out)
    write_refusals(out, judged, summary)
    save_config(config, out)
    for table in refusal_tables(summary):
        console.print(table)
    print_line(f"summary.json and sentences.csv are in {out}")
