"""Bags to episodes: streams of messages resampled on their time stamps, by a robot's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from vla_policy.bags import (
    FAILURE,
    RECORDINGS,
    RESULT,
    STRING,
    TASK,
    Bag,
    Recorded,
    find_bags,
    named_result,
    read_recordings,
)
from vla_policy.contract import JOINT_STATE, TRAJECTORY, CommandSpec, Contract, Stream
from vla_policy.data.bag_clock import Timeline, Track, clock_notes, timelines
from vla_policy.data.files import write_json
from vla_policy.data.writer import LeRobotWriter
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.messages import decode, decode_command, seconds

EXECUTED = "command/executed"
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
    that our gate executed or, in other people's bags, those of the contract's topic. For times see `timelines`.
    `InputError` names a topic that is missing, of another type, or silent for longer than the contract's `max_age`.
    """
    content = _read(bag, contract)
    lines = _timelines(bag.path, content, contract)
    commands = [content.tracks[ACTION].values[row] for row in lines[ACTION].rows]
    hands = lines.pop(INTERVENTION, None)
    times = _times(bag.path, lines, commands, contract)
    columns: dict[str, np.ndarray] = {}
    images: dict[str, Iterable[np.ndarray]] = {}
    repeated: dict[str, int] = {}
    for key, feature in contract.interface.observations.items():
        stream = contract.stream(key)
        near, late = _nearest(lines[key].times, times, contract, f"{bag.path}: {stream.topic}")
        rows = lines[key].rows[near]
        repeated |= {key: late} if late else {}
        if feature.dtype == "image":
            images[key] = Pictures(bag, stream, rows)
        else:
            columns[key] = np.stack([content.tracks[key].values[row] for row in rows])
    columns[ACTION] = _actions(lines[ACTION].times, commands, times, columns[STATE], contract.interface.fps)
    led = [] if hands is None else [(t, content.tracks[INTERVENTION].values[row]) for t, row in hands.pairs()]
    return BagEpisode(
        columns=columns,
        images=images,
        task=content.texts.get(TASK, contract.task),
        result=content.texts.get(RESULT, named_result(bag.path)),
        interventions=_spans(led, times),
        repeated=repeated,
        refused={f"{x.topic}: at the time of another one": x.repeated for x in lines.values() if x.repeated},
        unstamped={x.topic: x.unstamped for x in lines.values() if x.unstamped},
        notes=[*bag.notes(), *clock_notes(list(lines.values()), contract.timeouts.max_age)],
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

    `rows` (T,) are their places among the camera's messages. A few are held at a time, however long the bag is.
    """

    def __init__(self, bag: Bag, stream: Stream, rows: np.ndarray) -> None:
        self._bag, self._stream, self._rows = bag, stream, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield T frames (H, W, 3) uint8; `InputError` names what cannot be decoded."""
        wanted, held = set(self._rows.tolist()), {}
        messages = enumerate(self._bag.read([self._stream.topic]))
        for row, frames in groupby(self._rows.tolist()):
            while row not in held:
                place, recorded = next(messages, (-1, None))
                if recorded is None:
                    raise InputError(f"{self._bag.path}: expected the same messages as before, found it changed")
                if place in wanted:
                    held[place] = decode(recorded.message, self._stream)
                if len(held) > HELD:
                    raise InputError(
                        f"{self._bag.path}: {self._stream.topic}: expected pictures in order of time, "
                        f"found one that is more than {HELD} late"
                    )
            picture = held.pop(row)
            for _ in frames:
                yield picture


class _Content(NamedTuple):
    """What of a bag's messages is kept: tracks by key, and the last text of each topic."""

    tracks: dict[str, Track]
    texts: dict[str, str]


def _read(bag: Bag, contract: Contract) -> _Content:
    """Everything but the pictures, of which each camera's first one is tried."""
    topics = bag.topics()
    source = _action_topic(bag.path, topics, contract)
    streams = {stream.topic.lstrip("/"): stream for stream in contract.streams}
    _check(bag.path, topics, {stream.topic: stream.type for stream in contract.streams})
    tracks = {stream.key: Track(topic) for topic, stream in streams.items()}
    content = _Content(tracks | {ACTION: Track(source), INTERVENTION: Track(INTERVENTION)}, {})
    ours = [topic for topic, kind in _OURS.items() if topics.get(topic) == kind]
    for recorded in bag.read([*streams, source, *ours]):
        topic, message = recorded.topic, recorded.message
        if recorded.type != topics[topic]:
            raise InputError(f"{bag.path}: {topic}: expected one type, found {topics[topic]} and {recorded.type}")
        if topic == source:
            content.tracks[ACTION].add(recorded, _command(recorded, contract))
        elif topic in streams:
            track, picture = content.tracks[streams[topic].key], streams[topic].feature.dtype == "image"
            value = None if picture and track.received else decode(message, streams[topic])
            track.add(recorded, None if picture else value)
        elif topic == INTERVENTION:
            content.tracks[INTERVENTION].add(recorded, bool(message.data))
        else:
            content.texts[topic] = message.data
    return content


def _timelines(path: Path, content: _Content, contract: Contract) -> dict[str, Timeline]:
    """By key, the state's first; that of `INTERVENTION` only if there were any."""
    keys = [STATE, *(key for key in content.tracks if key != STATE)]
    if not content.tracks[INTERVENTION].received:
        keys.remove(INTERVENTION)
    if empty := [key for key in keys if not content.tracks[key].received]:
        raise InputError(f"{path}: expected messages of {empty}, found none")
    try:
        lines = timelines([content.tracks[key] for key in keys], contract.timeouts.max_age)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return dict(zip(keys, lines, strict=True))


def _action_topic(path: Path, topics: Mapping[str, str], contract: Contract) -> str:
    if EXECUTED in topics:
        _check(path, topics, {EXECUTED: JOINT_STATE})
        return EXECUTED
    topic = contract.command.topic.lstrip("/")
    if topics.get(topic) != contract.command.type:
        raise InputError(
            f"{path}: expected commands on {EXECUTED} or of type {contract.command.type} on {topic}, "
            f"found the topics {dict(sorted(topics.items()))}"
        )
    return topic


def _check(path: Path, topics: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for topic, kind in expected.items():
        if topics.get(topic.lstrip("/")) != kind:
            found = topics.get(topic.lstrip("/"), f"only {sorted(topics)}")
            raise InputError(f"{path}: expected {kind} on {topic}, found {found or 'no type'}")


class _Command(NamedTuple):
    """Targets (n, D), and by when after the command each is reached, seconds (n,)."""

    due: np.ndarray
    targets: np.ndarray

    def at(self, elapsed: float) -> np.ndarray:
        """The set-point (D,) that many seconds after the command: on the straight line between two targets."""
        return np.array([np.interp(elapsed, self.due, channel) for channel in self.targets.T], np.float32)


def _command(recorded: Recorded, contract: Contract) -> _Command:
    message, spec = recorded.message, contract.command
    if recorded.topic == EXECUTED:
        names = list(contract.interface.action.names)
        if list(message.name) != names:
            raise InputError(f"{EXECUTED}: expected the channels {names}, found {list(message.name)}")
        if len(message.position) != len(names):
            raise InputError(f"{EXECUTED}: expected {len(names)} positions, found {len(message.position)}")
        return _Command(np.zeros(1), np.asarray(message.position, np.float32)[None])
    if spec.type == TRAJECTORY:
        return _trajectory(message, spec)
    return _Command(np.zeros(1), decode_command(message, spec)[None])


def _trajectory(message: Any, spec: CommandSpec) -> _Command:
    """All points of a JointTrajectory; one without any stops the arm where it is."""
    due = np.array([seconds(point.time_from_start) for point in message.points])
    if (np.diff(due) <= 0).any() or (due < 0).any():
        raise InputError(
            f"{spec.topic}: expected time_from_start to increase from point to point, found {due.tolist()}"
        )
    single = [SimpleNamespace(joint_names=message.joint_names, points=[point]) for point in message.points]
    targets = [decode_command(point, spec) for point in single]
    return _Command(due, np.array(targets, np.float32).reshape(len(due), len(spec.fields)))


def _times(path: Path, lines: Mapping[str, Timeline], commands: Sequence[_Command], contract: Contract) -> np.ndarray:
    """Where the frames lie: where the first camera's pictures do, while all streams and the commands are there."""
    fps, action = contract.interface.fps, lines[ACTION].times
    seen = [line.times for key, line in lines.items() if key != ACTION]
    first = max(*(times[0] for times in seen), action[0] - 1.0 / fps)
    last = min(times[-1] for times in seen)
    told = max(t + command.due.max(initial=0.0) for t, command in zip(action, commands, strict=True))
    anchor = lines[(contract.interface.cameras or [STATE])[0]].times
    start = next((t for t in anchor if first - 1e-6 <= t <= told), None)
    count = 0 if start is None else max(int((last - start) * fps + 1e-3) + 1, 0)
    if start is None or count < 2:
        spans = ", ".join(line.span() for line in lines.values())
        raise InputError(f"{path}: expected 2 frames or more seen by every stream, found {count}: {spans}")
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


def _actions(
    starts: np.ndarray, commands: Sequence[_Command], times: np.ndarray, states: np.ndarray, fps: float
) -> np.ndarray:
    """The set-point at each frame's end; before the first command the arm stayed where it was."""
    ends = times + 1.0 / fps - 1e-6
    paths = _paths(starts, commands, times, states, fps)
    rows = np.searchsorted(starts, ends) - 1
    return np.stack(
        [
            paths[row].at(end - starts[row]) if row >= 0 else state
            for row, end, state in zip(rows, ends, states, strict=True)
        ]
    )


def _paths(
    starts: np.ndarray, commands: Sequence[_Command], times: np.ndarray, states: np.ndarray, fps: float
) -> list[_Command]:
    """Commands that are not due within a frame with the set-point at which they find the arm, which leads to them."""
    paths: list[_Command] = []
    for start, command in zip(starts, commands, strict=True):
        if not len(command.due) or command.due[0] > 1.0 / fps:
            before = len(paths) - 1
            measured = states[min(int(np.searchsorted(times, start)), len(times) - 1)]
            here = paths[before].at(start - starts[before]) if paths else measured
            command = _Command(np.r_[0.0, command.due], np.vstack([here, command.targets]))
        paths.append(command)
    return paths


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
