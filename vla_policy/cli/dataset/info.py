"""vla-dataset info: counts, ranges and suspicious findings of a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser, parse_options

console = stdout()
RANGES = ("min", "max", "mean", "std")
DEFAULTS = {"videos": True, "json": False}


def main(arguments: Sequence[str]) -> None:
    """Print tables, or JSON."""
    description = "Show counts, the range of every feature, and what looks wrong."
    parser = config_parser("vla-dataset info", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data import LeRobotDataset
    from vla_policy.data.format.findings import Finding, folded
    from vla_policy.data.inspection import inspect
    from vla_policy.importers.pusht import ROBOT_TYPE

    dataset = LeRobotDataset(parsed.DATASET, strict=False)
    hidden = chosen.json or not console.is_terminal
    about = inspect(dataset, chosen.videos, lambda e: track(e, "reading", transient=True, disable=hidden))
    if dataset.info.get("robot_type") == ROBOT_TYPE:
        from vla_policy.importers.goal_check import goal_findings  # with the simulation, which a robot need not have

        about["warnings"] += [finding.to_dict() for finding in goal_findings(dataset)]
    if chosen.json:
        print(json.dumps(about, indent=2))
        return
    shortest, longest = about["lengths"].values()
    print_line(f"{about['root']}: LeRobotDataset {about['version']}")
    print_line(
        f"{about['episodes']} episodes of {shortest} to {longest} frames, together {about['frames']} at "
        f"{about['fps']:g} Hz ({about['seconds'] / 60:.1f} minutes)"
    )
    for task in about["tasks"]:
        print_line(f"task: {task} ({about['task_frames'][task]} frames)")
    if about["interventions"]["takeovers"]:
        print_line("{takeovers} takeovers of the policy, together {frames} frames".format_map(about["interventions"]))
    numbers = (Column(what, no_wrap=True) for what in RANGES)  # a narrow terminal breaks names, never numbers
    table = Table(Column("feature", overflow="fold"), *numbers, box=box.SIMPLE_HEAD)
    for key, feature in about["features"].items():
        table.add_row(f"{key} ({' x '.join(map(str, feature['shape']))})")
        colours = feature["dtype"] in ("video", "image")
        names = ["red", "green", "blue"] if colours else feature.get("names") or []
        units = feature.get("units") or []
        for channel in range(len(feature.get("min", []))):
            name = names[channel] if channel < len(names) else str(channel)
            unit = f" [{units[channel]}]" if channel < len(units) else ""
            table.add_row(escape(f"  {name}{unit}"), *(f"{feature[what][channel]:.4g}" for what in RANGES))
    console.print(table)
    for line in folded(Finding.from_dict(warning) for warning in about["warnings"]):
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    print_line(f"{len(about['warnings'])} warnings" if about["warnings"] else "nothing looks wrong")
