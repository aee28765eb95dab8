"""Bags to episodes: streams of messages resampled on their time stamps, by a robot's contract."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.bags import (
    FAILURE,
    RECORDINGS,
    RESULT,
    TASK,
    Recorded,
    bag_digest,
    bag_topics,
    has_end,
    named_result,
    read_bag,
    read_recordings,
)
from vla_policy.contract import Contract, Stream
from vla_policy.data.files import write_json
from vla_policy.data.writer import LeRobotWriter
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.messages import CommandReader, Reader, seconds

EXECUTED = "command/executed"
INTERVENTION = "teleop/intervention"


@dataclass
class BagEpisode:
    """An episode at even times, and what became of the messages.

    `columns` maps keys to (T, D), `images` to (T, H, W, 3). `result` is "success", "failure" or "" (nobody said).
    `interventions` are the spans of frames [first, last) in which a person led the arm. `repeated` counts frames, by
    key, for which no sample was near enough in time and the one before was taken; `refused` messages, by reason.
    `ended` is whether the bag has its end, or lost it to a kill or a full disk.
    """

    columns: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    task: str
    result: str
    interventions: list[tuple[int, int]]
    repeated: dict[str, int]
    refused: dict[str, int] = field(default_factory=dict)
    ended: bool = True

    @property
    def length(self) -> int:
        return len(self.columns[ACTION])

    def about(self) -> dict[str, Any]:
        """What a dataset's frames do not say."""
        return {
            "result": self.result,
            "interventions": self.interventions,
            "repeated": self.repeated,
            "refused": self.refused,
            "ended": self.ended,
        }

    def summary(self) -> str:
        """The same for people."""
        said = [f"{key}: {count} frames repeated" for key, count in self.repeated.items()]
        said += [f"{why}: {count} messages refused" for why, count in self.refused.items()]
        said += [] if self.ended else ["the end of the bag is missing"]
        dropped = said or ["nothing dropped"]
        hands = [f"{len(self.interventions)} interventions"] if self.interventions else []
        return ", ".join([self.result or "no result", *dropped, *hands])


@dataclass
class _Samples:
    """One stream's values in the order of their stamps; a message that does not come after the last is refused."""

    stamps: list[float] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def add(self, stamp: float, value: np.ndarray) -> bool:
        if self.stamps and stamp <= self.stamps[-1]:
            return False
        self.stamps.append(stamp)
        self.values.append(value)
        return True


def bag_episode(path: Path, contract: Contract) -> BagEpisode:
    """The one episode of a bag, at `contract.interface.fps` from the first moment that every stream saw to the last.

    Of every stream the sample nearest in time is taken, if it is within half a period; the action of a frame is the
    last command stamped before the next frame. Commands are those that our gate executed or, in other people's bags,
    those of the contract's topic. `InputError` names a topic that is missing, of another type, or silent for longer
    than the contract's `max_age`.
    """
    reader, commands = Reader(contract.streams), CommandReader(contract.command)
    topics = bag_topics(path)
    sources = _action_topics(path, topics, commands.topics)
    _check(path, topics, reader.topics)
    samples = {key: _Samples() for key in [*contract.interface.observations, ACTION]}
    texts: dict[str, str] = {}
    hands: list[tuple[float, bool]] = []
    refused: dict[str, int] = {}
    for recorded in read_bag(path, [*reader.topics, *sources, TASK, RESULT, INTERVENTION]):
        if recorded.topic in (TASK, RESULT):
            texts[recorded.topic] = recorded.message.data
        elif recorded.topic == INTERVENTION:
            hands.append((recorded.t, bool(recorded.message.data)))
        else:
            for key, stamp, value in _read(recorded, reader, commands, sources, contract):
                if not samples[key].add(stamp, value):
                    why = f"{recorded.topic}: not after the message before it"
                    refused[why] = refused.get(why, 0) + 1
    times = _times(path, samples, contract)
    columns: dict[str, np.ndarray] = {}
    images: dict[str, np.ndarray] = {}
    repeated: dict[str, int] = {}
    for key, feature in contract.interface.observations.items():
        rows, late = _nearest(samples[key], times, contract, f"{path}: {_topics(contract.stream(key))}")
        repeated |= {key: late} if late else {}
        (images if feature.dtype == "image" else columns)[key] = np.stack([samples[key].values[k] for k in rows])
    columns[ACTION] = _actions(samples[ACTION], times, columns[STATE], contract.interface.fps)
    spans = _spans(hands, times)
    task, result = texts.get(TASK, contract.task), texts.get(RESULT, named_result(path))
    return BagEpisode(columns, images, task, result, spans, repeated, refused, has_end(path))


@dataclass(frozen=True)
class Imported:
    """How large the dataset is now, and which bags could not be read."""

    episodes: int
    frames: int
    bags: int
    left_out: list[Path]


def import_bags(
    path: Path, root: Path, contract: Contract, failures: bool, codec: str, say: Callable[[str], None]
) -> Imported:
    """Add the bag, or the bags of the folder `path` to the dataset at `root`, an episode each.

    Bags that are in it already, wherever they lay then, are passed over, so that this can be repeated; failures are
    unless `failures`. A bag that cannot be read or is of another robot is named and left out. `say` hears what became
    of each. `InputError` if the dataset is not one to add to, `OSError` if the disk is full; both leave it whole.
    """
    left_out: list[Path] = []
    found = find_bags(path)
    with LeRobotWriter(root, contract.interface, contract.robot_type, codec) as writer:
        recordings = [about for about in read_recordings(root) if about["episode"] < writer.num_episodes]
        known = {about.get("digest", about["bag"]) for about in recordings}  # older entries have no digest
        for bag in found:
            try:
                place, digest = str(bag.resolve()), bag_digest(bag)
                if not known.isdisjoint((place, digest)):
                    continue
                episode = bag_episode(bag, contract)
                if episode.result == FAILURE and not failures:
                    say(f"{bag}: left out, a failure (failures=true takes them)")
                    continue
                entry = {"episode": writer.num_episodes, "bag": place, "digest": digest, **episode.about()}
                # Written first: an entry of an episode that did not come to be is dropped the next time.
                write_json(root / RECORDINGS, [*recordings, entry])
                index = writer.add_episode(episode.columns, episode.images, episode.task)
            except InputError as error:
                say(f"{bag}: left out: {str(error).removeprefix(f'{bag}: ')}")
                left_out.append(bag)
                continue
            recordings.append(entry)
            known.add(digest)
            say(f"{bag}: episode {index}, {episode.length} frames, {episode.summary()}")
        return Imported(writer.num_episodes, writer.num_frames, len(found), left_out)


def find_bags(path: Path) -> list[Path]:
    """The bag that `path` is, or those that lie in it, by name."""
    if path.is_file() or (path / "metadata.yaml").is_file():
        return [path]
    found = sorted([*path.glob("*.mcap"), *(p.parent for p in path.glob("*/metadata.yaml"))])
    if not found:
        raise InputError(f"{path}: expected a bag, or a folder of bags, found none")
    return found


def _action_topics(path: Path, topics: dict[str, str], commands: Mapping[str, str]) -> list[str]:
    """Where the actions are: what our gate executed or, in other people's bags, what the robot was sent."""
    bare = {topic.lstrip("/"): kind for topic, kind in topics.items()}
    if EXECUTED in bare:
        return [EXECUTED]
    for topic, kind in commands.items():
        if bare.get(topic.lstrip("/")) != kind:
            raise InputError(
                f"{path}: expected commands on {EXECUTED} or of type {kind} on {topic.lstrip('/')}, "
                f"found the topics {dict(sorted(topics.items()))}"
            )
    return [topic.lstrip("/") for topic in commands]


def _check(path: Path, topics: dict[str, str], expected: dict[str, str]) -> None:
    bare = {topic.lstrip("/"): kind for topic, kind in topics.items()}
    for topic, kind in expected.items():
        if bare.get(topic.lstrip("/")) != kind:
            found = bare.get(topic.lstrip("/"), f"only {sorted(topics)}")
            raise InputError(f"{path}: expected {kind} on {topic}, found {found}")


def _read(
    recorded: Recorded, reader: Reader, commands: CommandReader, actions: Collection[str], contract: Contract
) -> list[tuple[str, float, np.ndarray]]:
    """The samples that a message makes known: keys, stamps and values."""
    if recorded.topic not in actions:
        return list(reader.read(recorded.topic, recorded.message, _stamp(recorded)))
    action = (
        _executed(recorded, contract) if recorded.topic == EXECUTED else commands.read(recorded.topic, recorded.message)
    )
    return [] if action is None else [(ACTION, _stamp(recorded), action)]


def _executed(recorded: Recorded, contract: Contract) -> np.ndarray:
    names = list(contract.interface.action.names)
    if list(recorded.message.name) != names:
        raise InputError(f"{EXECUTED}: expected the channels {names}, found {list(recorded.message.name)}")
    return np.asarray(recorded.message.position, np.float32)


def _topics(stream: Stream) -> str:
    return " and ".join(source.topic for source in stream.sources)


def _stamp(recorded: Recorded) -> float:
    """The header's time; the receive time where there is no header, or one that says "now"."""
    header: Any = getattr(recorded.message, "header", None)
    return recorded.t if header is None or header.stamp.sec == 0 else seconds(header.stamp)


def _times(path: Path, samples: dict[str, _Samples], contract: Contract) -> np.ndarray:
    empty = [key for key, stream in samples.items() if not stream.stamps]
    if empty:
        raise InputError(f"{path}: expected messages of {empty}, found none")
    first = max(stream.stamps[0] for key, stream in samples.items() if key != ACTION)
    last = min(stream.stamps[-1] for key, stream in samples.items() if key != ACTION)
    first = max(first, samples[ACTION].stamps[0] - 1.0 / contract.interface.fps)
    anchor = samples[(contract.interface.cameras or [STATE])[0]].stamps
    start = next((t for t in anchor if t >= first - 1e-6), None)  # frames lie where the first camera's pictures do
    count = 0 if start is None else int((last - start) * contract.interface.fps + 1e-3) + 1
    if start is None or count < 2:
        raise InputError(f"{path}: expected 2 frames or more seen by every stream, found {max(count, 0)}")
    return start + np.arange(count) / contract.interface.fps


def _nearest(samples: _Samples, times: np.ndarray, contract: Contract, where: str) -> tuple[np.ndarray, int]:
    stamps = np.array(samples.stamps)
    after = np.minimum(np.searchsorted(stamps, times), len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    rows = np.where(np.abs(stamps[before] - times) <= np.abs(stamps[after] - times), before, after)
    late = np.abs(stamps[rows] - times) > 0.5 / contract.interface.fps
    rows = np.where(late, before, rows)
    gap = float(np.max(times - stamps[rows]))
    if gap > contract.timeouts.max_age:
        raise InputError(f"{where}: expected no gap above {contract.timeouts.max_age:g} s, found one of {gap:.2f} s")
    return rows, int(late.sum())


def _actions(samples: _Samples, times: np.ndarray, states: np.ndarray, fps: float) -> np.ndarray:
    """The last command stamped before each frame's end; before the first command the arm stayed where it was."""
    rows = np.searchsorted(np.array(samples.stamps), times + 1.0 / fps - 1e-6) - 1
    actions = np.stack(samples.values)[np.maximum(rows, 0)]
    return np.where((rows >= 0)[:, None], actions, states).astype(np.float32)


def _spans(hands: Sequence[tuple[float, bool]], times: np.ndarray) -> list[tuple[int, int]]:
    """Frames [first, last) between a message that says true and the next one that says false."""
    spans: list[tuple[int, int]] = []
    begin: float | None = None
    for t, on in [*hands, (float(times[-1]) + 1.0, False)]:
        if on and begin is None:
            begin = t
        elif not on and begin is not None:
            first, last = np.searchsorted(times, [begin, t])
            if last > first:
                spans.append((int(first), int(last)))
            begin = None
    return spans
