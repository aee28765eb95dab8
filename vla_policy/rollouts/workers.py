"""Groups of environments, in this process or a spawned one, behind the same two calls: `send` and `receive`."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, Protocol

import gymnasium
import numpy as np

from vla_policy.interfaces import ActionChunk, Failure, Given, InputError, Observation, Policy
from vla_policy.rollouts.episode import EpisodeRunner
from vla_policy.rollouts.results import EpisodeResult, EpisodeSpec, Start
from vla_policy.rollouts.watch import WatchedStep
from vla_policy.runtime import predicted

EnvFactory = Callable[[], gymnasium.Env]
PolicyFactory = Callable[[int], Policy]  # episode seed -> a policy for that episode
OnResult = Callable[[Start, EpisodeResult], None]
OnWatched = Callable[[Mapping[Start, Sequence[WatchedStep]]], Collection[Start]]  # returns the episodes to halt


class RolloutError(Failure):
    """A rollout could not be finished; `finished` holds the episodes that were."""

    def __init__(self, message: str, finished: Sequence[EpisodeResult] = ()) -> None:
        super().__init__(message)
        self.finished = list(finished)


@dataclass
class Round:
    """The outcome of one round: the policy's inputs (slot -> window, and what its chunk should continue), and the
    running episodes.
    """

    windows: dict[int, list[Observation]] = field(default_factory=dict)
    given: dict[int, Given] = field(default_factory=dict)
    beginning: list[int] = field(default_factory=list)  # slots whose episode has no steps yet
    running: list[int] = field(default_factory=list)  # seeds of running episodes
    steps: int = 0  # simulated in this round, over all slots


class Group(Protocol):
    """Environments that are stepped together, in this process or one of their own."""

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        """Execute a chunk in each slot; None ends an episode that the policy refuses to start. The first call, without
        chunks, starts the first episodes.
        """

    def receive(self) -> Round:
        """Wait for the end of the round."""

    def close(self) -> None: ...


class LocalGroup:
    """Environments of this process, each a slot that takes the next start when its episode has ended.

    All slots are stepped together until each needs a chunk or has ended its episode. `on_result` is called with every
    result before the slot's next episode starts; `on_watched`, if there is a watcher, with the steps since the last
    call. With `policy_factory` every episode has its own policy, which predicts here, instead of a shared one.
    """

    def __init__(
        self,
        on_result: OnResult,
        on_watched: OnWatched,
        env_factory: EnvFactory,
        spec: EpisodeSpec,
        starts: Sequence[Start],
        num_envs: int,
        policy_factory: PolicyFactory | None,
    ) -> None:
        self._on_result, self._on_watched, self._spec = on_result, on_watched, spec
        self._starts = deque(starts)
        self._envs = [env_factory() for _ in range(min(num_envs, len(starts)))]
        for env in self._envs:
            spec.interface.require(env.get_wrapper_attr("interface"), "the policy", "the environment")
        self._episodes = [EpisodeRunner(env, spec) for env in self._envs]
        self._running: dict[int, Start] = {}  # slot -> episode
        self._windows: dict[int, list[Observation]] = {}  # inputs that wait for a chunk
        self._policy_factory = policy_factory
        self._policies: dict[int, tuple[Policy, np.random.Generator]] = {}
        self._chunks: Mapping[int, ActionChunk | None] = {}
        for slot in range(len(self._episodes)):
            self._begin(slot)
        self._watch()
        self._ask(self._running)

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        self._chunks = chunks

    def receive(self) -> Round:
        chunks = self._chunks if self._policy_factory is None else self._predict()
        ended: dict[int, EpisodeResult] = {}
        for slot, chunk in chunks.items():
            del self._windows[slot]
            if chunk is None:
                ended[slot] = self._episodes[slot].refuse()
            else:
                self._episodes[slot].answer(chunk)
        moving = [slot for slot in self._running if slot not in ended and slot not in self._windows]
        order = [*ended, *moving]
        steps = self._step(moving, ended)
        for slot in order:
            if slot in ended:
                self._on_result(self._running[slot], ended[slot])
                self._begin(slot)
        self._watch()
        self._ask(self._running)
        windows = {slot: self._windows[slot] for slot in self._running if slot in self._windows}
        return Round(
            windows if self._policy_factory is None else {},
            {slot: given for slot in windows if (given := self._episodes[slot].given) is not None},
            [slot for slot in windows if self._episodes[slot].steps == 0],
            [start.seed for start in self._running.values()],
            steps,
        )

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _step(self, moving: list[int], ended: dict[int, EpisodeResult]) -> int:
        """Step these slots until each needs a chunk or has a result in `ended`; the number of steps."""
        steps = 0
        while moving:
            for slot in moving:
                result = self._episodes[slot].step()
                if result is not None:
                    ended[slot] = result
            steps += len(moving)
            if self._spec.may_halt:
                self._watch()
            self._ask(slot for slot in moving if slot not in ended)
            moving = [slot for slot in moving if slot not in ended and slot not in self._windows]
        self._watch()
        return steps

    def _begin(self, slot: int) -> None:
        self._running.pop(slot, None)
        if not self._starts:
            return
        start = self._starts.popleft()
        self._running[slot] = start
        self._episodes[slot].start(start)
        if self._policy_factory is not None:
            self._policies[slot] = (self._policy_factory(start.seed), np.random.default_rng(start.seed))

    def _ask(self, slots: Iterable[int]) -> None:
        """Collect the inputs of those slots that need a chunk."""
        for slot in slots:
            window = self._episodes[slot].ask()
            if window is not None:
                self._windows[slot] = window

    def _predict(self) -> dict[int, ActionChunk | None]:
        chunks: dict[int, ActionChunk | None] = {}
        for slot, window in self._windows.items():
            policy, generator = self._policies[slot]
            chunks[slot] = predicted(policy, [window], [self._episodes[slot].given], generator)[0]
        return chunks

    def _watch(self) -> None:
        """Pass new steps to the watcher, and halt the episodes that it returns."""
        steps = {start: new for slot, start in self._running.items() if (new := self._episodes[slot].take_watched())}
        halted = self._on_watched(steps) if steps else ()
        for slot, start in self._running.items():
            if start in halted:
                self._episodes[slot].halt()


@dataclass(frozen=True)
class WatchedSteps:
    """A worker's message with new steps; the worker waits for the episodes to halt."""

    steps: Mapping[Start, Sequence[WatchedStep]]


class RemoteGroup:
    """A `LocalGroup` in a spawned process. Chunks and episodes to halt are sent there; windows, watched steps and
    results are sent back.
    """

    def __init__(
        self, name: str, peers: list[RemoteGroup], on_result: OnResult, on_watched: OnWatched, *arguments: Any
    ) -> None:
        """`peers` are all groups of the rollout, to which this one is added; the watcher serves each of them while the
        parent waits for another. `arguments` are those of `LocalGroup`, without its first two.
        """
        context = multiprocessing.get_context("spawn")
        self._name, self._on_result, self._on_watched = name, on_result, on_watched
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True, name=name)
        self._process.start()
        theirs.close()  # so that the death of the worker ends the stream
        self._running: list[int] = []
        self._round: Round | None = None  # read, but not returned yet
        self._peers = peers
        peers.append(self)

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        self._send(dict(chunks))

    def receive(self) -> Round:
        while self._round is None:
            ready = wait([peer._connection for peer in self._peers])
            for peer in self._peers:
                if peer._connection in ready:
                    peer._read()
        round_, self._round = self._round, None
        self._running = round_.running
        return round_

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _read(self) -> None:
        """Process the next message."""
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            self._died()
        if isinstance(message, Round):
            self._round = message
        elif isinstance(message, WatchedSteps):
            self._send(self._on_watched(message.steps))
        elif isinstance(message, tuple):
            self._on_result(*message)
        elif isinstance(message, InputError):
            raise message
        else:
            raise RolloutError(f"{self._name} failed while running seeds {self._running}:\n{message}")

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            self._died()

    def _died(self) -> NoReturn:
        self._process.join(timeout=2)
        running = f"while running seeds {self._running}" if self._running else "before its first episode"
        raise RolloutError(f"{self._name} died (exit code {self._process.exitcode}) {running}") from None


def _serve(connection: Connection, *arguments: Any) -> None:
    """The worker's main loop: for each message results as they come, then the round, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    group: LocalGroup | None = None

    def watch(steps: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        connection.send(WatchedSteps(steps))
        halted: Collection[Start] = connection.recv()
        return halted

    try:
        while True:
            chunks = connection.recv()
            group = group or LocalGroup(lambda *ended: connection.send(ended), watch, *arguments)
            group.send(chunks)
            connection.send(group.receive())
    except (EOFError, OSError):
        pass
    except InputError as error:
        connection.send(error)
    except Exception:
        connection.send(traceback.format_exc())
    finally:
        if group is not None:
            group.close()
