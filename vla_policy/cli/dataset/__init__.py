"""vla-dataset: import demonstrations, inspect a dataset or a robot's contract, replay in simulation, merge files."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "info": Subcommand("DATASET", "counts, the range of every feature, and what looks wrong"),
    "view": Subcommand("DATASET EPISODE", "an episode as a video or as a contact sheet"),
    "frame": Subcommand("DATASET EPISODE FRAME", "one unchanged frame, an image per camera"),
    "replay": Subcommand("DATASET EPISODE", "an episode's actions in simulation, compared with the recorded block"),
    "compact": Subcommand("DATASET", "merge many small files into few"),
    "contract": Subcommand("FILE", "a robot's contract in words, and whether it matches a URDF, a bag or a graph"),
    "hindsight": Subcommand("DATASET OUT", "play as demonstrations of the goals that it reached"),
    "import-bag": Subcommand("BAG OUT", "convert ROS 2 bags to a dataset by a robot's contract"),
    "import-pusht": Subcommand("FILE OUT", "convert PushT demonstrations to a dataset"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    description = "Import demonstrations, inspect a dataset or a robot's contract, replay in simulation, merge files."
    dispatch(__name__, "vla-dataset", description, SUBCOMMANDS, arguments)
