"""Reading of recorded ROS 2 messages: bags of one file or several."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from vla_policy.interfaces import InputError
from vla_policy.robot.bag_storage import NOT_INSTALLED, Serialised, error_text, has_end, is_storage, read_storage

TASK, RESULT = "task", "recorder/result"  # topics with one text per episode
SUCCESS, FAILURE = "success", "failure"
STRING = "std_msgs/msg/String"
DIGEST_BYTES = 1 << 16  # at both ends of a bag, which its digest covers
METADATA = "metadata.yaml"  # written by a rosbag2 recorder when it closes a bag
SPLIT_GAP = 0.5  # seconds, longest gap between consecutive files of a split recording
_INFORMATION = "rosbag2_bagfile_information"
_NUMBERED = re.compile(r"(.+)_(?:0|[1-9]\d*)(\.mcap|\.db3)(\.zstd|\.zst)?")


class Recorded(NamedTuple):
    """A message of a bag: topic, type, receive time in seconds, and the deserialised message."""

    topic: str
    type: str
    t: float
    message: Any


@dataclass(frozen=True)
class Bag:
    """One recording: a file, a folder with its metadata.yaml, or `parts`, the files of a recording without one.

    `path` names it; for parts, the first file. `note` is a remark for the user on how it was found.
    """

    path: Path
    parts: tuple[Path, ...] = ()
    note: str = ""

    @cached_property
    def files(self) -> list[Path]:
        """Its files in the order of metadata.yaml."""
        return list(self.parts) or (_listed(self.path) if self.path.is_dir() else [self.path])

    @cached_property
    def _written(self) -> list[Path]:
        """Its files in order of time, without empty files of a split recording."""
        if len(self.files) == 1:
            return self.files
        begins = {file: _first(file) for file in self.files}
        return sorted((file for file in self.files if begins[file] < math.inf), key=begins.__getitem__)

    def messages(self) -> Iterator[Serialised]:
        """Messages of all topics; `InputError` if a file is corrupt."""
        for file in self._written:
            yield from read_storage(file)

    def read(self, topics: Collection[str]) -> Iterator[Recorded]:
        """The messages of these topics, ignoring leading slashes; `InputError` names a corrupt one."""
        wanted, types = {topic.lstrip("/") for topic in topics}, typestore()
        for topic, kind, nanoseconds, data in self.messages():
            if topic.lstrip("/") in wanted:
                try:
                    message = types.deserialize_cdr(data, kind)
                except Exception as error:  # rosbags raises AssertionErrors and those of numpy and struct
                    expected = f"expected a {kind or 'message of a known type'}"
                    raise InputError(f"{self.path}: {topic}: {expected}, found {error_text(error)}") from None
                yield Recorded(topic.lstrip("/"), kind, nanoseconds * 1e-9, message)

    def topics(self) -> dict[str, str]:
        """Types by topic without leading slash."""
        found: dict[str, str] = {}
        for topic, kind, _, _ in self.messages():
            found.setdefault(topic.lstrip("/"), kind)
        return found

    def has_end(self) -> bool:
        """Whether all files were closed properly."""
        return all(has_end(file) for file in self.files)

    def notes(self) -> list[str]:
        """Remarks on unusual files."""
        beside = sorted({*_storages(self.path)} - {*self.files}) if self.path.is_dir() else []
        unlisted = [f"{file.name} not read, {METADATA} does not list it" for file in beside]
        return [self.note, *unlisted] if self.note else unlisted

    def digest(self) -> str:
        """See `bag_digest`."""
        if len(self.parts) < 2:
            return bag_digest(self.path)
        return hashlib.sha256("".join(sorted(map(bag_digest, self.parts))).encode()).hexdigest()


def find_bags(path: Path) -> list[Bag]:
    """The bag at `path`, or those in the folder `path`, sorted by name.

    A folder with a metadata.yaml is one bag. Without one, files numbered like the parts of a rosbag2 recording (NAME_0,
    NAME_1) are one bag where each continues its predecessor in time; every other file is a bag. Subfolders are searched
    if they have a metadata.yaml or such numbered files. `InputError` if there is none.
    """
    if path.is_file():
        return [Bag(path)]
    if (path / METADATA).is_file():
        return [Bag(path)]
    folders = sorted(folder for folder in path.glob("*") if folder.is_dir())
    found = _unlisted(path)
    for folder in folders:
        listed = (folder / METADATA).is_file()
        found += [Bag(folder)] if listed else [bag for bag in _unlisted(folder) if bag.parts]
    if not found:
        other = [folder.name for folder in folders if _storages(folder)]
        beside = f" (bag files without {METADATA} are in {', '.join(other)}: name such a folder)" if other else ""
        raise InputError(f"{path}: expected a bag, or a folder of bags, found none{beside}")
    return sorted(found, key=lambda bag: bag.path)


def read_bag(path: Path, topics: Collection[str]) -> Iterator[Recorded]:
    """`Bag.read` of a file or a folder with its metadata.yaml."""
    return Bag(path).read(topics)


def bag_digest(path: Path) -> str:
    """A digest that identifies a bag independent of its path: of its size and both ends, which hold message times.

    For a folder, of its metadata. `InputError` if it cannot be read.
    """
    try:
        with (path / "metadata.yaml" if path.is_dir() else path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(size.to_bytes(8, "little") + file.read(DIGEST_BYTES))
            file.seek(-min(DIGEST_BYTES, size), os.SEEK_END)
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"{path}: expected a bag that can be read, found {error.strerror}") from None
    return digest.hexdigest()


def name_result(path: Path, result: str) -> Path:
    """A bag's name with its result, for a full disk: a.mcap becomes a.success.mcap."""
    return path.with_suffix(f".{result}{path.suffix}")


def named_result(path: Path) -> str:
    """The result in a name made by `name_result`, "" if none."""
    return next((result for result in (SUCCESS, FAILURE) if path.stem.endswith(f".{result}")), "")


def _storages(folder: Path) -> list[Path]:
    return sorted(filter(is_storage, folder.glob("*")))


def _listed(folder: Path) -> list[Path]:
    """The files that a folder's metadata.yaml lists."""
    path = folder / METADATA
    try:
        text = path.read_text(encoding="utf-8")
        names = [PurePath(name).name for name in yaml.safe_load(text)[_INFORMATION]["relative_file_paths"]]
    except OSError as error:
        raise InputError(f"{path}: expected a bag's metadata, found {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: expected {_INFORMATION}: relative_file_paths, a list of files, found {error_text(error)}"
        ) from None
    missing = [name for name in names if not is_storage(folder / name)]
    if missing or not names:
        raise InputError(f"{path}: expected its relative_file_paths beside it, .mcap or .db3, found {missing or names}")
    return [folder / name for name in dict.fromkeys(names)]


def _unlisted(folder: Path) -> list[Bag]:
    """The bags of a folder without metadata.yaml; those of numbered files have `parts`."""
    numbered: dict[tuple[str, ...], list[Path]] = {}
    found = []
    for file in _storages(folder):
        if name := _NUMBERED.fullmatch(file.name):
            numbered.setdefault(name.groups(), []).append(file)
        else:
            found.append(Bag(file))
    return found + [bag for files in numbered.values() for bag in _recordings(files)]


def _recordings(files: list[Path]) -> list[Bag]:
    """Numbered files grouped into bags where each continues its predecessor in time."""
    spans = {file: _span(file) for file in files} if len(files) > 1 else {files[0]: (0.0, 0.0)}
    runs: list[list[Path]] = []
    for file in sorted(files, key=spans.__getitem__):
        if runs and abs(spans[file][0] - spans[runs[-1][-1]][1]) <= SPLIT_GAP:
            runs[-1].append(file)
        else:
            runs.append([file])
    return [Bag(run[0], tuple(run), _missing(run, alone=len(files) == 1)) for run in runs]


def _missing(run: list[Path], alone: bool) -> str:
    if len(run) > 1:
        return f"{METADATA} is missing, {', '.join(file.name for file in run)} read as one, each continues the last"
    return f"{METADATA} is missing" + ("" if alone else f", {run[0].name} read by itself, none continues it")


def _span(file: Path) -> tuple[float, float]:
    """First and last receive time in seconds, infinite if no message can be read."""
    try:
        times = [message.nanoseconds * 1e-9 for message in read_storage(file)]
    except InputError:
        times = []
    return min(times, default=math.inf), max(times, default=math.inf)


def _first(file: Path) -> float:
    """Receive time of the first message in nanoseconds; infinite if there is none."""
    try:
        return next((message.nanoseconds for message in read_storage(file)), math.inf)
    except InputError:
        if has_end(file):
            raise
        return math.inf


@cache  # compiles the (de)serialisers
def typestore() -> Any:
    """ROS 2 Jazzy's message types; `InputError` if rosbags is not installed."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise InputError(f"rosbags: {NOT_INSTALLED}") from None
    return get_typestore(Stores.ROS2_JAZZY)
