"""vla-dataset: import demonstrations, look at a dataset or a robot's contract, replay in simulation, merge files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "info": Subcommand("DATASET", "counts, the range of every feature, and what looks wrong"),
    "view": Subcommand("DATASET EPISODE", "an episode as a film or as a contact sheet"),
    "frame": Subcommand("DATASET EPISODE FRAME", "one frame as it is, a picture a camera"),
    "replay": Subcommand("DATASET EPISODE", "an episode's actions in simulation: where does the block go?"),
    "compact": Subcommand("DATASET", "merge many small files into few"),
    "contract": Subcommand("FILE", "what a robot's contract does, and whether it fits a URDF, a bag or a graph"),
    "import-bag": Subcommand("BAG OUT", "ROS 2 bags become a dataset by a robot's contract"),
    "import-pusht": Subcommand("FILE OUT", "PushT demonstrations become a dataset"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    description = "Import demonstrations, look at a dataset or a robot's contract, replay in simulation, merge files."
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    dispatch(__name__, "vla-dataset", description, SUBCOMMANDS, arguments)
