"""vla-eval answers: what a policy's backbone says about pictures of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.utils.configuration import typed_config
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Ask and print how often it was right."""
    description = "Ask a policy's language head about held-out frames, and count the right answers."
    parser = config_parser("vla-eval answers", description, "answers")
    parser.add_argument("CHECKPOINT", help="folder or hub name of a policy with a vision-language backbone")
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset that has the block's pose")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.language.answers import AnswersConfig, ask
    from vla_policy.evaluation.language.answers_report import answer_tables, summarize_answers, write_answers
    from vla_policy.models.loading import load_policy

    config = typed_config(AnswersConfig, "answers", options.overrides)
    policy = load_policy(options.CHECKPOINT, config.device, config.threads)
    dataset, out = LeRobotDataset(options.DATASET), Path(config.out)
    with progress_bar(console) as progress:
        task = progress.add_task("questions", total=config.n_questions, state="")
        answered = ask(policy, dataset, config, lambda: progress.advance(task))
    summary = summarize_answers(answered, checkpoint=options.CHECKPOINT, dataset=str(options.DATASET), seed=config.seed)
    write_answers(out, answered, summary)
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    for table in answer_tables(summary):
        console.print(table)
    console.print(f"summary.json and answers.csv are in {out}", markup=False, highlight=False)
