"""A policy and its server over a websocket: the same chunks, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.continuing import Continuing
from helpers.damage import DAMAGES, damaged
from helpers.serving import INTERFACE, ROWS, Sway, history, listening, process, served, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from vla_policy.interfaces import STATE, ActionChunk, DataError, Failure, Given, InputError, Observation, Unavailable
from vla_policy.serving import client, protocol
from vla_policy.serving.client import RemotePolicy
from vla_policy.serving.observations import to_tensors
from vla_policy.serving.protocol import generator_state, pack, unpack
from vla_policy.serving.server import MOST_CLIENTS, PolicyServer

TOKEN = "0123456789abcdef"


def predicted(policy: Any, *histories: list[Observation]) -> list[ActionChunk]:
    return policy.predict(list(histories) or [history()], np.random.default_rng(3))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def talking(stack: ExitStack, address: str) -> ClientConnection:
    """A connection of another program, which has said hello."""
    connection = stack.enter_context(connect(address, max_size=None, proxy=None))
    connection.send(pack(protocol.HELLO, version=protocol.VERSION, interface=None))
    assert unpack(connection.recv()).kind == protocol.POLICY
    return connection


def question(number: int, seen: list[Observation] | None = None) -> bytes:
    tensors = to_tensors([seen or history()], INTERFACE, 1)
    state = generator_state(np.random.default_rng(0))
    return pack(protocol.PREDICT, tensors, id=number, tasks=["push"], generator=state)


def test_chunks_are_those_of_the_policy_itself(stack: ExitStack) -> None:
    policy = Sway()
    remote = stack.enter_context(closing(RemotePolicy(stack.enter_context(serving(policy)))))
    assert (remote.interface, remote.n_obs_steps, remote.n_action_steps) == (INTERFACE, 2, 6)
    here, there = np.random.default_rng(3), np.random.default_rng(3)
    for histories in ([history(1.0)], [history(2.0, seed=1), history(3.0, seed=2)]):
        for one, other in zip(policy.predict(histories, here), remote.predict(histories, there), strict=True):
            np.testing.assert_array_equal(other.actions, one.actions)
            assert (other.t_obs, other.dt) == (one.t_obs, one.dt)
    assert here.random() == there.random()
    assert remote.predict([], here) == []
    assert remote.unreadable("push it") == ""
    assert remote.unreadable("sing") == "cannot read 'sing'"


class Continues(Continuing):
    """As `Sway`, from the rows on that it is given."""

    interface, n_obs_steps, n_action_steps, unreadable = INTERFACE, 2, 6, Sway.unreadable

    def rows(self, history: Sequence[Observation], generator: np.random.Generator) -> np.ndarray:
        return Sway().predict([history], generator)[0].actions


def test_chunks_continue_what_the_robot_does_meanwhile(stack: ExitStack) -> None:
    policy = Continues()
    remote = stack.enter_context(closing(RemotePolicy(stack.enter_context(serving(policy)))))
    rows = np.random.default_rng(0).uniform(0.1, 0.2, (5, 2))
    free, bound = remote.predict([history(1.0), history(2.0)], np.random.default_rng(0), [None, Given(rows, 3)])
    assert policy.given[0] is None
    np.testing.assert_array_equal(policy.given[1].rows, rows)
    np.testing.assert_array_equal(bound.actions[:3], rows[:3])
    assert not np.isin(rows, free.actions).any()
    remote.predict([history(1.0)], np.random.default_rng(0))
    assert policy.given[2:] == [None]


def test_mistakes_are_those_of_the_policy_itself(stack: ExitStack) -> None:
    class Broken(Sway):
        def predict(self, histories: Any, generator: Any) -> list[ActionChunk]:
            raise ZeroDivisionError("no more\nmemory")

    remote = stack.enter_context(closing(RemotePolicy(stack.enter_context(serving()))))
    blind = [Observation({STATE: seen.values[STATE]}, "push", seen.t) for seen in history()]
    with pytest.raises(DataError, match=r"images.top' is missing"):
        predicted(remote, blind)
    with pytest.raises(InputError, match="expected 2 observations, found 1"):
        predicted(remote, history()[:1])
    with pytest.raises(InputError, match="expected at most 64 histories, found 65"):
        predicted(remote, *[history()] * 65)
    failing = stack.enter_context(closing(RemotePolicy(stack.enter_context(serving(Broken())))))
    with pytest.raises(Failure, match="ZeroDivisionError: no more memory"):
        predicted(failing)
    assert predicted(remote)


def test_another_token_version_interface_or_page_is_not_let_in(stack: ExitStack) -> None:
    address = stack.enter_context(serving(token=TOKEN))
    for token in (None, "another token, too"):
        with pytest.raises(InputError, match="expected the token of this server"):
            RemotePolicy(address, token)
    stack.enter_context(closing(RemotePolicy(address, TOKEN)))
    address = stack.enter_context(serving())
    with pytest.raises(InvalidStatus), connect(address, origin="http://127.0.0.1", proxy=None):
        pass
    for hello, expected in (
        (pack(protocol.HELLO, version=2, interface=None), "expected a client of protocol 1, found one of 2"),
        (pack(protocol.HELLO, version=1, interface="beef"), "interface: expected .*, that of sway, found 'beef'"),
        (question(1), "expected hello first, found 'predict'"),
        ("hello", "found text"),
    ):
        connection = stack.enter_context(connect(address, proxy=None))
        connection.send(hello)
        with pytest.raises(AssertionError, match=expected):  # pytest's own error, whose text is searched
            raise AssertionError(unpack(connection.recv()).get("message", str))
        with pytest.raises(ConnectionClosed):
            connection.recv()


@pytest.mark.parametrize(
    "address", ["gpu:8765", "http://gpu:8765", "ws://gpu", "ws://me:secret@gpu:1", "ws://gpu:x", ""]
)
def test_an_address_has_scheme_host_and_port(address: str) -> None:
    with pytest.raises(InputError, match="server: expected ws://HOST:PORT or wss://HOST:PORT, found"):
        RemotePolicy(address)
    with pytest.raises(InputError, match="jpeg: expected a quality from 1 to 95, or 0 for none, found 96"):
        RemotePolicy("ws://gpu:8765", jpeg=96)


def test_nobody_there_is_no_mistake(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as address:
        pass
    with pytest.raises(Unavailable, match=address):
        RemotePolicy(address)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(client, "OPENING", 0.3)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(silent, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with pytest.raises(Unavailable, match=r"no answer within 0.3 s"):
        RemotePolicy(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_server_that_comes_back_is_asked_again_and_another_policy_is_refused(stack: ExitStack) -> None:
    with serving() as address:
        port = int(address.rpartition(":")[2])
        remote = stack.enter_context(closing(RemotePolicy(address)))
        before = predicted(remote)[0].actions
    with pytest.raises(Unavailable):
        predicted(remote)
    with serving(port=port):
        np.testing.assert_array_equal(predicted(remote)[0].actions, before)
    with serving(port=port, digest="4567"):
        for _ in range(2):
            with pytest.raises(
                InputError, match="expected the policy of before, found another: digest 0123 before, 4567"
            ):
                predicted(remote)
    faster = INTERFACE.__class__(INTERFACE.observations, INTERFACE.action, 20, INTERFACE.frame)
    with serving(port=port, interface=faster), pytest.raises(InputError, match=r"interface: expected .* found"):
        predicted(remote)


class Answering(PolicyServer):
    """Gives the answers that it is told to, in place of chunks."""

    answer: bytes | str = b""

    def _answer(self, message: protocol.Message) -> Any:
        return self.answer


def _chunks(actions: np.ndarray, **header: Any) -> bytes:
    state = generator_state(np.random.default_rng(0))
    return pack(protocol.CHUNKS, {"actions": actions}, **{"id": 1, "generator": state, **header})


HALF = np.zeros((1, ROWS, 2))
HALF[0, 3, 1] = np.nan


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"\x07garbage", "expected a safetensors file"),
        ("chunks", "found text"),
        (_chunks(np.zeros((1, ROWS, 2)))[:-3], "expected a safetensors file"),
        (_chunks(HALF), "expected finite float64 .* found others that are not finite"),
        (_chunks(np.zeros((1, ROWS, 3))), r"found float64 of \(1, 15, 3\)"),
        (_chunks(np.zeros((2, ROWS, 2))), r"found float64 of \(2, 15, 2\)"),
        (_chunks(np.zeros((1, ROWS, 2), np.float32)), "found float32"),
        (pack(protocol.CHUNKS, id=1), "found none"),
        (_chunks(np.zeros((1, ROWS, 2)), id=9), "expected chunks to question 1, found chunks to 9"),
        (_chunks(np.zeros((1, ROWS, 2)), generator={"bit_generator": "PCG64"}), "expected the state of a PCG64"),
        (pack(protocol.READING, id=1, unreadable=""), "expected chunks to question 1, found reading"),
        (_chunks(np.zeros((1, 1 << 21, 2))), "connection has ended"),
    ],
    ids=[
        *("bytes", "text", "truncated", "NaN", "channels", "count", "type", "nothing", "number", "generator", "kind"),
        "too large",
    ],
)
def test_what_is_no_answer_is_an_error(stack: ExitStack, answer: bytes | str, expected: str) -> None:
    server = Answering(Sway(), served(Sway()))
    remote = stack.enter_context(closing(RemotePolicy(stack.enter_context(listening(server)))))
    server.answer = answer
    generator = np.random.default_rng(3)
    with pytest.raises(DataError, match=expected):
        remote.predict([history()], generator)
    assert generator.random() == np.random.default_rng(3).random()
    server.answer = _chunks(np.ones((1, ROWS, 2)), id=2)
    assert (predicted(remote)[0].actions == 1).all()  # the next answer is not that of the last question


class Patient(Sway):
    """Answers once it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.allowed = threading.Semaphore(0), threading.Semaphore(0)

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.begun.release()
        assert self.allowed.acquire(timeout=30)
        return super().predict(histories, generator)


def test_the_newest_observation_wins_and_nothing_piles_up(stack: ExitStack) -> None:
    policy = Patient()
    connection = talking(stack, stack.enter_context(serving(policy)))
    connection.send(question(1, history(1.0)))
    assert policy.begun.acquire(timeout=30)
    for number in range(2, 30):
        connection.send(question(number, history(float(number))))
    connection.send(pack(protocol.READ, id=99, instruction="push"))  # of another kind: not replaced, and after them all
    connection.ping().wait(30)
    connection.send(question(30, history(30.0)))
    connection.ping().wait(30)
    for _ in range(30):
        policy.allowed.release()
    assert [unpack(connection.recv(30)).get("id", int) for _ in range(3)] == [1, 99, 30]
    assert [asked[0][0].t for asked in policy.asked] == [1.0, 30.0]


def test_two_robots_take_turns(stack: ExitStack) -> None:
    address = stack.enter_context(serving())
    remotes = [stack.enter_context(closing(RemotePolicy(address))) for _ in range(2)]
    pool = stack.enter_context(ThreadPoolExecutor(2))
    for remote, t in [(remote, float(t)) for t in range(10) for remote in remotes]:
        pool.submit(predicted, remote, history(t)).add_done_callback(Future.result)
    for remote in remotes:
        assert predicted(remote, history(7.0))[0].t_obs == pytest.approx(7.1)


def test_one_client_too_many_waits_outside(stack: ExitStack) -> None:
    address = stack.enter_context(serving())
    for _ in range(MOST_CLIENTS):
        talking(stack, address)
    with pytest.raises(Unavailable, match="expected at most 16 clients"):
        RemotePolicy(address)


def test_closing_ends_a_question_that_waits(stack: ExitStack) -> None:
    policy = Patient()
    address = stack.enter_context(serving(policy))
    stack.callback(policy.allowed.release)
    remote = RemotePolicy(address)
    waiting = stack.enter_context(ThreadPoolExecutor(1)).submit(predicted, remote)
    assert policy.begun.acquire(timeout=30)
    remote.close()
    with pytest.raises(Unavailable):
        waiting.result(30)
    with pytest.raises(Unavailable, match="closed"):
        predicted(remote)
    remote.close()


def test_an_oversized_message_and_five_hundred_fuzzed_ones_end_their_own_connection_alone(stack: ExitStack) -> None:
    address = stack.enter_context(serving())
    remote = stack.enter_context(closing(RemotePolicy(address)))
    connection = talking(stack, address)
    connection.send(b"\0" * (20 << 20))
    with pytest.raises(ConnectionClosed, match="message too big"):
        connection.recv(30)
    pick, connections = random.Random(0), 0
    for number in range(500):
        if number == 0 or connection.state.name != "OPEN":
            connection, connections = talking(stack, address), connections + 1
        data = question(number)
        data = pick.choice([data, pack(protocol.READ, id=number, instruction="push")])
        fuzzed = damaged(data, pick.choice(DAMAGES), pick.randrange(min(len(data), 1200)), pick)
        with suppress(ConnectionClosed):  # but an answer or an end within time
            connection.send(fuzzed)
            connection.recv(30)
    assert connections > 10
    assert predicted(remote)


@pytest.mark.slow
def test_a_killed_and_a_stalled_server_are_unavailable_until_they_are_back(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setattr(client, "PING", 0.2)
    monkeypatch.setattr(client, "PONG", 3.0)
    server = stack.enter_context(process(tmp_path / "log"))
    remote = stack.enter_context(closing(RemotePolicy(f"ws://127.0.0.1:{server.port}")))
    chunk = predicted(remote)[0].actions
    server.process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="keepalive ping timeout"):
        predicted(remote)
    assert time.monotonic() - begin > 1.0  # it was given time
    server.process.send_signal(signal.SIGCONT)
    np.testing.assert_array_equal(predicted(remote)[0].actions, chunk)
    waiting = stack.enter_context(ThreadPoolExecutor(1))
    server.process.send_signal(signal.SIGSTOP)
    question = waiting.submit(predicted, remote)
    server.process.kill()
    with pytest.raises(Unavailable):
        question.result(30)
    server.process.wait()
    with pytest.raises(Unavailable, match="Connect call failed"):
        predicted(remote)
    server.start()
    np.testing.assert_array_equal(predicted(remote)[0].actions, chunk)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_with_a_certificate_nobody_else_can_read_it(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    address = stack.enter_context(listening(PolicyServer(Sway(), served(Sway()), token=TOKEN), 0, context))
    assert address.startswith("wss://")
    with pytest.raises(InputError, match=r"TLS: .*certificate verify failed"):
        RemotePolicy(address, TOKEN)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert predicted(stack.enter_context(closing(RemotePolicy(address, TOKEN))))
    with pytest.raises(Unavailable):
        RemotePolicy(address.replace("wss", "ws"), TOKEN)
    plain = stack.enter_context(serving())
    with pytest.raises((InputError, Unavailable), match=plain.replace("ws", "wss")):  # as the server ends it
        RemotePolicy(plain.replace("ws", "wss"))
