"""vla-bench serve: what it costs that another process computes the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.interfaces import InputError
from vla_policy.utils.configuration import typed_config
from vla_policy.utils.progress import progress_bar

TARGET = 5.0  # milliseconds, p95

console = stdout()


@dataclass
class ServeBenchConfig:
    """Added latency of a server on the loopback."""

    repeats: int = 200  # chunks timed, of each number and size of cameras
    warmup: int = 20  # chunks before, reported separately
    jpeg: int = 90  # quality of pictures that are compressed
    out: str = "outputs/bench/serve.json"  # file of the numbers

    def __post_init__(self) -> None:
        if self.repeats < 1 or not 1 <= self.jpeg <= 95:
            raise InputError(f"repeats, jpeg: expected at least 1, and 1 to 95, found {self.repeats}, {self.jpeg}")


def main(arguments: Sequence[str]) -> None:
    """Milliseconds that a policy's server adds to a chunk on the loopback, pictures as they are and as JPEG."""
    _, overrides = parse_arguments(config_parser("vla-bench serve", main.__doc__, "serve_bench"), arguments)
    config = typed_config(ServeBenchConfig, "serve_bench", overrides)

    from vla_policy.benchmarks.serving import CAMERAS, added_milliseconds
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    found: dict[str, Any] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("cameras", total=2 * len(CAMERAS), state="")
        for name, cameras in CAMERAS.items():
            for jpeg in (0, config.jpeg):
                row = f"{name}, JPEG {jpeg}" if jpeg else name
                found[row] = added_milliseconds(cameras, jpeg, config.repeats, config.warmup)
                progress.advance(bar)
    write_json(Path(config.out), {"added_ms": found, "target_p95_ms": TARGET, "git_commit": git_commit()})
    console.print(_table(found))
    print_line(f"written to {config.out}")


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"milliseconds added by a server on the loopback, target p95 {TARGET:g}", title_justify="left")
    table.add_column("cameras")
    for name in ("n", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    for name, row in found.items():
        table.add_row(name, str(row["n"]), *(f"{row[key]:.2f}" for key in ("p50", "p95", "p99", "max")))
    return table
