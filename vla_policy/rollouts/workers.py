"""Several environments in one process, here or in a spawned one, behind the same two calls: `send` and `receive`."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

import gymnasium
import numpy as np

from vla_policy.interfaces import ActionChunk, Failure, InputError, Observation, Policy
from vla_policy.rollouts.episode import Player
from vla_policy.rollouts.results import EpisodeResult, PolicySpec, Start
from vla_policy.rollouts.watch import WatchFactory

EnvFactory = Callable[[], gymnasium.Env]
PolicyFactory = Callable[[int], Policy]  # episode seed -> a policy for that episode
OnResult = Callable[[Start, EpisodeResult], None]


class RolloutError(Failure):
    """A rollout could not be finished; `finished` holds the episodes that were."""

    def __init__(self, message: str, finished: Sequence[EpisodeResult] = ()) -> None:
        super().__init__(message)
        self.finished = list(finished)


@dataclass
class Round:
    """What came of one round: what the policy is asked (slot -> window), and what goes on."""

    windows: dict[int, list[Observation]] = field(default_factory=dict)
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

    `on_result` hears of every episode that ends, before the next one begins. With `policy_factory` every episode has a
    policy of its own, asked right here, instead of windows for a shared one.
    """

    def __init__(
        self,
        on_result: OnResult,
        env_factory: EnvFactory,
        spec: PolicySpec,
        starts: Sequence[Start],
        num_envs: int,
        policy_factory: PolicyFactory | None,
        watch_factory: WatchFactory | None = None,
    ) -> None:
        self._on_result = on_result
        self._starts = deque(starts)
        self._envs = [env_factory() for _ in range(min(num_envs, len(starts)))]
        for env in self._envs:
            spec.interface.require(env.get_wrapper_attr("interface"), "the policy", "the environment")
        self._players = [Player(env, spec, watch_factory() if watch_factory else None) for env in self._envs]
        self._playing: dict[int, Start] = {}  # slot -> episode
        self._policy_factory = policy_factory
        self._policies: dict[int, tuple[Policy, np.random.Generator]] = {}
        self._chunks: Mapping[int, ActionChunk | None] = {}
        for slot in range(len(self._players)):
            self._begin(slot)

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        self._chunks = chunks

    def receive(self) -> Round:
        played = self._chunks if self._policy_factory is None else self._ask_own_policies()
        steps = 0
        for slot, chunk in played.items():
            player = self._players[slot]
            before = player.steps
            result = player.refuse() if chunk is None else player.play(chunk)
            steps += player.steps - before
            if result is not None:
                self._on_result(self._playing[slot], result)
                self._begin(slot)
        shared = self._playing if self._policy_factory is None else {}
        windows = {slot: self._players[slot].window() for slot in shared}
        return Round(windows, [start.seed for start in self._playing.values()], steps)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _begin(self, slot: int) -> None:
        self._playing.pop(slot, None)
        if not self._starts:
            return
        start = self._starts.popleft()
        self._playing[slot] = start
        self._players[slot].start(start)
        if self._policy_factory is not None:
            self._policies[slot] = (self._policy_factory(start.seed), np.random.default_rng(start.seed))

    def _ask_own_policies(self) -> dict[int, ActionChunk | None]:
        chunks: dict[int, ActionChunk | None] = {}
        for slot in self._playing:
            policy, generator = self._policies[slot]
            chunks[slot] = policy.predict([self._players[slot].window()], generator)[0]
        return chunks


class RemoteGroup:
    """A `LocalGroup` in a spawned process. Only chunks go there, only windows and results come back."""

    def __init__(self, name: str, on_result: OnResult, *arguments: Any) -> None:
        """`arguments` are those of `LocalGroup`, without its first one."""
        context = multiprocessing.get_context("spawn")
        self._name, self._on_result = name, on_result
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True, name=name)
        self._process.start()
        theirs.close()  # so that a dead worker is seen as the end of the stream
        self._playing: list[int] = []

    def send(self, chunks: Mapping[int, ActionChunk | None]) -> None:
        try:
            self._connection.send(dict(chunks))
        except OSError:
            self._died()

    def receive(self) -> Round:
        answer = self._next()
        while isinstance(answer, tuple):
            self._on_result(*answer)
            answer = self._next()
        if isinstance(answer, InputError):
            raise answer
        if isinstance(answer, str):
            raise RolloutError(f"{self._name} failed while playing seeds {self._playing}:\n{answer}")
        self._playing = answer.playing
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _next(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._died()

    def _died(self) -> NoReturn:
        self._process.join(timeout=2)
        playing = f"while playing seeds {self._playing}" if self._playing else "before its first episode"
        raise RolloutError(f"{self._name} died (exit code {self._process.exitcode}) {playing}") from None


def _serve(connection: Connection, *arguments: Any) -> None:
    """The worker's main: for each message results as they come, then the round, until the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    group: LocalGroup | None = None
    try:
        while True:
            chunks = connection.recv()
            group = group or LocalGroup(lambda *ended: connection.send(ended), *arguments)
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
