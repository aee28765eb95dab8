"""vla-dataset compact: many small files become few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from vla_policy.cli.common import say
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"data_mb": 100.0, "video_mb": 200.0}


def main(arguments: Sequence[str]) -> None:
    """Merge and say how many files there were."""
    description = "Merge many small files into few, without encoding videos again."
    parser = config_parser("vla-dataset compact", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.writing.compact import compact

    def files() -> int:
        return sum(len(list(parsed.DATASET.rglob(f"*{suffix}"))) for suffix in (".parquet", ".mp4"))

    before = files()
    compact(parsed.DATASET, chosen.data_mb, chosen.video_mb, lambda parts: track(parts, "compacting"))
    say(f"{before} files became {files()} in {parsed.DATASET}")
