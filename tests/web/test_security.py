"""Who is sent away, what cannot be reached, and that nothing a stranger sends ends the server."""

from __future__ import annotations

import http.client
import io
import json
import logging
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.web import TOKEN, PretendedRobot, hear, live_page, say, talk, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vla_policy.interfaces import InputError
from vla_policy.web.certificate import certificate
from vla_policy.web.live import MOST_STRANGERS, Press
from vla_policy.web.messages import TYPES, parse
from vla_policy.web.robot import HELD
from vla_policy.web.security import Bucket, is_loopback, new_token, same_token
from vla_policy.web.server import Server
from vla_policy.web.welcome import tell, welcome

FUZZ = 1000


@pytest.fixture
def robot() -> PretendedRobot:
    return PretendedRobot()


@pytest.fixture
def server(robot: PretendedRobot) -> Iterator[Server]:
    with live_page(robot) as server:
        yield server


def get(server: Server, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers={"Host": f"127.0.0.1:{server.port}", **headers})
    return connection.getresponse()


def test_pages_bring_no_foreign_script(server: Server) -> None:
    answer = get(server, "/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "set-cookie" not in answer.headers
    text = answer.read().decode()
    assert "://" not in text  # everything is here
    assert "style=" not in text
    assert get(server, "/static/live.js").status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"])
def test_another_name_is_refused(server: Server, host: str) -> None:
    assert get(server, "/", Host=host).status == 403  # names can be rebound to this address
    with pytest.raises(InvalidStatus):
        talk(server, Origin=f"http://{host}")


def test_another_origin_is_refused(server: Server) -> None:
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{server.port + 1}",
        f"https://127.0.0.1:{server.port}",
    ):
        assert get(server, "/", Origin=origin).status == 403
        with pytest.raises(InvalidStatus):
            talk(server, Origin=origin)
    assert get(server, "/", Host=f"localhost:{server.port}", Origin=f"http://localhost:{server.port}").status == 200


def test_one_leads_at_a_time_and_needs_the_token(server: Server, robot: PretendedRobot) -> None:
    with talk(server) as one, talk(server) as two:
        for each in (one, two):
            say(each, "hello", token="")
            hear(each, "about")
        say(one, "enable", value=True)
        assert hear(one, "refused")["text"] == "take control first"
        say(one, "lead", token="wrong")
        assert "another token" in hear(one, "refused")["text"]
        say(one, "lead", token=TOKEN)
        wait_for(lambda: hear(one, "status")["leader"] == "you", "the lead")
        say(two, "lead", token=TOKEN)
        assert hear(two, "refused")["text"] == "somebody else leads"
        say(two, "point", u=0.5, v=0.5, t=0)
        assert hear(two, "refused")["text"] == "take control first"
        say(two, "stop")  # anybody may
        wait_for(lambda: robot.stopped, "the stop")
        one.close()
        wait_for(lambda: hear(two, "status")["leader"] == "", "the lead to be free")
        say(two, "lead", token=TOKEN)
        wait_for(lambda: hear(two, "status")["leader"] == "you", "the lead of the other")
    assert robot.calls == []
    assert [line.partition(" ")[2] for line in robot.log_lines][:3] == ["has another token", "leads", "pressed stop"]


def test_a_page_that_only_shows_lets_nobody_lead(robot: PretendedRobot) -> None:
    with live_page(robot, control=False) as server, talk(server) as one:
        say(one, "lead", token=TOKEN)
        assert "control:=true" in hear(one, "refused")["text"]
        say(one, "clear", token="")
        assert "another token" in hear(one, "refused")["text"]
        say(one, "clear", token=TOKEN)
        hear(one, "done")
    assert robot.calls == [("clear", None)]


def test_requests_are_rate_limited_and_a_stop_is_not(robot: PretendedRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_policy.web.live.COMMANDS", (0.001, 10))
    monkeypatch.setattr("vla_policy.web.live.MESSAGES", (0.001, 100))
    with live_page(robot) as server, talk(server) as one:
        say(one, "lead", token=TOKEN)
        for _ in range(30):
            say(one, "enable", value=True)
        assert hear(one, "refused")["text"] == "too many requests"
        assert len(robot.of("enable")) == 9  # and the lead
        for _ in range(2000):
            say(one, "stop")
        wait_for(lambda: robot.stopped, "the stop")
        wait_for(lambda: hear(one, "status")["stopped"], "the page to know")
        with pytest.raises(ConnectionClosed):
            all(say(one, "release") is None for _ in range(1_000_000))
    assert "is sent away: too many messages" in "\n".join(robot.log_lines)


def test_a_slow_request_does_not_delay_a_stop(robot: PretendedRobot) -> None:
    import asyncio

    class Slow(PretendedRobot):
        async def request(self, name: str, value: object) -> str:
            await asyncio.sleep(3600)
            return ""

    slow = Slow()
    with live_page(slow) as server, talk(server) as one:
        say(one, "lead", token=TOKEN)
        say(one, "enable", value=True)
        say(one, "stop")
        wait_for(lambda: slow.stopped, "the stop")


def test_messages_that_a_stall_held_up_do_not_lead() -> None:
    press = Press()
    arrivals = [(0.0, 10.0), (0.03, 10.031), (0.06, 10.05), (0.09, 11.0), (0.5, 11.0), (0.99, 11.0), (1.02, 11.03)]
    assert [press.is_late(t, now) for t, now in arrivals] == [False, False, False, True, True, False, False]
    assert not press.is_late(0.0, 99.0)  # the finger was lifted and came again
    assert press.is_late(0.1, 99.1 + 2 * HELD)


def fuzzed(rng: random.Random) -> str | bytes:
    """Random bytes, JSON of anything, and messages with something wrong."""
    junk = [None, True, -1, 0.5, 2**70, 1e308, "x" * 600, "\ud800", "\0", [], {}, [[[]]], [0.5] * 200, {"a": 1}, "stop"]
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return rng.choice(["", "{", "[" * 5000, "NaN", '{"type": Infinity}', "9" * 5000, '{"type":"stop",' * 50])
        case 2:
            return json.dumps(rng.choice(junk))
    kind = rng.choice([*TYPES, "__class__", ""])
    good = {"token": TOKEN[:-1], "camera": 0, "value": True, "u": 0.5, "v": 0.5, "t": 0, "direction": [0.5, 0.5]}
    fields = {name: rng.choice([good[name], *junk]) for name in TYPES.get(kind, good)}
    if rng.random() < 0.3:
        fields[rng.choice([*good, "extra"])] = rng.choice(junk)
    return json.dumps({"type": kind, **fields})


def test_a_thousand_messages_of_nonsense(
    server: Server, robot: PretendedRobot, caplog: pytest.LogCaptureFixture
) -> None:
    rng, sent = random.Random(0), 0
    with caplog.at_level(logging.WARNING):
        while sent < FUZZ:
            with talk(server) as one:
                if rng.random() < 0.5:
                    say(one, "lead", token=TOKEN)  # nonsense of whoever leads, too
                try:
                    for _ in range(250):
                        one.send(fuzzed(rng))
                        sent += 1
                except ConnectionClosed:
                    continue
        with talk(server) as one:
            say(one, "hello", token="")
            assert hear(one, "about")["name"] == "pretended"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    for kind, value in robot.calls:
        assert kind in TYPES
        assert kind != "push" or all(-1 <= part <= 1 for part in value)


def test_the_parser_takes_what_the_page_sends_and_nothing_else() -> None:
    assert parse('{"type": "point", "u": 0, "v": 1, "t": 0.5}') == {"type": "point", "u": 0.0, "v": 1.0, "t": 0.5}
    outside, more = '{"type": "point", "u": 0, "v": 1.1, "t": 0}', '{"type": "stop", "more": 1}'
    for text in (outside, more, '{"type": "instruct", "value": " "}', '{"type": "push"}', '{"type": []}', "", "null"):
        with pytest.raises(InputError):
            parse(text)


def some_path(rng: random.Random, parts: list[str]) -> bytes:
    """Made of these parts, or of any bytes."""
    if rng.random() < 0.6:
        return b"/" + "/".join(rng.choices(parts, k=rng.randrange(1, 9))).encode()
    return b"/" + bytes(rng.randrange(33, 256) for _ in range(rng.randrange(1, 60)))


def answers_to(server: Server, paths: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """The raw answers to requests of any method, many at once."""
    for k in range(0, len(paths), 50):
        sockets = []
        for path in paths[k : k + 50]:
            method = rng.choice([b"GET", b"GET", b"POST", b"DELETE", b"TRACE"])
            host = f"Host: 127.0.0.1:{server.port}\r\nOrigin: {server.url.rstrip('/')}\r\nConnection: close".encode()
            sockets.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            sockets[-1].sendall(method + b" " + path + b" HTTP/1.1\r\n" + host + b"\r\n\r\n")
        for each in sockets:
            with each:
                yield b"".join(iter(lambda each=each: each.recv(65536), b""))  # type: ignore[misc]


def test_a_thousand_paths_lead_nowhere(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(1)
    parts = ["..", "%2e%2e", "..%2f", "%2e%2e%5c", "static", "live.js", "etc", "passwd", "", "\\", "%00", "live", "?"]
    answers: set[bytes] = set()
    with caplog.at_level(logging.WARNING):
        for received in answers_to(server, [some_path(rng, parts) for _ in range(FUZZ)], rng):
            answers.add(received.split(b" ")[1])
            assert b"root:" not in received
            if received.split(b" ")[1] == b"200":
                assert b"javascript" in received or b"vla-web" in received
        assert get(server, "/").status == 200
    assert answers <= {b"200", b"307", b"400", b"403", b"404", b"405"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert same_token(TOKEN, TOKEN)
    for other in (TOKEN[:-1], TOKEN + "x", "", None, 5, "\ud800"):
        assert not same_token(other, TOKEN)
    assert len(new_token()) > 16
    assert new_token() != new_token()
    monkeypatch.setenv("VLA_WEB_TOKEN", "short")
    with pytest.raises(InputError, match="expected 16 characters or more, found 5"):
        new_token()


def test_rates() -> None:
    bucket = Bucket(0.001, 3)
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]


def test_loopback_addresses() -> None:
    found = {address: is_loopback(address) for address in ("127.0.0.9", "::1", "::ffff:127.0.0.1", "10.0.0.1", "a.b")}
    assert [address for address, mine in found.items() if mine] == ["127.0.0.9", "::1", "::ffff:127.0.0.1"]


def outside() -> str:
    """An address of this computer beyond the loopback."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not is_loopback(address.address):
                return str(address.address)
    pytest.skip("this computer has only its loopback address")


def test_beyond_the_loopback_all_is_encrypted_and_needs_the_token(
    robot: PretendedRobot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from websockets.sync.client import connect

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    host = outside()
    with live_page(robot, host) as server:
        assert server.url.startswith(f"https://{host}:")
        lines = list(welcome(server.url, server.fingerprint, TOKEN))
        assert lines[0] == f"open {server.url}#token={TOKEN}"
        assert lines[1].count("\n") > 10  # the QR code
        context = ssl.create_default_context(cafile=str(tmp_path / "vla_policy" / "certificate.pem"))
        address = server.url.replace("https", "wss") + "live"

        def strange() -> Any:
            return connect(address, ssl=context, origin=server.url.rstrip("/"))  # type: ignore[arg-type]

        for token, welcomed in (("", False), (TOKEN[:-1], False), (TOKEN, True)):
            with strange() as one:
                say(one, "hello", token=token)
                if welcomed:
                    assert hear(one, "about")["name"] == "pretended"
                    continue
                with pytest.raises(ConnectionClosed):
                    hear(one, "about")
        with strange() as one:
            say(one, "stop")
            with pytest.raises(ConnectionClosed):
                hear(one, "status")
        assert not robot.stopped
        monkeypatch.setattr("vla_policy.web.live.GREETING", 1.0)
        with ExitStack() as stack:
            silent = [stack.enter_context(strange()) for _ in range(MOST_STRANGERS)]
            with pytest.raises(InvalidStatus):
                stack.enter_context(strange())
            for one in silent:  # they are sent away however often they say something
                with pytest.raises(ConnectionClosed):
                    hear(one, "about")
            one = stack.enter_context(strange())
            say(one, "nonsense")
            with pytest.raises(ConnectionClosed):
                hear(one, "about")
            monkeypatch.setattr("vla_policy.web.live.MOST_SESSIONS", 2)
            pages = [stack.enter_context(strange()) for _ in range(3)]
            for one in pages[:2]:
                say(one, "hello", token=TOKEN)
                assert hear(one, "about")["name"] == "pretended"
            say(pages[2], "hello", token=TOKEN)
            with pytest.raises(ConnectionClosed, match="too many pages"):
                hear(pages[2], "about")
        with socket.create_connection((host, server.port), timeout=20) as plain:
            plain.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{server.port}\r\n\r\n".encode())
            assert b"200" not in plain.recv(100)


def test_a_certificate_is_kept_private_and_made_anew_for_other_names(tmp_path: Path) -> None:
    path, first = certificate(tmp_path, ["10.0.0.1", "arm.local"])
    assert path.stat().st_mode & 0o077 == 0
    assert certificate(tmp_path, ["arm.local", "10.0.0.1"])[1] == first
    assert certificate(tmp_path, ["10.0.0.2"])[1] != first
    path.write_text("broken")
    assert certificate(tmp_path, ["10.0.0.2"])[0] == path


def test_an_address_that_is_taken_is_named(server: Server) -> None:
    with pytest.raises(InputError, match=f"expected a free address of this computer, found 127.0.0.1:{server.port}"):
        Server(None, "127.0.0.1", server.port)  # type: ignore[arg-type]


def test_any_address_of_both_kinds(robot: PretendedRobot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if not socket.has_dualstack_ipv6():
        pytest.skip("this computer has no IPv6")
    with live_page(robot, "::") as server:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, server.port), timeout=20).close()


def test_a_log_has_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdout", io.StringIO())
    said = tell("http://127.0.0.1:5/", "", TOKEN)
    path = tmp_path / "vla_policy" / "live.txt"
    assert TOKEN not in said
    assert str(path) in said
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text() == f"open http://127.0.0.1:5/#token={TOKEN}\n"
    assert tell("http://127.0.0.1:5/", "", "") == "open http://127.0.0.1:5/"  # the user's own is not told


def test_pictures_are_no_more_than_one_behind(robot: PretendedRobot) -> None:
    robot.frames = 1000.0
    with live_page(robot) as server, talk(server) as one:
        say(one, "hello", token="")
        pictures = 0
        for _ in range(20):  # a page that never says it has drawn is sent one
            pictures += isinstance(one.recv(timeout=5), bytes)
        assert pictures == 1
        time.sleep(0.3)
        begin = time.time()
        say(one, "seen", camera=0)
        while not isinstance(one.recv(timeout=5), bytes):
            pass
        assert robot.delays == [pytest.approx(robot.delays[0])]
        say(one, "seen", camera=0)
        wait_for(lambda: len(robot.delays) == 2, "the second")
        assert robot.delays[1] < time.time() - begin + 0.05  # the newest, not the one after the first
