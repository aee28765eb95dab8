"""The page of a dataset: its episodes as a table, a player, and changes that are made when they are saved."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.files import finite
from vla_policy.web import edits
from vla_policy.web.edits import Editing
from vla_policy.web.episodes import Episodes
from vla_policy.web.pages import page, static
from vla_policy.web.security import Bucket, from_loopback, same_token

LARGEST_BODY = 1 << 20  # bytes
CHANGES = (2.0, 5.0)  # a second, and at once


class Outdated(InputError):
    """The dataset is no longer the one that the page shows: its numbers may mean other episodes."""


Answer = Callable[[Request], Awaitable[Response]]


class DataPage:
    """The application of the page of the dataset at `root`.

    Whoever changes something needs the `token`; beyond the loopback address it is needed to see anything. Without
    `editing` the page only shows.
    """

    def __init__(self, root: Path, token: str, editing: Editing | None, log: Callable[[str], None]) -> None:
        self.episodes = Episodes(root)
        self._token, self._editing, self._log = token, editing, log
        self._changes, self._changing = Bucket(*CHANGES), threading.Lock()
        self.app = Starlette(
            routes=[
                page("/", "data.html"),
                static(),
                Route("/api/dataset", self._shown(self._dataset)),
                Route("/api/tasks", self._shown(lambda _: self.episodes.tasks())),
                Route("/api/warnings", self._shown(lambda _: {"warnings": self.episodes.warnings})),
                Route("/api/episodes/{index:int}", self._shown(lambda r: self.episodes.series(r.path_params["index"]))),
                Route("/api/episodes/{index:int}/thumbnail", self._shown(self._thumbnail)),
                Route("/api/episodes/{index:int}/frames/{camera:int}", self._shown(self._frames)),
                Route("/api/{change:str}", self._change, methods=["POST"]),
            ]
        )

    def close(self) -> None:
        """No change begins any longer; waits for the one that is being made."""
        if not self._changing.acquire(blocking=False):
            self._log("waiting for the change that is being made")
            self._changing.acquire()

    def _shown(self, read: Callable[[Request], Any]) -> Answer:
        """An endpoint that reads; it runs in a thread of its own."""

        async def answer(request: Request) -> Response:
            if not (from_loopback(request.scope) or self._has_token(request)):
                return JSONResponse({"error": "the token is needed: open the address that the terminal shows"}, 401)
            try:
                found = await run_in_threadpool(read, request)
            except (InputError, OSError) as error:
                return JSONResponse({"error": str(error)}, 404)
            return found if isinstance(found, Response) else JSONResponse(finite(found))

        return answer

    def _has_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and same_token(token, self._token)

    def _dataset(self, _request: Request) -> dict[str, Any]:
        editable = self._editing is not None
        return {**self.episodes.summary(), "editable": editable, "neighbours": edits.neighbours(self.episodes.root)}

    def _thumbnail(self, request: Request) -> Response:
        return Response(self.episodes.thumbnail(request.path_params["index"]), media_type="image/jpeg")

    def _frames(self, request: Request) -> Response:
        frames = self.episodes.frames(request.path_params["index"], request.path_params["camera"])
        return StreamingResponse(frames, media_type="application/octet-stream")

    async def _change(self, request: Request) -> Response:
        if not self._has_token(request):
            return JSONResponse({"error": "the token is needed: open the address that the terminal shows"}, 401)
        if not self._changes.take():
            return JSONResponse({"error": "too many requests"}, 429)
        name, body = request.path_params["change"], b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return JSONResponse({"error": "too large"}, 413)
        try:
            text = await run_in_threadpool(self._make, name, body)
        except (InputError, Failure, OSError) as error:
            self._log(f"{name}: refused, {error}")
            return JSONResponse({"error": str(error)}, 409 if isinstance(error, Outdated) else 400)
        self._log(f"{name}: {text}")
        return JSONResponse({"text": text})

    def _make(self, name: str, body: bytes) -> str:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise InputError(f"{name}: expected JSON") from None
        if self._editing is None:
            raise InputError("this installation cannot edit datasets")
        if not isinstance(data, dict):
            raise InputError(f"{name}: expected an object")
        with self._changing:
            return self._carry_out(self._editing, name, data)

    def _carry_out(self, editing: Editing, name: str, data: dict[str, Any]) -> str:
        root = self.episodes.root
        match name:
            case "save":
                shown = data.pop("revision", None)
                changes = edits.Edits.from_json(data)
                text = edits.save(editing, root, changes, lambda: self._require_shown(shown))
                self.episodes.reload()
                return text
            case "split":
                self._require_shown(data.get("revision"))
                return edits.split(editing, root, edits.folder(data.get("name")), edits.indices(data.get("episodes")))
            case "merge":
                return edits.merge(editing, root, edits.sentence(data.get("other")), edits.folder(data.get("name")))
        raise InputError(f"expected save, split or merge, found {name!r}")

    def _require_shown(self, revision: Any) -> None:
        """`Outdated` unless this is the dataset's revision, that of what the page shows."""
        if revision != (found := self.episodes.found_revision()):
            if found != self.episodes.revision:  # changed by another program
                self.episodes.reload()
            raise Outdated("the dataset was changed meanwhile: reload the page")
