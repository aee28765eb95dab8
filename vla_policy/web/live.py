"""The live page: pictures, state and commands over one websocket, and whoever leads."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla_policy.interfaces import InputError, Refused
from vla_policy.web.messages import HAND, parse
from vla_policy.web.pages import page, static
from vla_policy.web.robot import HELD, Robot
from vla_policy.web.security import Bucket, from_loopback, same_token

STATUS_PERIOD = 0.066  # seconds between two states
MOST_SESSIONS = 16
MOST_STRANGERS = 4  # of one address that have not brought the token yet
GREETING = 5.0  # seconds that a page of the network has to bring it
MESSAGES = (200.0, 400.0)  # a second, and at once: two cameras at 30 Hz, a finger at 30 Hz and some
COMMANDS = (5.0, 10.0)  # of the requests that are logged
FOREIGN = 1008  # a websocket's close code for what is not allowed
STOP, POINT = "stop", "point"


class Live:
    """The application of the live page. `control` allows whoever has the `token` to lead, one at a time.

    Beyond the loopback address the token is needed to see anything. The stop needs no more than that; to clear
    it the token is needed, but not the lead.
    """

    def __init__(self, robot: Robot, token: str, control: bool) -> None:
        self.robot, self.token, self.control = robot, token, control
        self.leader: Session | None = None
        self.sessions: set[Session] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.app = Starlette(routes=[page("/", "live.html"), static(), WebSocketRoute("/live", self._serve)])

    @property
    def is_full(self) -> bool:
        return sum(session.known for session in self.sessions) >= MOST_SESSIONS

    def wake(self) -> None:
        """There is a new picture; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # closed meanwhile
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for session in self.sessions:
            session.news.set()

    async def _serve(self, websocket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        session = Session(self, websocket)
        strangers = [each for each in self.sessions if not each.known and each.host == session.host]
        if len(strangers) >= MOST_STRANGERS:
            await websocket.close(FOREIGN, "too many pages without the token")
            return
        self.sessions.add(session)
        try:
            await websocket.accept()
            await session.run()
        finally:
            self.sessions.discard(session)
            session.leave()


class Session:
    """One open page."""

    def __init__(self, live: Live, websocket: WebSocket) -> None:
        self._live, self._socket, self._robot = live, websocket, live.robot
        client = websocket.client
        self.host = client.host if client else ""
        self._peer = f"{client.host}:{client.port}" if client else "?"
        self.known = from_loopback(websocket.scope)  # or has brought the token
        self._messages, self._commands = Bucket(*MESSAGES), Bucket(*COMMANDS)
        self._press = Press()
        self._hand = ""  # how this page leads at the moment
        self._cameras = range(len(self._robot.about()["cameras"]))
        self._sent: dict[int, int] = {}  # the serial of the last picture, by camera
        self._drawing: dict[int, float] = {}  # the stamp of the picture that the page has not drawn yet
        self._outbox: deque[str] = deque()
        self._requests: set[asyncio.Task[None]] = set()
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Until the page is gone, or is sent away."""
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        receiving.cancel()
        for ended in await asyncio.gather(sending, receiving, return_exceptions=True):
            if isinstance(ended, str) and ended:
                self._robot.log(f"{self._peer} is sent away: {ended}")
                with suppress(RuntimeError):  # it went by itself meanwhile
                    await self._socket.close(FOREIGN, ended)
            elif isinstance(ended, Exception) and not isinstance(ended, WebSocketDisconnect | OSError):
                raise ended

    def leave(self) -> None:
        """Let go, and let others lead."""
        if self._live.leader is self:
            self._robot.let_go()
            self._live.leader, self._hand = None, ""
            self._robot.log(f"{self._peer} no longer leads")

    async def _receive(self) -> str:
        """Why the page is sent away, "" if it has gone by itself."""
        latest = time.monotonic() + GREETING
        while True:
            try:
                left = None if self.known else latest - time.monotonic()
                received = await asyncio.wait_for(self._socket.receive(), left)
            except TimeoutError:
                return "no token"
            if received["type"] != "websocket.receive":
                return ""
            if reason := self._take(received.get("text")):
                return reason

    def _take(self, text: str | None) -> str:
        """Handle a message. Returns why the page has to go, "" if it may stay."""
        allowed = self._messages.take()
        try:
            message = parse(text)
            if message["type"] == STOP and self.known:  # before anything else, and however many there were
                self._stop()
                return ""
            if allowed:
                self._handle(message)
        except PermissionError as error:
            return str(error)
        except (InputError, Refused) as error:
            if not self.known:
                return "the token comes first"
            if allowed:
                self._say("refused", text=str(error))
        return "" if allowed else "too many messages"

    def _stop(self) -> None:
        if self._robot.stop():
            self._robot.log(f"{self._peer} pressed stop")

    def _handle(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "hello":
            self._greet(message["token"])
            self._say("about", **self._robot.about())
        elif not self.known:
            raise PermissionError("the token comes first")
        elif kind == "seen":
            stamp = self._drawing.pop(message["camera"], None)
            if stamp is not None:
                self._robot.drawn(stamp)
                self.news.set()
        elif kind == "lead":
            self._lead(message["token"])
        elif kind == "leave":
            self.leave()
        elif kind == "clear":
            self._require_token(message["token"])
            self._begin(kind, None)
        elif self._live.leader is not self:
            raise Refused("take control first")
        elif kind in HAND:
            self._move(message)
        else:
            self._require_moderation()
            self._begin(kind, message.get("value"))

    def _greet(self, token: str) -> None:
        if self.known:
            return
        if not same_token(token, self._live.token):
            raise PermissionError("another token")
        if self._live.is_full:
            raise PermissionError("too many pages")
        self.known = True

    def _require_moderation(self) -> None:
        if not self._commands.take():
            raise Refused("too many requests")

    def _require_token(self, token: str) -> None:
        self._require_moderation()
        if not same_token(token, self._live.token):
            self._robot.log(f"{self._peer} has another token")
            raise Refused("another token: open the address that the terminal shows")

    def _lead(self, token: str) -> None:
        if not self._live.control:
            raise Refused("this page only shows: start it with control:=true")
        self._require_token(token)
        if self._live.leader not in (None, self):
            raise Refused("somebody else leads")
        if self._live.leader is None:
            self._robot.log(f"{self._peer} leads")
        self._live.leader = self

    def _move(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "release":
            self._robot.let_go()
            self._note("")
        elif self._press.is_late(message["t"], time.monotonic()):
            self._robot.let_go()
        elif kind == POINT:
            self._robot.point(message["u"], message["v"])
            self._note(kind)
        else:
            self._robot.push(np.array(message["direction"]))
            self._note(kind)

    def _note(self, hand: str) -> None:
        """Log when a hand begins and ends."""
        if hand != self._hand:
            self._hand = hand
            self._robot.log(f"{self._peer} {f'leads by hand ({hand})' if hand else 'lets go'}")

    def _begin(self, name: str, value: Any) -> None:
        """Carry out a request; a stop must not wait for it."""
        task = asyncio.create_task(self._request(name, value))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _request(self, name: str, value: Any) -> None:
        what = name if value is None else f"{name} {value!r}"
        try:
            answer = await self._robot.request(name, value)
        except Refused as error:
            self._robot.log(f"{self._peer} asked for {what}: refused, {error}")
            self._say("refused", text=str(error))
        else:
            self._robot.log(f"{self._peer} asked for {what}: {answer or 'done'}")
            self._say("done", text=answer)

    async def _send(self) -> None:
        """A new state every now and then, and the newest picture of each camera once the page has drawn the last."""
        due = 0.0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), STATUS_PERIOD)
            self.news.clear()
            while self._outbox:
                await self._socket.send_text(self._outbox.popleft())
            if not self.known:
                continue
            for camera in self._cameras:
                if camera not in self._drawing:
                    await self._send_picture(camera)
            if time.monotonic() >= due:
                due = time.monotonic() + STATUS_PERIOD
                leader = self._live.leader
                leads = "" if leader is None else "you" if leader is self else "somebody"
                await self._socket.send_text(_json("status", **self._robot.status(), leader=leads))

    async def _send_picture(self, camera: int) -> None:
        picture = await asyncio.to_thread(self._robot.picture, camera, self._sent.get(camera, -1))
        if picture is not None:
            self._sent[camera], self._drawing[camera] = picture.serial, picture.stamp
            await self._socket.send_bytes(struct.pack("<B", camera) + picture.jpeg)

    def _say(self, kind: str, **values: Any) -> None:
        self._outbox.append(_json(kind, **values))
        self.news.set()


def _json(kind: str, **values: Any) -> str:
    return json.dumps({"type": kind, **values}, allow_nan=False)


class Press:
    """Tells which messages of a held finger or key were on the way for too long, after a stall of the network.

    The quickest message since it went down is the measure: the clocks of the two computers are not compared.
    """

    def __init__(self) -> None:
        self._least = math.inf

    def is_late(self, t: float, now: float) -> bool:
        """Whether a message sent `t` seconds after the finger went down, 0 for the first, arrives too late."""
        delay = now - t
        self._least = delay if t == 0 else min(self._least, delay)
        return delay - self._least > HELD
