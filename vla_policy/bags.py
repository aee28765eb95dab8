"""Recorded ROS 2 messages: MCAP files written so that a kill loses next to nothing, and any bag read again."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from mcap.writer import Writer

_WANTED = "expected pip install 'vla_policy[ros]' (rosbags and mcap), found none"


class Recorded(NamedTuple):
    """A message of a bag: its topic, type, receive time in seconds, and itself, with ROS's attributes."""

    topic: str
    type: str
    t: float
    message: Any


class BagWriter:
    """Writes messages as they are on the wire to one MCAP file, without chunks: what `flush` wrote survives a kill."""

    def __init__(self, path: Path) -> None:
        self._types = _typestore()
        from mcap.writer import Writer

        self.path, self.messages = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("xb")
        self._writer: Writer = Writer(self._file, use_chunking=False)
        self._writer.start(profile="ros2", library="vla_policy")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def write(self, topic: str, kind: str, t: float, data: bytes) -> None:
        """A serialised message of the type `kind`, e.g. "sensor_msgs/msg/Image", received at `t` seconds."""
        if topic not in self._channels:
            if kind not in self._schemas:
                text, _ = self._types.generate_msgdef(kind, ros_version=2)
                self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[kind])
        nanoseconds = round(t * 1e9)
        self._writer.add_message(self._channels[topic], nanoseconds, data, nanoseconds)
        self.messages += 1

    def write_text(self, topic: str, text: str, t: float) -> None:
        """A `std_msgs/String`."""
        kind = "std_msgs/msg/String"
        self.write(topic, kind, t, bytes(self._types.serialize_cdr(self._types.types[kind](text), kind)))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()
        self._file.flush()

    def close(self) -> None:
        self._writer.finish()
        self._file.close()


def read_bag(path: Path, topics: Collection[str]) -> Iterator[Recorded]:
    """The messages of these topics in the order they were received; leading slashes make no difference.

    `path` is an MCAP file, which may have lost its end, or any bag that `rosbags` reads. `InputError` if it is none.
    """
    wanted = {topic.lstrip("/") for topic in topics}
    types = _typestore()
    for topic, kind, nanoseconds, data in _mcap(path) if path.suffix == ".mcap" else _any(path):
        if topic.lstrip("/") in wanted:
            yield Recorded(topic.lstrip("/"), kind, nanoseconds * 1e-9, types.deserialize_cdr(data, kind))


def bag_topics(path: Path) -> dict[str, str]:
    """Types by topic."""
    found: dict[str, str] = {}
    for topic, kind, _, _ in _mcap(path) if path.suffix == ".mcap" else _any(path):
        found.setdefault(topic, kind)
    return found


def _mcap(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    try:
        from mcap.exceptions import McapError
        from mcap.reader import NonSeekingReader
    except ImportError:
        raise InputError(f"mcap: {_WANTED}") from None
    if not path.is_file():
        raise InputError(f"{path}: expected an MCAP file, found none")
    read = 0
    with path.open("rb") as file:
        try:
            for schema, channel, message in NonSeekingReader(file).iter_messages(log_time_order=False):
                yield channel.topic, schema.name if schema else "", message.log_time, message.data
                read += 1
        except (McapError, struct.error, EOFError) as error:
            if read == 0:  # what is missing at the end was never written
                raise InputError(f"{path}: expected an MCAP file with messages, found {error}") from None


def _any(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    types = _typestore()
    from rosbags.highlevel import AnyReader, AnyReaderError

    try:
        with AnyReader([path], default_typestore=types) as reader:
            for connection, nanoseconds, data in reader.messages():
                yield connection.topic, connection.msgtype, nanoseconds, data
    except AnyReaderError as error:
        raise InputError(f"{path}: expected a ROS bag, found {error}") from None


def _typestore() -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise InputError(f"rosbags: {_WANTED}") from None
    return get_typestore(Stores.ROS2_JAZZY)
