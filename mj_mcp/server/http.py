"""MCP over streamable HTTP at `/mcp`, with `/healthz` and `/readyz`.

Owns the listening socket, the routes, and the order in which they stop. Does not know how callers are identified:
whoever builds the application passes `protect`, which wraps everything except the two health routes.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import JSONRPCError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mj_mcp.server.bearer import ENDPOINT
from mj_mcp.server.host_guard import HostGuard
from mj_mcp.server.jsonrpc import read, write
from mj_mcp.server.sessions import Sessions
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.studio import Studio
from mj_mcp.urls import is_loopback

log = structlog.get_logger("mj_mcp.http")

ENDPOINTS = frozenset({ENDPOINT, ENDPOINT + "/"})

DRAIN_SECONDS = 2.0
"""How long shutdown waits for calls in flight. POSTs to the proxy take longer; the studio waits for those."""

BACKLOG = 128
"""The backlog of connections, which asyncio also accepts in one step. With more, connected clients wait while many new
ones are accepted; with fewer, new ones wait for the kernel's next attempt."""

GRACE_SECONDS = 3
"""How long shutdown waits for connections to close. Those still open are cut."""


def http_app(
    server: MCPServer[Any],
    settings: Settings,
    studio: Studio,
    *,
    stateless: bool = False,
    protect: Callable[[ASGIApp], ASGIApp] | None = None,
    beside: Sequence[Route] = (),
) -> ASGIApp:
    """The ASGI application over a running server and studio.

    Args:
        server: what answers at `/mcp`.
        settings: what the host guard allows, and how many sessions there may be.
        studio: whether it is ready is reported at `/readyz`.
        stateless: keep no sessions for clients of the older generation, as several replicas must.
        protect: wraps what needs an identified caller. It only gets requests that passed the host guard.
        beside: routes that need no login. They are behind the host guard, but not behind `protect`.
    """
    manager = _sessions(server, settings, stateless=stateless)
    mcp = _endpoint(manager.handle_request, settings.http_max_body_bytes)
    mcp = protect(mcp) if protect else mcp
    guarded = HostGuard(mcp, settings)
    rest = Starlette(
        routes=[*_health(studio), Mount("/", HostGuard(Router([*beside, Mount("/", mcp)]), settings))],
        lifespan=lambda _app: manager.run(),
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # A waiting call keeps its stack frames: outside all routing, 1,000 of them use 8 MB less.
        direct = scope["type"] == "http" and scope["path"] in ENDPOINTS
        await (guarded if direct else rest)(scope, receive, send)

    return app


def _sessions(server: MCPServer[Any], settings: Settings, *, stateless: bool) -> Sessions:
    return Sessions(
        server._lowlevel_server,  # noqa: SLF001 - the SDK has no public way to bring sessions of one's own
        stateless=stateless,
        # The host guard has checked every route already.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        session_idle_timeout=settings.http_session_seconds,
        max_request_body_size=settings.http_max_body_bytes,
        max_sessions=settings.http_max_sessions,
    )


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
    """The application that answers this body, and a `receive` that returns it again.

    The SDK's own errors differ between the generations and show a library's words. In one generation, the SDK treats a
    request with an invalid id as a notification, which has no answer.
    """
    body = bytearray()
    last: Message = {"type": "http.request", "more_body": True}
    while last.get("more_body", False) and len(body) <= max_body_bytes:
        last = await receive()
        body += last.get("body", b"")
    if last["type"] == "http.disconnect":
        return _nothing, receive
    come: list[Message] = [{**last, "body": bytes(body)}]  # the SDK answers a body that is too long, with 413
    if len(body) <= max_body_bytes:
        found = read(bytes(body))
        if isinstance(found, JSONRPCError):
            return Response(write(found), status_code=400, media_type="application/json"), receive
        come = [{"type": "http.request", "body": found.raw}]

    async def replay() -> Message:
        return come.pop() if come else await receive()

    return app, replay


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """For a client that disconnected before its request was complete: nothing is answered."""


def _health(studio: Studio) -> list[Route]:
    """For a supervisor: any host name, no login. So the answer only says which part works."""

    async def live(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_request: Request) -> Response:
        faults = await studio.faults()
        said = {"ready": not faults, "journal": "ok"} | faults
        return JSONResponse(said, status_code=503 if faults else 200)

    return [Route("/healthz", live), Route("/readyz", ready)]


def listen(host: str, port: int, settings: Settings, *, protected: bool) -> socket.socket:
    """A socket that listens at this address. Port 0 picks a free one.

    Raises:
        SettingsError: others can reach the server, but login or public URL is missing.
        OSError: the address is not available.
    """
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104 - named, then refused
    family, *_, address = found[0]
    _refuse_unless_closed(host, settings, reachable=not is_loopback(str(address[0])), protected=protected)
    if settings.public_url.startswith("http://") and not is_loopback(_host_of(settings.public_url)):
        log.warning("public_url_unencrypted", url=settings.public_url)
    listener = socket.create_server((address[0], port), family=family)
    # asyncio sets this only if the socket names its protocol, which this one does not. Without it, the end of every
    # answer waits 40 ms for an acknowledgement. Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _refuse_unless_closed(host: str, settings: Settings, *, reachable: bool, protected: bool) -> None:
    names = [name for name in sorted(settings.http_allowed_hosts) if not is_loopback(_host_of(f"//{name}"))]
    if not (reachable or names):
        return
    missing = ["a login (`mj-mcp tokens add NAME`, or MJ_AUTH_ISSUER)"] if reachable and not protected else []
    line = ""
    if not settings.public_url:
        missing.append("its public address")
        line = f" Add this line:\nMJ_PUBLIC_URL=https://{names[0] if names else 'mcp.example.com'}"
    if missing:
        why = f"--host {host!r}" if reachable else f"MJ_HTTP_ALLOWED_HOSTS ({names[0]})"
        needs = " and ".join(missing)
        raise SettingsError(f"by {why} other machines can reach this server, so it needs {needs}.{line}")


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers; the owner of the event loop handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: ASGIApp, listener: socket.socket, *, on_stop: Callable[[], None]) -> None:
    """Serve until cancelled. Then accept nothing more, let calls in flight answer, and end the sessions.

    `on_stop` is called first and ends the waits, so callers get an answer instead of a broken connection.
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
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_SECONDS,
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
        # The event streams of older clients never end by themselves. What ends them also ends calls with an answer to
        # write, so the answers must be sent by then.
        closing = asyncio.get_running_loop().call_later(DRAIN_SECONDS, uvicorn_server.handle_exit, signal.SIGTERM, None)
        await serving
        closing.cancel()
