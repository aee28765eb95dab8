"""Bags to episodes: streams of messages resampled on their time stamps, by a robot's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vla_policy.data.writer import LeRobotWriter
from vla_policy.importers.bag_clock import Timeline, Track, clock_notes, timelines
from vla_policy.importers.bag_commands import CommandSource, command_sources, set_points
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.robot.bags import (
    FAILURE,
    RECORDINGS,
    RESULT,
    STRING,
    TASK,
    Bag,
    find_bags,
    named_result,
    read_recordings,
)
from vla_policy.robot.contract import Contract, Stream
from vla_policy.robot.messages import Reader, decode
from vla_policy.utils.files import write_json

INTERVENTION = "teleop/intervention"
_OURS = {TASK: STRING, RESULT: STRING, INTERVENTION: "std_msgs/msg/Bool"}  # topics that only our bags have
HELD = 64  # pictures of a camera that may wait for earlier ones, which a file has behind them


@dataclass
class BagEpisode:
    """An episode at even times, and what became of the messages.

    `columns` maps keys to (T, D), `images` to T frames (H, W, 3), decoded whenever they are iterated. `result` is
    "success", "failure" or "" (nobody said). `interventions` are the spans of frames [first, last) in which a person
    led the arm. `repeated` counts frames, by key, for which no sample was near enough in time and the one before was
    taken; `refused` messages, by reason; `unstamped` those, by topic, for which receive times were taken. `notes` are
    of the bag's files and clocks. `ended` is whether the bag has its end, or lost it to a kill or a full disk.
    """

    columns: dict[str, np.ndarray]
    images: Mapping[str, Iterable[np.ndarray]]
    task: str
    result: str
    interventions: list[tuple[int, int]]
    repeated: dict[str, int]
    refused: dict[str, int] = field(default_factory=dict)
    unstamped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
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
            "unstamped": self.unstamped,
            "notes": self.notes,
            "ended": self.ended,
        }

    def summary(self) -> str:
        """The same for people."""
        said = [f"{key}: {count} frames repeated" for key, count in self.repeated.items()]
        said += [f"{why}: {count} messages refused" for why, count in self.refused.items()]
        said += [] if self.ended else ["the end of the bag is missing"]
        said = said or ["nothing dropped"]
        said += [f"{topic}: receive times taken, no time stamps in {n} messages" for topic, n in self.unstamped.items()]
        hands = [f"{len(self.interventions)} interventions"] if self.interventions else []
        return ", ".join([self.result or "no result", *said, *self.notes, *hands])


def bag_episode(path: Path, contract: Contract) -> BagEpisode:
    """`read_episode` of a bag that is one file, or a folder with its metadata.yaml."""
    return read_episode(Bag(path), contract)


def read_episode(bag: Bag, contract: Contract) -> BagEpisode:
    """The one episode of a bag, at `contract.interface.fps` from the first moment that every stream saw to the last.

    Of every stream the sample nearest in time is taken, if it is within half a period; the action of a frame is the
    last command stamped before the next frame, or the place to which a trajectory has come by then. Commands are those
    that our gate executed or, in other people's bags, those of the contract's topics. For times see `timelines`.
    `InputError` names a topic that is missing, of another type, or silent for longer than the contract's `max_age`.
    """
    try:
        return _episode(bag, contract)
    except InputError as error:
        raise InputError(f"{bag.path}: {str(error).removeprefix(f'{bag.path}: ')}") from None


def _episode(bag: Bag, contract: Contract) -> BagEpisode:
    max_age, fps = contract.timeouts.max_age, contract.interface.fps
    index = _index(bag, contract)
    lines = {line.topic: line for line in timelines(list(index.tracks.values()), max_age)}
    vectors, commands = _decode(bag, contract, index.sources, lines)
    seen = vectors | _pictures(contract, lines)
    times = _times(seen, commands, lines, contract)
    columns: dict[str, np.ndarray] = {}
    images: dict[str, Iterable[np.ndarray]] = {}
    late: dict[str, int] = {}
    for key, feature in contract.interface.observations.items():
        stream = contract.stream(key)
        rows, late[key] = _nearest(seen[key].times, times, contract, _words(stream))
        values = [seen[key].values[row] for row in rows]
        if feature.dtype == "image":
            images[key] = Pictures(bag, stream, values)
        else:
            columns[key] = np.stack(values)
    columns[ACTION] = columns[STATE].copy()
    for source in index.sources:
        channels, told = list(source.channels), commands[source.topic]
        states = columns[STATE][:, channels]
        columns[ACTION][:, channels] = set_points(told.times, told.values, times, states, fps)
    hands = lines.pop(INTERVENTION, None)
    kept = seen | commands
    return BagEpisode(
        columns=columns,
        images=images,
        task=index.texts.get(TASK, contract.task),
        result=index.texts.get(RESULT, named_result(bag.path)),
        interventions=[] if hands is None else _interventions(list(zip(hands.times, index.hands, strict=True)), times),
        repeated={key: count for key, count in late.items() if count},
        refused={f"{key}: at the time of another one": kept[key].refused for key in kept if kept[key].refused},
        unstamped={line.topic: line.unstamped for line in lines.values() if line.unstamped},
        notes=[*bag.notes(), *clock_notes(list(lines.values()), max_age)],
        ended=bag.has_end(),
    )


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
                place, digest = str(bag.path.resolve()), bag.digest()
                if not known.isdisjoint((place, digest)):
                    continue
                episode = read_episode(bag, contract)
                if episode.result == FAILURE and not failures:
                    say(f"{bag.path}: left out, a failure (failures=true takes them)")
                    continue
                entry = {"episode": writer.num_episodes, "bag": place, "digest": digest, **episode.about()}
                # Written first: an entry of an episode that did not come to be is dropped the next time.
                write_json(root / RECORDINGS, [*recordings, entry])
                index = writer.add_episode(episode.columns, episode.images, episode.task)
            except InputError as error:
                say(f"{bag.path}: left out: {str(error).removeprefix(f'{bag.path}: ')}")
                left_out.append(bag.path)
                continue
            recordings.append(entry)
            known.add(digest)
            say(f"{bag.path}: episode {index}, {episode.length} frames, {episode.summary()}")
        return Imported(writer.num_episodes, writer.num_frames, len(found), left_out)


class Pictures:
    """The pictures of a camera at the times of frames, which are read from the bag whenever they are iterated.

    `places` are the T frames' pictures among the camera's messages. A few are held at a time, however long the bag is.
    """

    def __init__(self, bag: Bag, stream: Stream, places: Sequence[int]) -> None:
        self._bag, self._stream, self._places = bag, stream, places

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield T frames (H, W, 3) uint8; `InputError` names what cannot be decoded."""
        wanted, held = set(self._places), {}
        messages = enumerate(self._bag.read([self._stream.topic]))
        for place, frames in groupby(self._places):
            while place not in held:
                number, recorded = next(messages, (-1, None))
                if recorded is None:
                    raise InputError(f"{self._bag.path}: expected {place + 1} or more pictures, found it changed")
                if number in wanted:
                    held[number] = decode(recorded.message, self._stream)
                if len(held) > HELD:
                    late = f"one behind {HELD} later ones"
                    raise InputError(f"{self._stream.topic}: expected pictures in order of time, found {late}")
            picture = held.pop(place)
            for _ in frames:
                yield picture


class _Index(NamedTuple):
    """What the first reading of a bag finds: tracks by topic, where commands are, the last texts by topic, and what was
    said of interventions.
    """

    tracks: dict[str, Track]
    sources: list[CommandSource]
    texts: dict[str, str]
    hands: list[bool]


def _index(bag: Bag, contract: Contract) -> _Index:
    """Topics are without their slashes, the state's first. Of each camera the first picture is tried."""
    topics = bag.topics()
    sources = command_sources(topics, contract)
    streams = sorted(contract.streams, key=lambda stream: stream.key != STATE)
    wanted = {source.topic.lstrip("/"): source.type for stream in streams for source in stream.sources}
    for topic, kind in wanted.items():
        if topics.get(topic) != kind:
            found = topics.get(topic, f"only {sorted(topics)}")
            raise InputError(f"expected {kind} on /{topic}, found {found or 'no type'}")
    cameras = {stream.topic.lstrip("/"): stream for stream in streams if stream.feature.dtype == "image"}
    ours = [topic for topic, kind in _OURS.items() if topics.get(topic) == kind]
    tracks = {topic: Track(topic) for topic in [*wanted, *(source.topic for source in sources)]}
    index = _Index(tracks | ({INTERVENTION: Track(INTERVENTION)} if INTERVENTION in ours else {}), sources, {}, [])
    for recorded in bag.read([*tracks, *ours]):
        topic, message = recorded.topic, recorded.message
        if recorded.type != topics[topic]:
            raise InputError(f"{topic}: expected one type, found {topics[topic]} and {recorded.type}")
        if topic in cameras and not tracks[topic].received:
            decode(message, cameras[topic])
        if topic in index.tracks:
            index.tracks[topic].add(recorded)
        else:
            index.texts[topic] = message.data
        if topic == INTERVENTION:
            index.hands.append(bool(message.data))
    return index


class _Samples(NamedTuple):
    """What was seen or told: `times` (n,) in seconds, all different and in order, and `values` (n, ...).

    Of pictures the values are their places among the topic's messages. `refused` had the times of others.
    """

    times: np.ndarray
    values: Any
    refused: int

    @classmethod
    def of(cls, times: Sequence[float] | np.ndarray, values: Sequence[Any]) -> _Samples:
        ordered, first = np.unique(np.asarray(times, float), return_index=True)
        return cls(ordered, [values[row] for row in first], len(times) - len(first))


def _pictures(contract: Contract, lines: Mapping[str, Timeline]) -> dict[str, _Samples]:
    times = {key: lines[contract.stream(key).topic.lstrip("/")].times for key in contract.interface.cameras}
    return {key: _Samples.of(t, range(len(t))) for key, t in times.items()}


def _decode(
    bag: Bag, contract: Contract, sources: Sequence[CommandSource], lines: Mapping[str, Timeline]
) -> tuple[dict[str, _Samples], dict[str, _Samples]]:
    """The vectors by key and the commands by topic, in the second reading of a bag."""
    streams = [stream for stream in contract.streams if stream.feature.dtype != "image"]
    reader, told = Reader(streams), {source.topic: source for source in sources}
    found: dict[str, list[tuple[float, Any]]] = {key: [] for key in [*(stream.key for stream in streams), *told]}
    when = {topic: iter(line.times.tolist()) for topic, line in lines.items()}
    for recorded in bag.read([*reader.topics, *told]):
        t = next(when[recorded.topic])
        if recorded.topic in told:
            found[recorded.topic].append((t, told[recorded.topic].read(recorded, contract.interface.action.names)))
        else:
            for sample in reader.read(recorded.topic, recorded.message, t):
                if sample.revises:
                    found[sample.key].pop()
                found[sample.key].append((sample.stamp, sample.value))
    for stream in streams:
        if not found[stream.key]:
            raise InputError(f"{stream.key}: expected {_words(stream)} within {stream.slop:g} s, found {_spans(lines)}")
    samples = {name: _Samples.of(*zip(*pairs, strict=True)) for name, pairs in found.items()}
    return {s.key: samples[s.key] for s in streams}, {topic: samples[topic] for topic in told}


def _words(stream: Stream) -> str:
    return " and ".join(source.topic for source in stream.sources)


def _spans(lines: Mapping[str, Timeline]) -> str:
    return ", ".join(line.span() for line in lines.values())


def _times(
    seen: Mapping[str, _Samples], commands: Mapping[str, _Samples], lines: Mapping[str, Timeline], contract: Contract
) -> np.ndarray:
    """Where the frames lie: where the first camera's pictures do, while all streams and commands are there."""
    fps = contract.interface.fps
    first = max(samples.times[0] for samples in seen.values())
    last = min(samples.times[-1] for samples in seen.values())
    first = max(first, min(told.times[0] for told in commands.values()) - 1.0 / fps)
    due = max(
        t + x.due.max(initial=0.0) for told in commands.values() for t, x in zip(told.times, told.values, strict=True)
    )
    if due < first:
        late = f"the last one over at {due:.3f} s and the first frame at {first:.3f} s"
        raise InputError(f"expected commands while every stream is seen, found {late}: {_spans(lines)}")
    anchor = seen[(contract.interface.cameras or [STATE])[0]].times
    start = next((t for t in anchor if first - 1e-6 <= t <= due), None)
    count = 0 if start is None else max(int((last - start) * fps + 1e-3) + 1, 0)
    if start is None or count < 2:
        raise InputError(f"expected 2 frames or more seen by every stream, found {count}: {_spans(lines)}")
    if count > len(anchor) * (contract.timeouts.max_age * fps + 2):  # before any memory is asked for
        raise InputError(f"expected frames without gaps, found {count} from {len(anchor)} messages: {_spans(lines)}")
    return start + np.arange(count) / fps


def _nearest(stamps: np.ndarray, times: np.ndarray, contract: Contract, where: str) -> tuple[np.ndarray, int]:
    after = np.minimum(np.searchsorted(stamps, times), len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    rows = np.where(np.abs(stamps[before] - times) <= np.abs(stamps[after] - times), before, after)
    late = np.abs(stamps[rows] - times) > 0.5 / contract.interface.fps
    rows = np.where(late, before, rows)
    gap = float(np.max(times - stamps[rows]))
    if gap > contract.timeouts.max_age:
        raise InputError(f"{where}: expected no gap above {contract.timeouts.max_age:g} s, found one of {gap:.2f} s")
    return rows, int(late.sum())


def _interventions(hands: Sequence[tuple[float, bool]], times: np.ndarray) -> list[tuple[int, int]]:
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
