"""The files of the pages, which are part of the package."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "static"


def page(path: str, name: str) -> Route:
    """A route to one of the pages."""

    async def answer(_request: Request) -> FileResponse:
        return FileResponse(FOLDER / name)

    return Route(path, answer)


def static() -> Mount:
    """Scripts and styles."""
    return Mount("/static", StaticFiles(directory=FOLDER))
