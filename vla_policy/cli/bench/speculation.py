"""vla-bench speculation: tokens per second with a draft, and what the draft's guesses are worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Decode the action tokens and the answers of a large policy alone, with the draft of a small one (speculative
    decoding), and with a draft that works ahead in a process of its own (SSD).
    """
    (target, draft, root), config = parse_command(
        "vla-bench speculation",
        main.__doc__,
        "speculation",
        arguments,
        TARGET=CHECKPOINT,
        DRAFT=f"{CHECKPOINT} of a policy at least ten times smaller",
        DATASET=DATASET,
    )

    from vla_policy.benchmarks.speculation import WARMUP, kinds_of_tokens, measure, speculation_table
    from vla_policy.data import LeRobotDataset
    from vla_policy.models.loading import chosen_device
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    kinds = kinds_of_tokens(target, draft, LeRobotDataset(Path(root)), config)
    found = {}
    with progress_bar(console) as progress:
        for name, tokens in kinds.items():
            task = progress.add_task(name, total=config.n_frames + min(WARMUP, config.n_frames), state="")
            found[name] = measure(tokens, config, partial(progress.advance, task))
    about = {"target": target, "draft": draft, "dataset": root, "precision": config.precision}
    about |= {"length": config.length, "branches": config.branches, "exponent": config.exponent}
    device = chosen_device(config.device, config.threads)
    write_json(Path(config.out), {**about, "device": device, "git_commit": git_commit(), **found})
    for name, each in found.items():
        console.print(speculation_table(name, each, config.precision))
    print_line(f"written to {config.out}")
