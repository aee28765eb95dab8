"""Several environments in one process, here or in a spawned one, behind the same two calls: `send` and `receive`."""

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

from vla_policy.interfaces import ActionChunk, Failure, InputError, Observation, Policy
from vla_policy.rollouts.episode import Player
from vla_policy.rollouts.results import EpisodeResult, EpisodeSpec, Start
from vla_policy.rollouts.watch import Seen

EnvFactory = Callable[[], gymnasium.Env]
PolicyFactory = Callable[[int], Policy]  # episode seed -> a policy for that episode
OnResult = Callable[[Start, EpisodeResult], None]
OnSeen = Callable[[Mapping[Start, Sequence[Seen]]], Collection[Start]]  # answers with the episodes to halt


class RolloutError(Failure):
    """A rollout could not be finished; `finished` holds the episodes that were."""

    def __init__(self, message: str, finished: Sequence[EpisodeResult] = ()) -> None:
        super().__init__(message)
        self.finished = list(finished)


@dataclass
class Round:
    """What came of one round: what the policy is asked (slot -> window), and what goes on."""

    windows: dict[int, list[Observation]] = field(default_factory=dict)
    beginning: list[int] = field(default_factory=list)  # slots whose episode has no steps yet
    playing: list[int] = field(default_factory=list)  # seeds of running episodes
    steps: int = 0  # simulated in this round, over all slots


class Group(Protocol):
    """Environments that play their episodes together, here or in a process of their own."""

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        """Let every slot play its chunk, or end an episode that the policy refuses to begin (None); the first call,
        without chunks, begins the first episodes.
        """

    def receive(self) -> Round:
        """Wait for the round to end."""

    def close(self) -> None: ...


class LocalGroup:
    """Environments of this process, each a slot that takes the next start when its episode is over.

    All slots are stepped together until each wants a chunk or has ended its episode. `on_result` is called with every
    episode that ends, before the next one begins; `on_seen`, if there is a watcher, with what was seen meanwhile. With
    `policy_factory` every episode has a policy of its own, asked right here, instead of windows for a shared one.
    """

    def __init__(
        self,
        on_result: OnResult,
        on_seen: OnSeen,
        env_factory: EnvFactory,
        spec: EpisodeSpec,
        starts: Sequence[Start],
        num_envs: int,
        policy_factory: PolicyFactory | None,
    ) -> None:
        self._on_result, self._on_seen, self._spec = on_result, on_seen, spec
        self._starts = deque(starts)
        self._envs = [env_factory() for _ in range(min(num_envs, len(starts)))]
        for env in self._envs:
            spec.interface.require(env.get_wrapper_attr("interface"), "the policy", "the environment")
        self._players = [Player(env, spec) for env in self._envs]
        self._playing: dict[int, Start] = {}  # slot -> episode
        self._windows: dict[int, list[Observation]] = {}  # that the policy is asked about
        self._policy_factory = policy_factory
        self._policies: dict[int, tuple[Policy, np.random.Generator]] = {}
        self._chunks: Mapping[int, ActionChunk | None] = {}
        for slot in range(len(self._players)):
            self._begin(slot)
        self._show()
        self._ask(self._playing)

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        self._chunks = chunks

    def receive(self) -> Round:
        answers = self._chunks if self._policy_factory is None else self._own_answers()
        ended: dict[int, EpisodeResult] = {}
        for slot, chunk in answers.items():
            del self._windows[slot]
            if chunk is None:
                ended[slot] = self._players[slot].refuse()
            else:
                self._players[slot].answer(chunk)
        moving = [slot for slot in self._playing if slot not in ended and slot not in self._windows]
        order = [*ended, *moving]
        steps = self._play(moving, ended)
        for slot in order:
            if slot in ended:
                self._on_result(self._playing[slot], ended[slot])
                self._begin(slot)
        self._show()
        self._ask(self._playing)
        windows = {slot: self._windows[slot] for slot in self._playing if slot in self._windows}
        return Round(
            windows if self._policy_factory is None else {},
            [slot for slot in windows if self._players[slot].steps == 0],
            [start.seed for start in self._playing.values()],
            steps,
        )

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _play(self, moving: list[int], ended: dict[int, EpisodeResult]) -> int:
        """Step these slots until each wants a chunk or has ended, which is entered in `ended`; the number of steps."""
        steps = 0
        while moving:
            for slot in moving:
                result = self._players[slot].step()
                if result is not None:
                    ended[slot] = result
            steps += len(moving)
            if self._spec.may_halt:
                self._show()
            self._ask(slot for slot in moving if slot not in ended)
            moving = [slot for slot in moving if slot not in ended and slot not in self._windows]
        self._show()
        return steps

    def _begin(self, slot: int) -> None:
        self._playing.pop(slot, None)
        if not self._starts:
            return
        start = self._starts.popleft()
        self._playing[slot] = start
        self._players[slot].start(start)
        if self._policy_factory is not None:
            self._policies[slot] = (self._policy_factory(start.seed), np.random.default_rng(start.seed))

    def _ask(self, slots: Iterable[int]) -> None:
        """Note the windows of those slots that want a chunk."""
        for slot in slots:
            window = self._players[slot].ask()
            if window is not None:
                self._windows[slot] = window

    def _own_answers(self) -> dict[int, ActionChunk | None]:
        chunks: dict[int, ActionChunk | None] = {}
        for slot, window in self._windows.items():
            policy, generator = self._policies[slot]
            chunks[slot] = policy.predict([window], generator)[0]
        return chunks

    def _show(self) -> None:
        """Let the watcher see what it has not seen yet, and halt whom it names."""
        seen = {start: new for slot, start in self._playing.items() if (new := self._players[slot].take_seen())}
        halted = self._on_seen(seen) if seen else ()
        for slot, start in self._playing.items():
            if start in halted:
                self._players[slot].halt()


@dataclass(frozen=True)
class Shown:
    """A worker's message: what was newly seen. It waits for the episodes to halt."""

    seen: Mapping[Start, Sequence[Seen]]


class RemoteGroup:
    """A `LocalGroup` in a spawned process. Chunks and episodes to halt go there; windows, what a watcher looks at and
    results come back.
    """

    def __init__(
        self, name: str, peers: list[RemoteGroup], on_result: OnResult, on_seen: OnSeen, *arguments: Any
    ) -> None:
        """`peers` are all groups of the rollout, to which this one is added: none of them waits for its watcher while
        another is received from. `arguments` are those of `LocalGroup`, without its first two.
        """
        context = multiprocessing.get_context("spawn")
        self._name, self._on_result, self._on_seen = name, on_result, on_seen
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True, name=name)
        self._process.start()
        theirs.close()  # so that a dead worker is seen as the end of the stream
        self._playing: list[int] = []
        self._round: Round | None = None  # that nobody has asked for yet
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
        self._playing = round_.playing
        return round_

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _read(self) -> None:
        """Deal with the next message."""
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            self._died()
        if isinstance(message, Round):
            self._round = message
        elif isinstance(message, Shown):
            self._send(self._on_seen(message.seen))
        elif isinstance(message, tuple):
            self._on_result(*message)
        elif isinstance(message, InputError):
            raise message
        else:
            raise RolloutError(f"{self._name} failed while playing seeds {self._playing}:\n{message}")

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            self._died()

    def _died(self) -> NoReturn:
        self._process.join(timeout=2)
        playing = f"while playing seeds {self._playing}" if self._playing else "before its first episode"
        raise RolloutError(f"{self._name} died (exit code {self._process.exitcode}) {playing}") from None


def _serve(connection: Connection, *arguments: Any) -> None:
    """The worker's main: for each message results as they come, then the round, until the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    group: LocalGroup | None = None

    def show(seen: Mapping[Start, Sequence[Seen]]) -> Collection[Start]:
        connection.send(Shown(seen))
        halted: Collection[Start] = connection.recv()
        return halted

    try:
        while True:
            chunks = connection.recv()
            group = group or LocalGroup(lambda *ended: connection.send(ended), show, *arguments)
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
