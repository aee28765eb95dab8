"""vla-dataset: import demonstrations, inspect and edit datasets, check a robot's contract, replay in simulation."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "info": Subcommand("DATASET", "counts, the range of every feature, and what looks wrong"),
    "view": Subcommand("DATASET EPISODE", "an episode as a video or as a contact sheet"),
    "frame": Subcommand("DATASET EPISODE FRAME", "one unchanged frame, an image per camera"),
    "replay": Subcommand("DATASET EPISODE", "an episode's actions in simulation, compared with the recorded block"),
    "delete": Subcommand("DATASET EPISODES", "without some episodes"),
    "split": Subcommand("DATASET OUT NAME=PART ...", "several new datasets, by shares or by numbers of episodes"),
    "merge": Subcommand("OUT DATASET DATASET ...", "one new dataset of several"),
    "retask": Subcommand("DATASET TASK", "another instruction for all or some episodes"),
    "rename": Subcommand("DATASET OLD=NEW ...", "other names for features"),
    "drop": Subcommand("DATASET FEATURE ...", "without some features"),
    "reencode": Subcommand("DATASET", "the videos in another codec"),
    "stats": Subcommand("DATASET", "the stored statistics, computed anew"),
    "compact": Subcommand("DATASET", "merge many small files into few"),
    "convert": Subcommand("DATASET OUT", "a LeRobotDataset v2.1 as v3.0"),
    "push": Subcommand("DATASET REPO", "upload to the Hugging Face hub"),
    "pull": Subcommand("REPO OUT", "download from the Hugging Face hub"),
    "contract": Subcommand("FILE", "a robot's contract in words, and whether it matches a URDF, a bag or a graph"),
    "hindsight": Subcommand("DATASET OUT", "play as demonstrations of the goals that it reached"),
    "import-bag": Subcommand("BAG OUT", "convert ROS 2 bags to a dataset by a robot's contract"),
    "import-pusht": Subcommand("FILE OUT", "convert PushT demonstrations to a dataset"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    description = "Import demonstrations, inspect and edit datasets, check a robot's contract, replay in simulation."
    dispatch(__name__, "vla-dataset", description, SUBCOMMANDS, arguments)
