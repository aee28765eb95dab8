"""Recorded ROS 2 messages: MCAP files written so that a kill loses next to nothing, and any bag read again."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from mcap.writer import Writer

BATCH_SECONDS = 0.1  # between two writes of a `BagThread`
TASK, RESULT = "task", "recorder/result"  # topics with one text an episode
SUCCESS, FAILURE = "success", "failure"
RECORDINGS = "recordings.json"  # in a dataset's folder: an entry an episode, with the bag and its digest
STRING = "std_msgs/msg/String"
ROOM = 128 << 20  # bytes that may wait for the disk: two seconds of two cameras of 480 x 640 at 30 Hz
ENDS = 1 << 16  # bytes at both ends of a bag by which it is known
_MAGIC = b"\x89MCAP0\r\n"  # MCAP files begin and end with it
_WANTED = "expected rosbags and mcap to be installed (pip install rosbags mcap), found none"


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
        self.write(topic, STRING, t, bytes(self._types.serialize_cdr(self._types.types[STRING](text), STRING)))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()
        self._file.flush()

    def close(self) -> None:
        """End the file, so that even a power cut does not take it back. `OSError` if the disk is full."""
        try:
            self._writer.finish()
            self.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Leave the file without an end; what could be written can be read."""
        with suppress(OSError):
            self._file.close()


class BagThread:
    """Writes a bag in a thread of its own, so that who puts messages in never waits for the disk.

    At most `room` bytes wait to be written; messages beyond that are dropped, and `dropped` counts them by topic. Every
    tenth of a second what waits is handed to the operating system, as far as the disk keeps up. An `error`, of the disk
    or of a message that cannot be written, ends the bag.
    """

    def __init__(self, bag: BagWriter, room: int = ROOM) -> None:
        self.path, self.waiting = bag.path, 0  # bytes
        self.dropped: Counter[str] = Counter()
        self._bag, self._room = bag, room
        self.error: Exception | None = None
        self._messages: deque[tuple[str, str, float, bytes]] = deque()
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="bag", daemon=True)
        self._thread.start()

    @property
    def messages(self) -> int:
        """Written."""
        return self._bag.messages

    def put(self, topic: str, kind: str, t: float, data: bytes) -> None:
        """As `BagWriter.write`."""
        with self._lock:
            fits = self.error is None and self.waiting + len(data) <= self._room
            self.waiting += len(data) if fits else 0
        if fits:
            self._messages.append((topic, kind, t, data))
        else:
            self.dropped[topic] += 1

    def stop(self) -> BagWriter:
        """Wait until everything is written; the writer, which is the caller's then. Raises `error`, if there is one."""
        self._stopping.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._bag

    def _run(self) -> None:
        try:
            while not self._stopping.wait(BATCH_SECONDS):
                self._write()
            self._write()
        except Exception as error:  # whatever it is: nobody may take the bag for a whole one
            self.error = error
            self._bag.abandon()

    def _write(self) -> None:
        while self._messages:
            message = self._messages.popleft()
            self._bag.write(*message)
            with self._lock:
                self.waiting -= len(message[-1])
        self._bag.flush()


def read_bag(path: Path, topics: Collection[str]) -> Iterator[Recorded]:
    """The messages of these topics in the order they were received; leading slashes make no difference.

    `path` is an MCAP file, which may have lost its end, or any bag that `rosbags` reads. `InputError` if it is none, or
    a broken one.
    """
    wanted = {topic.lstrip("/") for topic in topics}
    types = _typestore()
    for topic, kind, nanoseconds, data in _messages(path):
        if topic.lstrip("/") in wanted:
            try:
                message = types.deserialize_cdr(data, kind)
            except Exception as error:  # rosbags asserts, and raises whatever numpy and struct do
                raise InputError(f"{path}: {topic}: expected a {kind}, found {_words(error)}") from None
            yield Recorded(topic.lstrip("/"), kind, nanoseconds * 1e-9, message)


def bag_topics(path: Path) -> dict[str, str]:
    """Types by topic."""
    found: dict[str, str] = {}
    for topic, kind, _, _ in _messages(path):
        found.setdefault(topic, kind)
    return found


def has_end(path: Path) -> bool:
    """Whether an MCAP file was closed; other bags always seem so."""
    if path.suffix != ".mcap":
        return True
    with path.open("rb") as file:
        file.seek(-min(len(_MAGIC), path.stat().st_size), os.SEEK_END)
        return file.read() == _MAGIC


def bag_digest(path: Path) -> str:
    """By which a bag is known wherever it lies: of its size and both of its ends, which hold the times of its messages.

    Of a bag that is a folder, of its metadata. `InputError` if it cannot be read.
    """
    try:
        with (path / "metadata.yaml" if path.is_dir() else path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(size.to_bytes(8, "little") + file.read(ENDS))
            file.seek(-min(ENDS, size), os.SEEK_END)
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"{path}: expected a bag that can be read, found {error.strerror}") from None
    return digest.hexdigest()


def read_recordings(dataset: Path) -> list[dict[str, Any]]:
    """The entries of `RECORDINGS`, none where there is no such file. The last ones may have become no episodes."""
    path = dataset / RECORDINGS
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None


def name_result(path: Path, result: str) -> Path:
    """What to call a bag that has no room for its result: a.mcap becomes a.success.mcap."""
    return path.with_suffix(f".{result}{path.suffix}")


def named_result(path: Path) -> str:
    """The result of `name_result`, "" if there is none."""
    return next((result for result in (SUCCESS, FAILURE) if path.stem.endswith(f".{result}")), "")


def _messages(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """Topic, type, nanoseconds and data."""
    try:
        yield from _mcap(path) if path.suffix == ".mcap" else _any(path)
    except InputError:
        raise
    except Exception as error:  # the readers have no word of their own for most ways to be broken
        raise InputError(f"{path}: expected a whole bag, found a broken one ({_words(error)})") from None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


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
            if read == 0:
                raise InputError(f"{path}: expected an MCAP file with messages, found {_words(error)}") from None
            if has_end(path):  # otherwise what is missing was never written
                raise InputError(f"{path}: expected a whole bag, found a broken one ({_words(error)})") from None


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
