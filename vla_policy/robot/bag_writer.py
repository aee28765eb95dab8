"""Crash-safe recording of ROS 2 messages in MCAP files."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vla_policy.robot.bags import STRING, typestore

if TYPE_CHECKING:
    from mcap.writer import Writer

BATCH_SECONDS = 0.1  # between two writes of a `BagThread`
QUEUE_BYTES = 128 << 20  # two seconds of two cameras of 480 x 640 at 30 Hz


class BagWriter:
    """Writes serialised messages to one MCAP file, unchunked, so that flushed data survives a kill."""

    def __init__(self, path: Path) -> None:
        self._types = typestore()
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
        """Pass all data to the operating system."""
        self._writer.flush()
        self._file.flush()

    def close(self) -> None:
        """Finish and fsync the file. `OSError` if the disk is full."""
        try:
            self._writer.finish()
            self.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file without a footer; it is readable up to what was written."""
        with suppress(OSError):
            self._file.close()


class BagThread:
    """Writes a bag in its own thread, so that `put` never blocks on the disk.

    The queue holds at most `room` bytes; messages beyond that are dropped and counted by topic in `dropped`. The queue
    is written and flushed every `BATCH_SECONDS`. An `error`, of the disk or of a message that cannot be written, ends
    the bag.
    """

    def __init__(self, bag: BagWriter, room: int = QUEUE_BYTES) -> None:
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
        """Messages written so far."""
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
        """Wait until everything is written and hand the writer to the caller. Raises `error`, if there is one."""
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
        except Exception as error:  # any error: the bag must not count as complete
            self.error = error
            self._bag.abandon()

    def _write(self) -> None:
        while self._messages:
            message = self._messages.popleft()
            self._bag.write(*message)
            with self._lock:
                self.waiting -= len(message[-1])
        self._bag.flush()
