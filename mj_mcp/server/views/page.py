"""The view as a page of this machine: `mj-mcp browse`. The page is a host of the view, written by us.

Owns the routes, who may use them, and the answers to the view's calls where no key is configured. Whoever opens the
link first gets the session: its token is good once, and it stands behind the #, which browsers never send.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp

from mj_mcp.errors import InvalidRequest, MjError, NotConfigured
from mj_mcp.journal import Page
from mj_mcp.journal.reader import Row, Search
from mj_mcp.server.host_guard import HostGuard
from mj_mcp.server.render import Presentation, error_result, files_result, list_view, picture_result, task_result
from mj_mcp.server.tools import TOOLS
from mj_mcp.server.views import VIEW_FILE
from mj_mcp.settings import Settings
from mj_mcp.studio import Result
from mj_mcp.studio.library import Library
from mj_mcp.tasks import Kind, Status, Task

Answer = Callable[[str, dict[str, Any]], Awaitable[CallToolResult]]
"""Answers one call of the view: a tool and its arguments."""

PAGE_FILE = Path(__file__).resolve().with_name("browse.html")
ROWS = 30
CHART_DAYS = 30

_FREE = tuple(spec for spec in TOOLS if spec.name in {"view_image", "save_images"})

_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_VIEW_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)


def new_token() -> str:
    """The secret of one link."""
    return secrets.token_urlsafe(32)


def answer_from_server(client: Client) -> Answer:
    """Answers with the tools of the server that this client is connected to: those that cost money, too."""

    async def answer(tool: str, arguments: dict[str, Any]) -> CallToolResult:
        return await client.call_tool(tool, arguments)

    return answer


def connected(server: MCPServer[Any]) -> Client:
    """A client of this server in the same process."""
    return Client(server)


def answer_from_library(library: Library) -> Answer:
    """Answers the calls that only look. The others are answered `not_configured`."""

    async def answer(tool: str, arguments: dict[str, Any]) -> CallToolResult:
        try:
            return await _looked(library, tool, arguments)
        except MjError as failure:
            return error_result(failure, spends=False)

    return answer


async def _looked(library: Library, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    task_id = str(arguments.get("task_id", ""))
    match tool:
        case "get_task":
            return task_result(Result(await library.task(task_id)), None, Presentation(_FREE))
        case "view_image":
            index = int(arguments["index"])
            task, picture = await library.view(task_id, index, int(arguments["max_edge"]))
            return picture_result(task, index, picture)
        case "save_images":
            return files_result(*await library.save(task_id, arguments.get("indexes")))
        case "list_tasks":
            search = Search(since=_time("since", arguments.get("since")))
            return _found(*await library.reader.search(search, int(arguments.get("limit", ROWS))))
        case "wait_for_tasks":
            return _listed([await library.task(str(one)) for one in arguments["task_ids"]], None)
    raise NotConfigured("this page shows what there is; it was started without a key (MJ_API_KEY), so it makes nothing")


def _found(rows: list[Row], below: int | None) -> CallToolResult:
    return _listed([row.task for row in rows], below)


def _listed(tasks: list[Task], below: int | None) -> CallToolResult:
    page = Page(tuple(tasks), None if below is None else str(below))
    return CallToolResult(content=[], structured_content=list_view(page, lambda _task: None))


def browse_app(library: Library, settings: Settings, token: str, answer: Answer) -> ASGIApp:
    """The application: two files for everybody on this machine, and the rest for the page that the link opened."""
    page = _Page(library, token, answer)
    private = {"/search": page.search, "/days": page.days, "/call": page.call, "/original": page.original}
    routes = [
        Route("/", _file(PAGE_FILE, _PAGE_POLICY)),
        Route("/view", _file(VIEW_FILE, _VIEW_POLICY)),
        Route("/enter", page.enter, methods=["POST"]),
        *(Route(path, page.ours(handle), methods=["POST"]) for path, handle in private.items()),
    ]
    return Starlette(routes=[Mount("/", HostGuard(Router(routes), settings))])


class _Page:
    """The page that the link opened: its session, and what it may ask for."""

    def __init__(self, library: Library, token: str, answer: Answer) -> None:
        self._library = library
        self._answer = answer
        self._token: str | None = token
        self._session = new_token()

    async def enter(self, request: Request) -> Response:
        """The session, for the link's token. The token is good once."""
        given = (await _body(request)).get("token", "")
        if self._token is None or not _same(str(given), self._token):
            raise HTTPException(403, "this link is not valid, or was used already: start `mj-mcp browse` again")
        self._token = None
        return JSONResponse({"session": self._session, "accounts": await self._library.reader.accounts()})

    def ours(self, handle: Callable[[dict[str, Any]], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A route for this page only. `handle` gets the request's JSON object."""

        async def checked(request: Request) -> Response:
            if not _same(request.headers.get("authorization", ""), f"Bearer {self._session}"):
                raise HTTPException(401, "this page has no session: start `mj-mcp browse` again")
            given = await _body(request)
            try:
                return await handle(given)
            except MjError as failure:
                return JSONResponse({"error": failure.message}, status_code=400)
            except (KeyError, TypeError, ValueError):
                return JSONResponse({"error": "that is no request of this page"}, status_code=400)

        return checked

    async def search(self, given: dict[str, Any]) -> Response:
        """A page of tasks."""
        cursor = given.get("cursor")
        return _json(_found(*await self._library.reader.search(_search(given), ROWS, int(cursor) if cursor else None)))

    async def days(self, given: dict[str, Any]) -> Response:
        """The jobs of each of the last days."""
        first = datetime.now(UTC).date() - timedelta(days=CHART_DAYS - 1)
        since = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
        counts = await self._library.reader.per_day(since, given.get("account") or None)
        names = [(first + timedelta(days=day)).isoformat() for day in range(CHART_DAYS)]
        return JSONResponse([{"day": name, "jobs": counts.get(name, 0)} for name in names])

    async def call(self, given: dict[str, Any]) -> Response:
        """A call of the view."""
        return _json(await self._answer(str(given["name"]), dict(given["arguments"])))

    async def original(self, given: dict[str, Any]) -> Response:
        """One original, to be downloaded."""
        file = await self._library.original(str(given["task_id"]), int(given["index"]))
        if isinstance(file.content, Path):
            return FileResponse(file.content, media_type=file.media_type)
        return Response(file.content, media_type=file.media_type)


def _file(path: Path, policy: str) -> Callable[[Request], Awaitable[Response]]:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    async def serve(_request: Request) -> Response:
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)

    return serve


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Its length is declared, so that the host guard has checked it."""
    if "content-length" not in request.headers or not request.headers.get("content-type", "").startswith(
        "application/json"
    ):
        raise HTTPException(415, "a request of this page is JSON with its length")
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "that is no request of this page")
    return body


def _search(given: dict[str, Any]) -> Search:
    day = _time("day", given.get("day"))
    return Search(
        words=str(given.get("words", ""))[:500],
        kind=Kind(given["kind"]) if given.get("kind") else None,
        status=Status(given["status"]) if given.get("status") else None,
        since=day,
        until=None if day is None else day + timedelta(days=1).total_seconds(),
        account=given.get("account") or None,
    )


def _time(name: str, text: object) -> float | None:
    """Seconds since the epoch. A date without a time zone is UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise InvalidRequest(name, text, "a date such as 2026-11-27") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _json(result: CallToolResult) -> Response:
    return JSONResponse(result.model_dump(mode="json", by_alias=True, exclude_none=True))
