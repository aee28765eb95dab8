"""vla-dataset contract: a robot's contract in words, and whether it matches the robot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser, parse_options
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.robot.contract import Contract
    from vla_policy.robot.contract.findings import Finding

console = stdout()
DEFAULTS = {"urdf": "", "bag": "", "graph": False, "json": False}


def main(arguments: Sequence[str]) -> None:
    """Print the findings; status 1 if something is wrong."""
    description = "Describe a robot's contract in words, and check it against a URDF, a bag or the running graph."
    parser = config_parser("vla-dataset contract", description)
    parser.add_argument("FILE", type=Path, help="a contract, or the name of one in config/")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.robot import contract_check
    from vla_policy.robot.contract import find_config, findings, load_contract, urdf

    contract = load_contract(parsed.FILE)
    found = findings.describe(contract)
    if chosen.urdf:
        found += urdf.compare(contract, find_config(chosen.urdf, ".urdf", "urdf"))
    if chosen.bag:
        received = contract_check.read_start_of_bag(Path(chosen.bag), contract)
        found += contract_check.check_observations(contract, received, live=False)
        found += contract_check.check_commands_of_bag(contract, received)
    if chosen.graph:
        found += _check_graph(contract)
    wrong = sum(finding.level == findings.WRONG for finding in found)
    if chosen.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        colours = {findings.OK: None, findings.NOTE: "yellow", findings.WRONG: "red"}
        for level, line in found:
            console.print(f"{level:5} {line}", style=colours[level], markup=False, highlight=False, soft_wrap=True)
        print_line(f"{wrong} of {len(found)} findings are wrong" if wrong else "nothing is wrong")
    if wrong:
        raise SystemExit(1)


def _check_graph(contract: Contract) -> list[Finding]:
    try:
        from vla_policy.graph.contract_check import check_graph
    except ImportError as error:
        raise InputError(f"graph: expected ROS 2 to be sourced (or the extra ros), found no {error.name}") from None
    with Console(stderr=True).status("listening"):
        return check_graph(contract)
