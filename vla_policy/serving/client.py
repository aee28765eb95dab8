"""A policy that a server computes, as an `interfaces.Policy`: nothing downstream knows where its chunks come from."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.protocol import State

from vla_policy.interfaces import ActionChunk, DataError, Failure, Given, InputError, Observation, Unavailable
from vla_policy.serving import protocol, tokens
from vla_policy.serving.observations import given_tensors, to_tensors
from vla_policy.serving.protocol import Message, pack, unpack
from vla_policy.serving.served import Served

OPENING = 5.0  # seconds to connect and to get to know the policy
PING, PONG = 2.0, 8.0  # seconds between signs of life, and without one until a server counts as gone
BEST_JPEG = 95  # quality; above it files grow and pictures do not change
# How a connection ends of which one side did not understand the other, or refused to.
MISUNDERSTANDINGS = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.UNSUPPORTED_DATA,
    CloseCode.INVALID_DATA,
    CloseCode.POLICY_VIOLATION,
    CloseCode.MESSAGE_TOO_BIG,
}
T = TypeVar("T")


class RemotePolicy:
    """The policy of a `vla-serve` at `address` (ws://HOST:PORT, wss://HOST:PORT), known to clients with `token`.

    Pictures travel as they are or, with `jpeg`, a quality up to 95, compressed. The connection lives in a thread of its
    own, where a server that has died or whose computer is gone is noticed also while it is waited for; how long an
    answer may take is for the caller to judge, as of any policy. `Unavailable` is raised while there is no server; the
    next question connects anew. `InputError` for a mistake, another policy than at the first connection among them,
    `DataError` for an answer that is none.
    """

    def __init__(self, address: str, token: str | None = None, jpeg: int = 0) -> None:
        self._address, self._jpeg = _checked(address), jpeg
        if not 0 <= jpeg <= BEST_JPEG:
            raise InputError(f"jpeg: expected a quality from 1 to {BEST_JPEG}, or 0 for none, found {jpeg}")
        self._headers = {} if token is None else {"Authorization": tokens.authorization(token)}
        self._connection: ClientConnection | None = None
        self._served: Served | None = None
        self._questions = 0
        self._asking = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self.close()
            raise
        served = self.served
        self.interface = served.interface
        self.n_obs_steps, self.n_action_steps = served.n_obs_steps, served.n_action_steps
        self.reads, self.unchecked = served.reads, served.unchecked

    @property
    def served(self) -> Served:
        """What the server said of the policy at the first connection."""
        assert self._served is not None
        return self._served

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        """The chunks that the served policy predicts in its own process, the same ones for equal generators."""
        if not histories:
            return []
        if len(histories) > protocol.MOST_HISTORIES:
            raise InputError(f"server: expected at most {protocol.MOST_HISTORIES} histories, found {len(histories)}")
        for history in histories:
            if len(history) != self.n_obs_steps:
                raise InputError(f"history: expected {self.n_obs_steps} observations, found {len(history)}")
            for observation in history:
                observation.check(self.interface)
        tensors = to_tensors(histories, self.interface, self.served.n_image_steps, self._jpeg)
        tasks, state = [history[-1].task for history in histories], protocol.generator_state(generator)
        rows, frozen = given_tensors(given)
        header = {"tasks": tasks, "generator": state, **({"frozen": frozen} if rows else {})}
        answer = self._ask(protocol.CHUNKS, protocol.PREDICT, {**tensors, **rows}, **header)
        actions = self._actions(answer, len(histories))
        protocol.set_generator_state(generator, answer.get("generator", dict))
        dt = 1.0 / self.interface.fps
        return [ActionChunk(rows, history[-1].t, dt) for rows, history in zip(actions, histories, strict=True)]

    def unreadable(self, instruction: str) -> str:
        """Why an episode with this instruction must not begin; "" if the policy understands it, or does not check."""
        if not self.reads or self.unchecked:
            return ""
        return self._ask(protocol.READING, protocol.READ, instruction=instruction).get("unreadable", str)

    def close(self) -> None:
        """End the connection; a question that is being asked is `Unavailable`."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _actions(self, answer: Message, count: int) -> np.ndarray:
        """The answer's actions (B, rows, D); `DataError` unless they are whole and finite."""
        actions = answer.tensors.get("actions")
        shape = (count, self.served.rows, *self.interface.action.shape)
        found = "others that are not finite"
        if actions is None or actions.shape != shape or actions.dtype != np.float64:
            found = "none" if actions is None else f"{actions.dtype} of {actions.shape}"
        elif np.isfinite(actions).all():
            return actions
        raise DataError(f"server {self._address}: actions: expected finite float64 of {shape}, found {found}")

    def _ask(self, expected: str, kind: str, tensors: dict[str, np.ndarray] | None = None, **header: Any) -> Message:
        """The answer to a question; one is asked at a time."""
        with self._asking:
            self._questions += 1
            return self._run(self._exchange(pack(kind, tensors, id=self._questions, **header), expected))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` in the connection's thread; what goes wrong there is one of our errors."""
        place = f"server {self._address}"
        try:
            if self._loop.is_closed():
                work.close()
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError:
            raise Unavailable(f"{place}: this end is closed") from None
        except (InputError, Failure) as error:
            raise type(error)(f"{place}: {error}") from None
        except ssl.SSLError as error:
            raise InputError(f"{place}: TLS: {error}") from None
        except InvalidStatus as error:
            refused = error.response.status_code == HTTPStatus.UNAUTHORIZED
            text = (error.response.body or b"").decode(errors="replace").strip() or str(error)
            raise (InputError if refused else Unavailable)(f"{place}: {text:.200}") from None
        except ConnectionClosed as closed:
            codes = {frame.code for frame in (closed.rcvd, closed.sent) if frame is not None}
            kind = DataError if codes & MISUNDERSTANDINGS else Unavailable
            raise kind(f"{place}: the connection has ended: {closed}") from None
        except TimeoutError:
            raise Unavailable(f"{place}: no answer within {OPENING:g} s") from None
        except (OSError, WebSocketException) as error:
            raise Unavailable(f"{place}: {str(error) or type(error).__name__:.200}") from None

    async def _exchange(self, question: bytes, expected: str) -> Message:
        if self._connection is None or self._connection.state is not State.OPEN:
            await self._open()
        connection = self._connection
        assert connection is not None
        with _aborting(connection):
            await connection.send(question)
            answer = unpack(await connection.recv())
            if answer.kind != protocol.ERROR:
                _require_answer(answer, expected, self._questions)
        return _checked_for_error(answer)

    async def _open(self) -> None:
        """Connect, and learn which policy is served; after the first time it has to be the same."""
        async with asyncio.timeout(OPENING):
            connection = await connect(
                self._address,
                additional_headers=self._headers,
                proxy=None,
                compression=None,  # takes longer than the loopback or a wire
                max_size=protocol.LARGEST_ANSWER,
                ping_interval=PING,
                ping_timeout=PONG,
                close_timeout=1.0,
            )
            with _aborting(connection):
                known = None if self._served is None else self._served.interface.digest()
                await connection.send(pack(protocol.HELLO, version=protocol.VERSION, interface=known))
                served = _introduced(unpack(await connection.recv()))
                if self._served is not None and (changed := self._served.differences(served)):
                    raise InputError(f"expected the policy of before, found another: {'; '.join(changed)}")
        self._connection, self._served = connection, self._served or served

    async def _end(self) -> None:
        """Abort whatever is going on in this thread."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if self._connection is not None:
            self._connection.transport.abort()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def _aborting(connection: ClientConnection) -> Iterator[None]:
    """Leave no connection behind on which an answer may still arrive."""
    try:
        yield
    except BaseException:
        connection.transport.abort()
        raise


def _introduced(answer: Message) -> Served:
    """What a server says of its policy; `InputError` if it refuses, or speaks another version."""
    _checked_for_error(answer)
    if answer.kind != protocol.POLICY:
        raise DataError(f"expected its policy, found {answer.kind!r:.80}")
    if answer.get("version", int) != protocol.VERSION:
        found = answer.header["version"]
        raise InputError(f"version: expected a server of protocol {protocol.VERSION}, found one of {found}")
    return Served.from_dict(answer.header)


def _checked_for_error(answer: Message) -> Message:
    if answer.kind == protocol.ERROR:
        kind = InputError if answer.header.get("mistake") else Failure
        raise kind(f"{answer.header.get('message')!s:.500}")
    return answer


def _require_answer(answer: Message, expected: str, question: int) -> None:
    if (answer.kind, answer.header.get("id")) != (expected, question):
        found = f"{answer.kind} to {answer.header.get('id')!r:.20}"
        raise DataError(f"expected {expected} to question {question}, found {found}")


def _checked(address: str) -> str:
    """`InputError` unless it is ws:// or wss:// with a host and a port."""
    parts = urlsplit(address)
    try:
        whole = parts.scheme in ("ws", "wss") and parts.hostname and parts.port and "@" not in parts.netloc
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"server: expected ws://HOST:PORT or wss://HOST:PORT, found {address!r}")
    return address
