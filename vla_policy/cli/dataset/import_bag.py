"""vla-dataset import-bag: convert ROS 2 bags to a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser, parse_options
from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.exits import exit_status

DEFAULTS = {"contract": "pusht_sim", "failures": False, "codec": "h264"}


def main(arguments: Sequence[str]) -> None:
    """Import; status 1 if a bag was skipped, 2 if nothing could be imported."""
    description = "Convert ROS 2 bags (.mcap, or folders of bags), an episode each, to a dataset by a robot's contract."
    parser = config_parser("vla-dataset import-bag", description)
    parser.add_argument("BAG", type=Path, help="a bag, or a folder of bags")
    parser.add_argument("OUT", type=Path, help="folder of the dataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.importers.bags import import_bags
    from vla_policy.robot.contract import load_contract

    contract = load_contract(chosen.contract)
    try:
        done = import_bags(parsed.BAG, parsed.OUT, contract, chosen.failures, chosen.codec, print_line)
    except OSError as error:
        kind = Failure if exit_status(error) == 1 else InputError
        raise kind(f"{parsed.OUT}: expected to be able to write, found {error}") from None
    total = f"{done.episodes} episodes, {done.frames} frames in {parsed.OUT}"
    if done.left_out:
        names = ", ".join(bag.name for bag in done.left_out)
        print_line(f"{total}; {len(done.left_out)} of {done.bags} bags left out: {names}")
        raise SystemExit(1)
    print_line(total)
