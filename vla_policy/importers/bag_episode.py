"""A bag as an episode: the streams of a robot's contract, resampled by time stamp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vla_policy.importers.bag_clock import Timeline, Track, clock_notes, timelines
from vla_policy.importers.bag_commands import CommandSource, command_sources, set_points
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.robot.bags import RESULT, STRING, TASK, Bag, named_result
from vla_policy.robot.contract import Contract, Stream
from vla_policy.robot.messages import Reader, decode

INTERVENTION = "teleop/intervention"
_RECORDER_TOPICS = {
    TASK: STRING,
    RESULT: STRING,
    INTERVENTION: "std_msgs/msg/Bool",
}  # of this package
HELD = 64  # decoded images of a camera that are kept, as those of a file may be out of order


@dataclass
class BagEpisode:
    """An episode at a fixed rate, with statistics of the resampling.

    `columns` maps keys to (T, D), `images` to T frames (H, W, 3), decoded on iteration. `result` is "success",
    "failure" or "" (unknown). `interventions` are spans of frames [first, last) under teleoperation. `repeated` counts
    frames by key without a sample near enough in time, for which the previous one was used; `refused` counts messages
    by reason; `unstamped` those by topic with receive times. `notes` concern the bag's files and clocks. `ended` is
    false for a truncated bag.
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
        """Metadata that is not in a dataset's frames."""
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
        """`about` in one line."""
        lost = [f"{key}: {count} frames repeated" for key, count in self.repeated.items()]
        lost += [f"{why}: {count} messages refused" for why, count in self.refused.items()]
        lost += [] if self.ended else ["the end of the bag is missing"]
        lost = lost or ["nothing dropped"]
        lost += [f"{topic}: receive times taken, no time stamps in {n} messages" for topic, n in self.unstamped.items()]
        teleoperated = [f"{len(self.interventions)} interventions"] if self.interventions else []
        return ", ".join([self.result or "no result", *lost, *self.notes, *teleoperated])


def bag_episode(path: Path, contract: Contract) -> BagEpisode:
    """`read_episode` of a bag that is one file, or a folder with its metadata.yaml."""
    return read_episode(Bag(path), contract)


def read_episode(bag: Bag, contract: Contract) -> BagEpisode:
    """The episode of a bag, at `contract.interface.fps`, over the time that every stream covers.

    Each stream contributes the sample nearest in time, within half a period; a frame's action is the last command
    stamped before the next frame, or a trajectory's set-point at that time. Commands are the gate's executed ones or,
    in bags of other software, those of the contract's topics. For times see `timelines`.
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
    seen = vectors | _image_times(contract, lines)
    times = _times(seen, commands, lines, contract)
    columns: dict[str, np.ndarray] = {}
    images: dict[str, Iterable[np.ndarray]] = {}
    late: dict[str, int] = {}
    for key, feature in contract.interface.observations.items():
        stream = contract.stream(key)
        rows, late[key] = _nearest(seen[key].times, times, contract, _topics(stream))
        values = [seen[key].values[row] for row in rows]
        if feature.dtype == "image":
            images[key] = BagImages(bag, stream, values)
        else:
            columns[key] = np.stack(values)
    columns[ACTION] = columns[STATE].copy()
    for source in index.sources:
        channels, commanded = list(source.channels), commands[source.topic]
        states = columns[STATE][:, channels]
        columns[ACTION][:, channels] = set_points(commanded.times, commanded.values, times, states, fps)
    intervention = lines.pop(INTERVENTION, None)
    kept = seen | commands
    return BagEpisode(
        columns=columns,
        images=images,
        task=index.texts.get(TASK, contract.task),
        result=index.texts.get(RESULT, named_result(bag.path)),
        interventions=[]
        if intervention is None
        else _interventions(list(zip(intervention.times, index.interventions, strict=True)), times),
        repeated={key: count for key, count in late.items() if count},
        refused={f"{key}: at the time of another one": kept[key].refused for key in kept if kept[key].refused},
        unstamped={line.topic: line.unstamped for line in lines.values() if line.unstamped},
        notes=[*bag.notes(), *clock_notes(list(lines.values()), max_age)],
        ended=bag.has_end(),
    )


class BagImages:
    """A camera's images at the frames' times, read from the bag on iteration.

    `places` are the indices of the T frames' images among the camera's messages. Memory is bounded for any bag.
    """

    def __init__(self, bag: Bag, stream: Stream, places: Sequence[int]) -> None:
        self._bag, self._stream, self._places = bag, stream, places

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield T frames (H, W, 3) uint8; `InputError` names what cannot be decoded."""
        wanted, held = set(self._places), {}
        messages = enumerate(self._bag.read([self._stream.source.topic]))
        for place, frames in groupby(self._places):
            while place not in held:
                number, recorded = next(messages, (-1, None))
                if recorded is None:
                    raise InputError(f"{self._bag.path}: expected {place + 1} or more images, found it changed")
                if number in wanted:
                    held[number] = decode(recorded.message, self._stream)
                if len(held) > HELD:
                    late = f"one behind {HELD} later ones"
                    raise InputError(f"{self._stream.source.topic}: expected images in order of time, found {late}")
            image = held.pop(place)
            for _ in frames:
                yield image


class _Index(NamedTuple):
    """The first pass over a bag: tracks by topic, the command topics, the last text by topic, and the values of the
    intervention topic.
    """

    tracks: dict[str, Track]
    sources: list[CommandSource]
    texts: dict[str, str]
    interventions: list[bool]


def _index(bag: Bag, contract: Contract) -> _Index:
    """Index a bag, topics without leading slash, the state's first. The first image of each camera is decoded."""
    topics = bag.topics()
    sources = command_sources(topics, contract)
    streams = sorted(contract.streams, key=lambda stream: stream.key != STATE)
    wanted = {source.topic.lstrip("/"): source.type for stream in streams for source in stream.sources}
    for topic, kind in wanted.items():
        if topics.get(topic) != kind:
            found = topics.get(topic, f"only {sorted(topics)}")
            raise InputError(f"expected {kind} on /{topic}, found {found or 'no type'}")
    cameras = {stream.source.topic.lstrip("/"): stream for stream in streams if stream.is_camera}
    recorded_here = [topic for topic, kind in _RECORDER_TOPICS.items() if topics.get(topic) == kind]
    tracks = {topic: Track(topic) for topic in [*wanted, *(source.topic for source in sources)]}
    if INTERVENTION in recorded_here:
        tracks[INTERVENTION] = Track(INTERVENTION)
    index = _Index(tracks, sources, {}, [])
    for recorded in bag.read({*tracks, *recorded_here}):
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
            index.interventions.append(bool(message.data))
    return index


class _Samples(NamedTuple):
    """Samples of a stream: `times` (n,) in seconds, strictly increasing, and `values` (n, ...).

    For images the values are message indices. `refused` samples had duplicate times.
    """

    times: np.ndarray
    values: Any
    refused: int

    @classmethod
    def of(cls, times: Sequence[float] | np.ndarray, values: Sequence[Any]) -> _Samples:
        ordered, first = np.unique(np.asarray(times, float), return_index=True)
        return cls(ordered, [values[row] for row in first], len(times) - len(first))


def _image_times(contract: Contract, lines: Mapping[str, Timeline]) -> dict[str, _Samples]:
    times = {key: lines[contract.stream(key).source.topic.lstrip("/")].times for key in contract.interface.cameras}
    return {key: _Samples.of(t, range(len(t))) for key, t in times.items()}


def _decode(
    bag: Bag, contract: Contract, sources: Sequence[CommandSource], lines: Mapping[str, Timeline]
) -> tuple[dict[str, _Samples], dict[str, _Samples]]:
    """The vectors by key and the commands by topic, in the second pass over a bag."""
    streams = [stream for stream in contract.streams if not stream.is_camera]
    reader, commanded = Reader(streams), {source.topic: source for source in sources}
    found: dict[str, list[tuple[float, Any]]] = {key: [] for key in [*(stream.key for stream in streams), *commanded]}
    when = {topic: iter(line.times.tolist()) for topic, line in lines.items()}
    for recorded in bag.read([*reader.topics, *commanded]):
        t = next(when[recorded.topic])
        if recorded.topic in commanded:
            found[recorded.topic].append((t, commanded[recorded.topic].read(recorded, contract.interface.action.names)))
        else:
            for sample in reader.read(recorded.topic, recorded.message, t):
                if sample.revises:
                    found[sample.key].pop()
                found[sample.key].append((sample.stamp, sample.value))
    for stream in streams:
        if not found[stream.key]:
            raise InputError(
                f"{stream.key}: expected {_topics(stream)} within {stream.slop:g} s, found {_spans(lines)}"
            )
    samples = {name: _Samples.of(*zip(*pairs, strict=True)) for name, pairs in found.items()}
    return {s.key: samples[s.key] for s in streams}, {topic: samples[topic] for topic in commanded}


def _topics(stream: Stream) -> str:
    return " and ".join(source.topic for source in stream.sources)


def _spans(lines: Mapping[str, Timeline]) -> str:
    return ", ".join(line.span() for line in lines.values())


def _times(
    seen: Mapping[str, _Samples], commands: Mapping[str, _Samples], lines: Mapping[str, Timeline], contract: Contract
) -> np.ndarray:
    """The frames' times: aligned with the first camera's images, while all streams and commands are available."""
    fps = contract.interface.fps
    first = max(samples.times[0] for samples in seen.values())
    last = min(samples.times[-1] for samples in seen.values())
    first = max(first, min(samples.times[0] for samples in commands.values()) - 1.0 / fps)
    due = max(
        t + command.due.max(initial=0.0)
        for samples in commands.values()
        for t, command in zip(samples.times, samples.values, strict=True)
    )
    if due < first:
        late = f"the last one ends at {due:.3f} s, the first frame is at {first:.3f} s"
        raise InputError(f"expected commands while every stream is seen, found {late}: {_spans(lines)}")
    anchor = seen[(contract.interface.cameras or [STATE])[0]].times
    start = next((t for t in anchor if first - 1e-6 <= t <= due), None)
    count = 0 if start is None else max(int((last - start) * fps + 1e-3) + 1, 0)
    if start is None or count < 2:
        raise InputError(f"expected 2 frames or more seen by every stream, found {count}: {_spans(lines)}")
    if count > len(anchor) * (contract.timeouts.max_age * fps + 2):  # before memory is allocated
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


def _interventions(messages: Sequence[tuple[float, bool]], times: np.ndarray) -> list[tuple[int, int]]:
    """Frames [first, last) between a true message and the next false one."""
    spans: list[tuple[int, int]] = []
    begin: float | None = None
    for t, on in [*messages, (float(times[-1]) + 1.0, False)]:
        if on and begin is None:
            begin = t
        elif not on and begin is not None:
            first, last = np.searchsorted(times, [begin, t])
            if last > first:
                spans.append((int(first), int(last)))
            begin = None
    return spans
