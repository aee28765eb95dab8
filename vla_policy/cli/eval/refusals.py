"""vla-eval refusals: which sentences a policy refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from vla_policy.cli.help import config_parser
from vla_policy.utils.configuration import typed_config

console = Console()


def main(arguments: Sequence[str]) -> None:
    """Put the sentences to the policy and print how many it refuses."""
    description = "Count the held-out paraphrases and the unrelated sentences that a policy refuses to act on."
    parser = config_parser("vla-eval refusals", description, "refusals")
    parser.add_argument("CHECKPOINT", help="folder or hub name of a policy whose instructions are checked")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.language.refusals import (
        RefusalsConfig,
        refusal_tables,
        summarize_refusals,
        try_sentences,
        write_refusals,
    )
    from vla_policy.models.loading import load_policy

    config = typed_config(RefusalsConfig, "refusals", options.overrides)
    policy = load_policy(options.CHECKPOINT, config.device, config.threads)
    judged, known = try_sentences(policy, config.pusht)
    summary, out = summarize_refusals(judged, known, checkpoint=options.CHECKPOINT), Path(config.out)
    write_refusals(out, judged, summary)
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    for table in refusal_tables(summary):
        console.print(table)
    console.print(f"summary.json and sentences.csv are in {out}", markup=False, highlight=False)
