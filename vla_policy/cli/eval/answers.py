"""vla-eval answers: a backbone's answers to questions about frames of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, save_config, stdout
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.utils.configuration import typed_config
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Ask and print how often the answers are right."""
    description = "Ask a policy's language head about held-out frames, and count the right answers."
    parser = config_parser("vla-eval answers", description, "answers")
    (checkpoint, root), overrides = parse_arguments(
        parser,
        arguments,
        CHECKPOINT="folder or hub name of a policy with a vision-language backbone",
        DATASET="folder of a LeRobotDataset that has the block's pose",
    )

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.language.answers import AnswersConfig, ask
    from vla_policy.evaluation.language.answers_report import answer_tables, summarize_answers, write_answers
    from vla_policy.models.loading import load_policy

    config = typed_config(AnswersConfig, "answers", overrides)
    policy = load_policy(checkpoint, config.device, config.threads)
    with progress_bar(console) as progress:
        task = progress.add_task("questions", total=config.n_questions, state="")
        answered = ask(policy, LeRobotDataset(Path(root)), config, lambda: progress.advance(task))
    summary, out = summarize_answers(answered, checkpoint=checkpoint, dataset=root, seed=config.seed), Path(config.out)
    write_answers(out, answered, summary)
    save_config(config, out)
    for table in answer_tables(summary):
        console.print(table)
    print_line(f"summary.json and answers.csv are in {out}")
