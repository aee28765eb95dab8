"""Import of bags into a dataset, an episode each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vla_policy.data.writing.writer import LeRobotWriter
from vla_policy.importers.bag_episode import read_episode
from vla_policy.interfaces import InputError
from vla_policy.robot.bags import FAILURE, find_bags
from vla_policy.robot.contract import Contract
from vla_policy.utils.files import write_json
from vla_policy.utils.recordings import BAG, RECORDINGS, read_recordings


@dataclass(frozen=True)
class Imported:
    """The dataset's size after the import, and the bags that could not be read."""

    episodes: int
    frames: int
    bags: int
    left_out: list[Path]


def import_bags(
    path: Path, root: Path, contract: Contract, failures: bool, codec: str, report: Callable[[str], None]
) -> Imported:
    """Add the bag, or the bags of the folder `path`, to the dataset at `root`, one episode each.

    Bags that were imported before, from whatever path, are skipped, so that this can be repeated; failures are skipped
    unless `failures`. Unreadable bags and those of another robot are reported and skipped. `report` is called with a
    line on each. `InputError` if the dataset is incompatible, `OSError` for a full disk; both leave it valid.
    """
    left_out: list[Path] = []
    found = find_bags(path)
    with LeRobotWriter(root, contract.interface, contract.robot_type, codec) as writer:
        first = writer.num_episodes
        recordings = [about for about in read_recordings(root) if about["episode"] is None or about["episode"] < first]
        known = {about.get("digest", about.get(BAG)) for about in recordings}  # older entries have no digest
        for bag in found:
            try:
                place, digest = str(bag.path.resolve()), bag.digest()
                if not known.isdisjoint((place, digest)):
                    continue
                episode = read_episode(bag, contract)
                if episode.result == FAILURE and not failures:
                    report(f"{bag.path}: left out, a failure (failures=true takes them)")
                    continue
                entry = {"episode": writer.num_episodes, "bag": place, "digest": digest, **episode.about()}
                # Written first: an entry without its episode is dropped by the next import.
                write_json(root / RECORDINGS, [*recordings, entry])
                index = writer.add_episode(episode.columns, episode.images, episode.task)
            except InputError as error:
                report(f"{bag.path}: left out: {str(error).removeprefix(f'{bag.path}: ')}")
                left_out.append(bag.path)
                continue
            recordings.append(entry)
            known.add(digest)
            report(f"{bag.path}: episode {index}, {episode.length} frames, {episode.summary()}")
        return Imported(writer.num_episodes, writer.num_frames, len(found), left_out)
