"""vla-dataset compact: merge many small files into few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"data_mb": 100.0, "video_mb": 200.0}


def main(arguments: Sequence[str]) -> None:
    """Merge and print the numbers of files."""
    description = "Merge many small files into few, without re-encoding videos."
    parser = config_parser("vla-dataset compact", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.writing.compact import compact

    def files() -> int:
        return sum(len(list(parsed.DATASET.rglob(f"*{suffix}"))) for suffix in (".parquet", ".mp4"))

    before = files()
    compact(parsed.DATASET, chosen.data_mb, chosen.video_mb, lambda parts: track(parts, "compacting"))
    print_line(f"{before} files merged into {files()} in {parsed.DATASET}")
