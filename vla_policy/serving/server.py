"""The server of a policy: one process with the model, any number of robots up to `MOST_CLIENTS`."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NoReturn

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from vla_policy.interfaces import DataError, InputError, Policy
from vla_policy.runtime import predicted
from vla_policy.serving import protocol, tokens
from vla_policy.serving.observations import largest_request, to_given, to_histories
from vla_policy.serving.protocol import Message, pack, unpack
from vla_policy.serving.served import Served

MOST_CLIENTS = 16
PATIENCE = 5.0  # seconds for a client to introduce itself
QUIET = logging.getLogger(f"{__name__}.connections")  # of the library, which logs tracebacks of strangers' mistakes
QUIET.setLevel(logging.CRITICAL)


class Newest:
    """A mailbox for one message of each kind: a newer one replaces an older one that nobody has taken."""

    def __init__(self) -> None:
        self._waiting: dict[str, Message] = {}
        self._filled = asyncio.Event()

    def put(self, message: Message) -> None:
        self._waiting.pop(message.kind, None)
        self._waiting[message.kind] = message
        self._filled.set()

    async def wait(self) -> None:
        """Until there is a message."""
        await self._filled.wait()

    def take(self) -> Message:
        """The message whose kind has waited longest."""
        message = self._waiting.pop(next(iter(self._waiting)))
        if not self._waiting:
            self._filled.clear()
        return message


class PolicyServer:
    """Answers clients with chunks of `policy`, one after the other in a thread, beside which connections stay alive.

    `unreadable` says why the policy cannot follow an instruction. Clients have to know `token` unless it is None. What
    a client sends ends no other connection than its own. `report` gets a line for who comes, goes and is refused.
    """

    def __init__(
        self,
        policy: Policy,
        served: Served,
        unreadable: Callable[[str], str] = lambda _: "",
        token: str | None = None,
        report: Callable[[str], Any] = lambda _: None,
    ) -> None:
        self._policy, self._served, self._unreadable = policy, served, unreadable
        self._token, self._report = token, report
        self._thread = ThreadPoolExecutor(1, "policy")
        self._turn = asyncio.Lock()
        self._clients: set[ServerConnection] = set()

    @asynccontextmanager
    async def listening(self, host: str, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Serve on `host`, with TLS if there is a `context`; the port, one that is free if `port` is 0.

        `InputError` for other than loopback addresses without a token.
        """
        tokens.require_token(self._token, host)
        largest = largest_request(self._served.interface, self._served.n_obs_steps)
        async with serve(
            self._handle,
            host,
            port,
            ssl=context,
            origins=[None],  # no page in a browser
            process_request=self._admit,
            compression=None,  # takes longer than the loopback or a wire
            max_size=largest,
            max_queue=1,
            logger=QUIET,
        ) as server:
            yield next(iter(server.sockets)).getsockname()[1]

    def run(
        self, host: str, port: int, context: ssl.SSLContext | None = None, ready: Callable[[str], Any] = lambda _: None
    ) -> None:
        """Serve for good; `ready` gets the address."""

        async def serve_for_good() -> None:
            async with self.listening(host, port, context) as chosen:
                ready(f"{'ws' if context is None else 'wss'}://{host}:{chosen}")
                await asyncio.get_running_loop().create_future()

        asyncio.run(serve_for_good())

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Why a client is not connected, None if it is."""
        where = _address(connection)
        if self._token is not None:
            given = " ".join(request.headers.get_all("Authorization"))
            if not tokens.authorized(given, self._token):
                self._report(f"{where}: refused, expected the token, found {'another' if given else 'none'}")
                return connection.respond(HTTPStatus.UNAUTHORIZED, "expected the token of this server\n")
        if len(self._clients) >= MOST_CLIENTS:
            self._report(f"{where}: refused, there are {MOST_CLIENTS} clients already")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"expected at most {MOST_CLIENTS} clients\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        where = _address(connection)
        self._clients.add(connection)
        try:
            await self._greet(connection)
            self._report(f"{where}: connected")
            await self._answer_newest(connection)
        except InputError as error:
            self._report(f"{where}: refused, {error}")
            await connection.send(pack(protocol.ERROR, message=str(error), mistake=True))
            await connection.close(CloseCode.POLICY_VIOLATION)
        except TimeoutError:
            self._report(f"{where}: refused, it said nothing for {PATIENCE:g} s")
        except ConnectionClosed as closed:
            self._report(f"{where}: gone, {closed}")
        finally:
            self._clients.discard(connection)

    async def _greet(self, connection: ServerConnection) -> None:
        """Exchange versions and interfaces; `InputError` if they do not fit."""
        async with asyncio.timeout(PATIENCE):
            hello = unpack(await connection.recv())
        if hello.kind != protocol.HELLO:
            raise DataError(f"message: expected hello first, found {hello.kind!r:.80}")
        if hello.get("version", int) != protocol.VERSION:
            found = hello.header["version"]
            raise InputError(f"version: expected a client of protocol {protocol.VERSION}, found one of {found}")
        wanted, digest = hello.header.get("interface"), self._served.interface.digest()
        if wanted not in (None, digest):
            raise InputError(f"interface: expected {digest}, that of {self._served.name}, found {wanted!r:.80}")
        await connection.send(pack(protocol.POLICY, version=protocol.VERSION, **self._served.to_dict()))

    async def _answer_newest(self, connection: ServerConnection) -> NoReturn:
        """Answer until the connection closes; raises what ended it."""
        newest = Newest()
        reading = asyncio.create_task(_read(connection, newest))
        try:
            while True:
                waiting = asyncio.create_task(newest.wait())
                await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    waiting.cancel()
                    await reading
                async with self._turn:  # whoever waits longest is next, with what is then its newest question
                    loop = asyncio.get_running_loop()
                    answer = await loop.run_in_executor(self._thread, self._answer, newest.take())
                await connection.send(answer)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _answer(self, message: Message) -> bytes:
        """The answer to a question; in the policy's thread."""
        try:
            return self._chunks(message) if message.kind == protocol.PREDICT else self._reading(message)
        except InputError as error:
            mistake, text = True, str(error)
        except Exception as error:  # one client's question must not end what others use
            traceback.print_exc()
            mistake, text = False, f"{type(error).__name__}: {error}"
        return pack(protocol.ERROR, id=message.header.get("id"), message=" ".join(text.split()), mistake=mistake)

    def _reading(self, message: Message) -> bytes:
        unreadable = self._unreadable(message.get("instruction", str))
        return pack(protocol.READING, id=message.get("id", int), unreadable=unreadable)

    def _chunks(self, message: Message) -> bytes:
        served = self._served
        tasks = message.get("tasks", list)
        generator = np.random.default_rng()
        protocol.set_generator_state(generator, message.get("generator", dict))
        histories = to_histories(message.tensors, tasks, served.interface, served.n_obs_steps, served.n_image_steps)
        frozen = message.header.get("frozen", [])
        if not isinstance(frozen, list) or len(frozen) not in (0, len(histories)):
            raise DataError(f"message: frozen: expected {len(histories)} numbers, found {frozen!r:.80}")
        given = to_given(message.tensors, frozen, served.interface)
        chunks = predicted(self._policy, histories, given, generator)
        actions = np.stack([chunk.actions for chunk in chunks]).astype(np.float64)
        state = protocol.generator_state(generator)
        return pack(protocol.CHUNKS, {"actions": actions}, id=message.get("id", int), generator=state)


async def _read(connection: ServerConnection, newest: Newest) -> NoReturn:
    """Put what comes into the mailbox; raises `ConnectionClosed` or `DataError` at the end."""
    while True:
        message = unpack(await connection.recv())
        if message.kind not in (protocol.PREDICT, protocol.READ):
            raise DataError(f"message: expected predict or read, found {message.kind!r:.80}")
        newest.put(message)


def _address(connection: ServerConnection) -> str:
    host, port = connection.remote_address[:2]
    return f"{host}:{port}"
