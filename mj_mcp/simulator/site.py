"""The proxy's site: which address answers what, and which pictures are served.

Owns the prefix, the addresses that every dialect has, and the pictures behind them. Knows nothing of faults, sockets,
or what tests ask.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from mj_mcp.simulator.api import PROCESSING
from mj_mcp.simulator.dialects.classic import Classic
from mj_mcp.simulator.dialects.desk import MP4, Desk, Route, Wording, answer, error
from mj_mcp.simulator.dialects.gateway import Gateway
from mj_mcp.simulator.dialects.job import Jobs
from mj_mcp.simulator.dialects.newapi import NewApi
from mj_mcp.simulator.dialects.plus import Plus
from mj_mcp.simulator.drawing import Drawing
from mj_mcp.simulator.hostile import KINDS, PictureServer
from mj_mcp.simulator.listener import Reply, Request

DialectName = Literal["gateway", "classic", "plus", "newapi", "job"]

_DIALECTS: Final[dict[DialectName, Callable[[Desk], Wording]]] = {
    "gateway": Gateway,
    "classic": Classic,
    "plus": Plus,
    "newapi": NewApi,
    "job": Jobs,
}
_HTML_404: Final = Reply(
    404, b"<!DOCTYPE html><html><body>404 page not found</body></html>", (("Content-Type", "text/html"),)
)


@dataclass(frozen=True, slots=True)
class Visit:
    """A matched request: the kinds under which a fault may be queued, the most specific first, and the ids."""

    targets: tuple[str, ...]
    names: dict[str, str]
    serve: Callable[[], Awaitable[Reply]]


class Site:
    """Answers requests correctly."""

    def __init__(self, desk: Desk, dialect: DialectName) -> None:
        self.pictures = PictureServer()
        self._desk = desk
        self._dialect = _DIALECTS[dialect](desk)
        self._pictures: tuple[Route, ...] = (
            Route("GET", re.compile(r"/pictures/(?P<task_id>[^/]+)/(?P<index>[0-9])\.png"), self._picture, "picture"),
            Route("GET", re.compile(r"/pictures/(?P<task_id>[^/]+)/(?P<index>[0-9])\.mp4"), self._video, "picture"),
            Route("GET", re.compile(r"/pictures/(?P<task_id>[^/]+)/preview\.png"), self._preview, "picture"),
            Route("GET", re.compile(r"/hostile/(?P<kind>[a-z-]+)"), self._hostile, "picture"),
        )
        if dialect == "newapi":
            relayed = Route("GET", re.compile(r"/mj/image/(?P<task_id>[^/]+)"), self._relayed, "picture")
            self._pictures = (*self._pictures, relayed)

    def find(self, request: Request) -> Visit | Reply:
        """Return the handler of this request, or the reply if there is none."""
        prefix = self._desk.settings.prefix
        if not request.path.startswith(f"{prefix}/"):
            return _HTML_404
        allowed = None
        for route in (*self._dialect.routes, *self._pictures):
            match = route.pattern.fullmatch(request.path.removeprefix(prefix))
            if match is None:
                continue
            if request.method != route.method:
                allowed = route.method
                continue
            names = {name: unquote(value) for name, value in match.groupdict().items()}
            targets = (names["endpoint"], "submit") if "endpoint" in names else (route.kind,)
            return Visit(targets, names, functools.partial(route.handler, request, **names))
        return self._dialect.elsewhere(request, allowed)

    async def _picture(self, request: Request, task_id: str, index: str) -> Reply:
        if spoiled := self._desk.spoiled(request, task_id, f"{index}.png"):
            return spoiled
        return await self._shown(request, task_id, int(index))

    async def _video(self, request: Request, task_id: str, index: str) -> Reply:
        spoiled = self._desk.spoiled(request, task_id, f"{index}.mp4")
        return spoiled or Reply(200, MP4, (("Content-Type", "video/mp4"),))

    async def _preview(self, request: Request, task_id: str) -> Reply:
        """Serve what a running job shows of itself; the address dies with the job's end."""
        self._desk.fire("preview_fetched")
        job = self._desk.proxy.jobs.get(task_id)
        if job is None or job.at(self._desk.now()).status != PROCESSING:
            return error(404, "no such picture")
        return self._desk.spoiled(request, task_id, "preview.png") or await self._shown(request, task_id, 0)

    async def _relayed(self, request: Request, task_id: str) -> Reply:
        """Serve a picture as the relay hands it on: without a key or a signature."""
        job = self._desk.proxy.jobs.get(task_id)
        if job is None:
            return answer(400, {"error": "midjourney_task_not_found"})
        if job.at(self._desk.now()).status == PROCESSING:
            self._desk.fire("preview_fetched")
        return await self._shown(request, task_id, 1 if job.images == 1 else 0)

    async def _shown(self, request: Request, task_id: str, index: int) -> Reply:
        job = self._desk.proxy.jobs.get(task_id)
        if job is None or not job.images:
            return error(404, "no such picture")
        if index and job.images > 1 and self._refuses(request):
            self._desk.fire("browsers_only")
            return error(403, "forbidden")
        kind = self._desk.kind(job, index) or "png"
        return await self.pictures.serve(kind, self._desk.proxy.drawing(job, index), self._desk.base(request))

    def _refuses(self, request: Request) -> bool:
        browser = "Mozilla" in request.headers.get("user-agent", "")
        return self._desk.habits.get("browsers_only", False) and not browser

    async def _hostile(self, request: Request, kind: str) -> Reply:
        if kind not in KINDS:
            return error(404, "no such kind")
        edge = self._desk.settings.image_edge
        drawing = Drawing(kind, "hostile", kind, kind, (edge, edge))
        return await self.pictures.serve(kind, drawing, self._desk.base(request))
