"""MCP over streamable HTTP at `/mcp`, with `/healthz` and `/readyz`.

Owns the listening socket, the routes, and the order in which they stop. Knows nothing of how a caller is told from
another: whoever builds the application passes `protect`, which wraps everything but the two health routes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import JSONRPCError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mj_mcp.server.bearer import ENDPOINT
from mj_mcp.server.host_guard import Door
from mj_mcp.server.jsonrpc import read, write
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.studio import Studio

log = structlog.get_logger("mj_mcp.http")

ENDPOINTS = frozenset({ENDPOINT, ENDPOINT + "/"})

ANSWER_SECONDS = 2.0
"""How long a stop lets the calls in flight answer. Posts to the proxy outlast it: the studio waits for those."""

GRACE_SECONDS = 3
"""How long a stop lets connections close; what is open then is cut."""

BACKLOG = 2048
"""Connections that may wait to be taken in."""

TAKEN_AT_ONCE = 8
"""Connections taken in one turn of the event loop: more would hold up whoever is connected already."""


def http_app(
    server: MCPServer[Any],
    settings: Settings,
    studio: Studio,
    *,
    stateless: bool = False,
    protect: Callable[[ASGIApp], ASGIApp] | None = None,
    files: Route | None = None,
) -> ASGIApp:
    """The ASGI application over a server and a studio that are there already.

    Args:
        server: what answers at `/mcp`.
        settings: what the door lets in, and how many sessions there may be.
        studio: whether it is ready is told at `/readyz`.
        stateless: keep no sessions for clients of the older generation, as several replicas must.
        protect: wraps what needs a caller who is known. Requests that it sees have passed the door.
        files: serves pictures to whoever has a link; behind the door, but beside `protect`.
    """
    manager = _sessions(server, settings, stateless=stateless)
    mcp = _endpoint(manager.handle_request, settings.http_max_body_bytes)
    mcp = protect(mcp) if protect else mcp
    door = Door(mcp, settings)
    rest = Starlette(
        routes=[*_health(studio), Mount("/", Door(Router([files, Mount("/", mcp)]) if files else mcp, settings))],
        lifespan=lambda _app: server.session_manager.run(),
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # A call that waits keeps the frames that lead to it: past all routing, a thousand of them cost 8 MB less.
        direct = scope["type"] == "http" and scope["path"] in ENDPOINTS
        await (door if direct else rest)(scope, receive, send)

    return app


def _sessions(server: MCPServer[Any], settings: Settings, *, stateless: bool) -> StreamableHTTPSessionManager:
    # Its application is not used: that would route each request once more.
    server.streamable_http_app(
        stateless_http=stateless,
        max_request_body_size=settings.http_max_body_bytes,
        max_sessions=settings.http_max_sessions,
        session_idle_timeout=settings.http_session_seconds,
        # The door has checked already, on every route.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return server.session_manager


def _endpoint(app: ASGIApp, max_body_bytes: int) -> ASGIApp:
    async def found(scope: Scope, receive: Receive, send: Send) -> None:
        answer = app
        if scope["path"] not in ENDPOINTS:
            answer = PlainTextResponse("Not Found", status_code=404)
        elif scope["method"] == "POST":
            answer, receive = await _checked(app, receive, max_body_bytes)
        await answer(scope, receive, send)

    return found


async def _checked(app: ASGIApp, receive: Receive, max_body_bytes: int) -> tuple[ASGIApp, Receive]:
    """Who answers this body, and where it can be read again.

    The SDK's own errors differ between the generations and show a library's words. In one of them the SDK takes a
    request whose id is not valid for a notification, which has no answer.
    """
    body = bytearray()
    last: Message = {"type": "http.request", "more_body": True}
    while last.get("more_body", False) and len(body) <= max_body_bytes:
        last = await receive()
        body += last.get("body", b"")
    come: list[Message] = [{**last, "body": bytes(body)}]  # what is too long is answered by the SDK, with 413
    if last["type"] == "http.request" and len(body) <= max_body_bytes:
        found = read(bytes(body))
        if isinstance(found, JSONRPCError):
            return Response(write(found), status_code=400, media_type="application/json"), receive
        come = [{"type": "http.request", "body": found.raw}]

    async def replay() -> Message:
        return come.pop() if come else await receive()

    return app, replay


def _health(studio: Studio) -> list[Route]:
    """What a supervisor asks, by any name and without a login; so nothing is told but which part is well."""

    async def live(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_request: Request) -> Response:
        faults = await studio.faults()
        said = {"ready": not faults, "journal": "ok"} | faults
        return JSONResponse(said, status_code=503 if faults else 200)

    return [Route("/healthz", live), Route("/readyz", ready)]


def listen(host: str, port: int, settings: Settings, *, protected: bool) -> socket.socket:
    """A socket that listens at this address; port 0 takes a free one.

    Raises:
        SettingsError: others can reach the address, and it is not said who may or by which name.
        OSError: the address cannot be had.
    """
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104 - named, then refused
    family, *_, address = found[0]
    if not ipaddress.ip_address(address[0]).is_loopback:
        _refuse_unless_closed(host, settings, protected=protected)
    listener = socket.create_server((address[0], port), family=family, backlog=BACKLOG)
    # asyncio sets this only where a socket names its protocol, which this one does not; without it the end of every
    # answer waits 40 ms for an acknowledgement. What is accepted takes it over.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _refuse_unless_closed(host: str, settings: Settings, *, protected: bool) -> None:
    missing = [
        what
        for what, there in (("authentication", protected), ("MJ_HTTP_ALLOWED_HOSTS", settings.http_allowed_hosts))
        if not there
    ]
    if missing:
        raise SettingsError(
            f"--host {host!r} can be reached from other machines, so it needs {' and '.join(missing)}; "
            "127.0.0.1 needs neither"
        )


class _Uvicorn(uvicorn.Server):
    """Uvicorn, with signals left to who runs the event loop, and a crowd at the door let in a few at a time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # asyncio has one number for how many may wait and how many are taken in one turn. It has been told the small
        # one; the kernel is told the large one again.
        for listener in sockets or ():
            listener.listen(BACKLOG)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: ASGIApp, listener: socket.socket, *, on_stop: Callable[[], None]) -> None:
    """Serve until cancelled; then accept nothing more, let calls in flight answer, and end the sessions.

    `on_stop` is called first, and ends the waits: their callers get an answer instead of a broken connection.
    """
    uvicorn_server = _Uvicorn(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=GRACE_SECONDS,
            backlog=TAKEN_AT_ONCE,
        )
    )
    serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    log.info("http_listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/mcp")
    try:
        await asyncio.shield(serving)
    finally:
        uvicorn_server.should_exit = True
        on_stop()
        # The streams on which older clients listen never end by themselves, and the word that ends them ends those
        # with an answer, too: that has to be out by then.
        closing = asyncio.get_running_loop().call_later(
            ANSWER_SECONDS, uvicorn_server.handle_exit, signal.SIGTERM, None
        )
        await serving
        closing.cancel()
