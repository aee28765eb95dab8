"""Checks a contract against the messages of a bag or of a running graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.interfaces import STATE, DataError
from vla_policy.robot.bags import Bag, read_bag
from vla_policy.robot.contract import JOINT_STATE, Contract, Source, Stream
from vla_policy.robot.contract.findings import NOTE, OK, WRONG, Finding
from vla_policy.robot.messages import CommandReader, Reader, seconds

KEPT = 30  # messages of a topic that are decoded
FEWEST = 5  # stamps needed to judge the alignment of streams
RARELY = 0.1  # fraction of the stamps that may have no partner, e.g. because a message was lost
SPAN = 10.0  # seconds of a bag that are checked
EXECUTED = "command/executed"


@dataclass
class ReceivedTopic:
    """A topic's types, the receive times of its messages (seconds), and the first `KEPT` messages with theirs."""

    types: tuple[str, ...] = ()
    times: list[float] = field(default_factory=list)
    messages: list[tuple[float, Any]] = field(default_factory=list)

    def add(self, t: float, message: Any) -> None:
        self.times.append(t)
        if len(self.messages) < KEPT:
            self.messages.append((t, message))

    @property
    def period(self) -> float:
        """Mean seconds between messages; infinite for fewer than two."""
        return float(np.mean(np.diff(self.times))) if len(self.times) > 1 else np.inf


def expected_topics(contract: Contract) -> dict[str, str]:
    """Types by topic, of observations and commands."""
    return {**Reader(contract.streams).topics, **CommandReader(contract.command).topics}


def read_start_of_bag(path: Path, contract: Contract) -> dict[str, ReceivedTopic]:
    """The first `SPAN` seconds of a bag, by topic without leading slash."""
    received = {topic: ReceivedTopic((kind,)) for topic, kind in Bag(path).topics().items()}
    topics = [topic for topic, kind in expected_topics(contract).items() if _bare(received, topic).types == (kind,)]
    begin: float | None = None
    for recorded in read_bag(path, topics):
        begin = recorded.t if begin is None else begin
        if recorded.t > begin + SPAN:
            break
        received[recorded.topic].add(recorded.t, recorded.message)
    return received


def check_observations(contract: Contract, received: Mapping[str, ReceivedTopic], live: bool) -> list[Finding]:
    """Findings on the contract's observations; `live` if the messages come from a running graph."""
    found: list[Finding] = []
    for topic, kind in Reader(contract.streams).topics.items():
        wrong = _not_received(topic, kind, received)
        found += [wrong] if wrong else [*_of_stamps(topic, received, contract, live)]
    for stream in contract.streams:
        for source in stream.sources:
            found += _of_rate(contract, stream, source, _bare(received, source.topic))
            found += _of_joints(source, _bare(received, source.topic))
    return [*found, *_of_samples(contract, received)]


def check_commands_of_bag(contract: Contract, received: Mapping[str, ReceivedTopic]) -> list[Finding]:
    """Findings on the commands in a bag, which become its actions."""
    if EXECUTED in received:
        return [Finding(OK, f"{EXECUTED}: the actions are those that the gate executed")]
    found: list[Finding] = []
    reader = CommandReader(contract.command)
    for topic, kind in reader.topics.items():
        wrong = _not_received(topic, kind, received)
        try:
            for _, message in _bare(received, topic).messages:
                reader.read(topic, message)
        except DataError as error:
            wrong = Finding(WRONG, f"the commands would be refused: {error}")
        found.append(wrong or Finding(OK, f"{topic}: the actions are these commands"))
    return found


def _bare(received: Mapping[str, ReceivedTopic], topic: str) -> ReceivedTopic:
    return received.get(topic.lstrip("/"), ReceivedTopic())


def _not_received(topic: str, kind: str, received: Mapping[str, ReceivedTopic]) -> Finding | None:
    there = _bare(received, topic)
    if not there.types:
        alike = sorted(f"/{name}" for name, other in received.items() if kind in other.types)
        return Finding(WRONG, f"{topic}: expected {kind}, found no such topic; of this type are {alike or 'none'}")
    if set(there.types) != {kind}:
        return Finding(WRONG, f"{topic}: expected {kind}, found {' and '.join(sorted(there.types))}")
    return None if there.times else Finding(WRONG, f"{topic}: expected messages, found none")


def _of_rate(contract: Contract, stream: Stream, source: Source, received: ReceivedTopic) -> Iterator[Finding]:
    if not received.times:
        return
    timeouts, fps = contract.timeouts, contract.interface.fps
    name, most = ("camera", timeouts.camera) if stream.is_camera or stream.key != STATE else ("state", timeouts.state)
    beside = len(stream.sources) > 1 and stream.slop > most  # a slow part of a vector
    period, longest = received.period, float(np.max(np.diff(received.times), initial=0.0))
    text = f"{source.topic}: {1 / period:.4g} Hz"
    if len(stream.sources) > 1 and period > stream.slop:
        yield Finding(WRONG, f"{text}, too slow for parts that are to be within {stream.slop:g} s (slop)")
    elif period > most and not beside:
        yield Finding(WRONG, f"{text}, slower than timeouts.{name} of {most:g} s allows: the arm would hold")
    elif longest > most and not beside:
        yield Finding(
            NOTE, f"{text}, once silent for {longest:.2g} s: with timeouts.{name} of {most:g} s the arm holds"
        )
    elif period > 1.1 / fps and not beside:
        yield Finding(NOTE, f"{text}, below the control rate of {fps:g} Hz: samples are repeated")
    else:
        yield Finding(OK, text)


def _of_stamps(topic: str, received: Mapping[str, ReceivedTopic], contract: Contract, live: bool) -> Iterator[Finding]:
    ages = [t - seconds(message.header.stamp) for t, message in _bare(received, topic).messages]
    age, timeouts = float(np.median(ages)), contract.timeouts
    if any(seconds(message.header.stamp) == 0 for _, message in _bare(received, topic).messages):
        text = "the gate and the policy would refuse them" if live else "receive times are used"
        yield Finding(WRONG if live else NOTE, f"{topic}: expected time stamps, found 0: {text}")
    elif live and (age > timeouts.max_age or age < -timeouts.slop):
        bounds = f"from {-timeouts.slop:g} (timeouts.slop) to {timeouts.max_age:g} s (timeouts.max_age)"
        yield Finding(WRONG, f"{topic}: expected stamps {bounds} old, found {age:.3g} s: are the clocks the same?")
    elif live:
        yield Finding(OK, f"{topic}: stamps are {1000 * age:.0f} ms old on arrival")


def _of_joints(source: Source, received: ReceivedTopic) -> Iterator[Finding]:
    if source.type != JOINT_STATE or not received.messages:
        return
    orders = {tuple(message.name) for _, message in received.messages if set(message.name) >= set(source.joints)}
    for order in sorted(orders):
        if order != source.joints:
            yield Finding(OK, f"{source.topic}: joints come as {list(order)} and are taken by name")


def _of_samples(contract: Contract, received: Mapping[str, ReceivedTopic]) -> Iterator[Finding]:
    """Whether the reader accepts the messages."""
    reader = Reader(contract.streams)
    arrived = [(t, topic, m) for topic in reader.topics for t, m in _bare(received, topic).messages]
    newest: dict[str, np.ndarray] = {}
    stamps: dict[str, list[float]] = {}
    refused: set[str] = set()
    for t, topic, message in sorted(arrived, key=lambda item: item[0]):
        try:
            for sample in reader.read(topic, message, seconds(message.header.stamp) or t):
                newest[sample.key] = sample.value
                stamps.setdefault(sample.key, []).append(sample.stamp)
        except DataError as error:
            refused.add(str(error))
    for why in sorted(refused):
        yield Finding(WRONG, f"would be refused: {why}")
    for stream in contract.streams:
        complete = all(_bare(received, source.topic).messages for source in stream.sources)
        if stream.key in newest:
            yield Finding(OK, f"{stream.key}: messages can be read")
        elif complete and not refused:
            yield Finding(WRONG, f"{stream.key}: its parts were never within {stream.slop:g} s of each other (slop)")
    if STATE in newest:
        yield from _of_position(contract, newest[STATE])
    if len(stamps) == len(contract.streams):
        yield from _of_alignment(contract.timeouts.slop, {key: np.array(sorted(t)) for key, t in stamps.items()})


def _of_alignment(slop: float, stamps: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Whether the stamps of the slowest stream have partners in every other one, while all streams are present."""
    begin, end = max(t[0] for t in stamps.values()), min(t[-1] for t in stamps.values())
    common = {key: t[(t >= begin) & (t <= end)] for key, t in stamps.items()}
    slowest = min(common, key=lambda key: len(common[key]))
    for key in sorted(set(stamps) - {slowest}):
        apart = np.abs(np.subtract.outer(common[slowest], stamps[key])).min(axis=1)
        if len(apart) < FEWEST or (share := float((apart > slop).mean())) <= RARELY:
            continue
        text = f"{100 * share:.0f} % of the stamps are more than timeouts.slop, {slop:g} s, apart"
        text += f" (median {np.median(apart):.3f} s): they would not form an observation"
        yield Finding(WRONG if share > 0.5 else NOTE, f"{slowest} and {key}: {text}")


def _of_position(contract: Contract, state: np.ndarray) -> Iterator[Finding]:
    command, action = contract.command, contract.interface.action
    step = command.speed / command.rate
    for k in np.flatnonzero((state < command.low - step) | (state > command.high + step)):
        degrees = "; degrees?" if action.units[k] == "rad" and abs(state[k]) > 2.2 * np.pi else ""
        box = f"{command.low[k]:g} to {command.high[k]:g} {action.units[k]}"
        yield Finding(WRONG, f"{action.names[k]}: expected within the box of {box}, found {state[k]:.4g}{degrees}")
