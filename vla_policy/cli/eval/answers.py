"""vla-eval answers: a backbone's answers to questions about frames of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, save_config, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Ask a policy's language head about held-out frames of a PushT dataset, and count the right answers."""
    (checkpoint, root), config = parse_command(
        "vla-eval answers", main.__doc__, "answers", arguments, CHECKPOINT=CHECKPOINT, DATASET=DATASET
    )

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.language.answers import ask
    from vla_policy.evaluation.language.answers_report import answer_tables, summarize_answers, write_answers
    from vla_policy.models.drafts import text_drafter
    from vla_policy.models.loading import load_policy

    policy = load_policy(checkpoint, config.device, config.threads)
    if config.draft is not None and policy.backbone is not None:
        policy.backbone.drafter = text_drafter(policy.backbone, config.draft, config.device)
    with progress_bar(console) as progress:
        task = progress.add_task("questions", total=config.n_questions, state="")
        answered = ask(policy, LeRobotDataset(Path(root)), config, lambda: progress.advance(task))
    summary, out = summarize_answers(answered, checkpoint=checkpoint, dataset=root, seed=config.seed), Path(config.out)
    write_answers(out, answered, summary)
    save_config(config, out)
    for table in answer_tables(summary):
        console.print(table)
    print_line(f"summary.json and answers.csv are in {out}")
