"""Checks every HTTP request before its login: Host, Origin and size.

Owns the answers 421, 403 and 413. Knows nothing of callers, of sessions or of MCP. A web page can make a browser send
requests to any address; Host and Origin keep it from using a server that the browser's user can reach.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mj_mcp.settings import Settings

log = structlog.get_logger("mj_mcp.http")

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""The host names that are allowed by default: those of the machine for itself."""

SHOWN_CHARACTERS = 200


class HostGuard:
    """An ASGI application that only lets in requests for this server, without an Origin or from an allowed page."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        public = {_name(urlsplit(settings.public_url).netloc)} if settings.public_url else set()
        self._hosts = settings.http_allowed_hosts | public or LOOPBACK_NAMES
        self._origins = settings.http_allowed_origins
        self._max_body_bytes = settings.http_max_body_bytes
        self._app = _with_cors(app, self._origins) if self._origins else app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or not (hosts[0] in self._hosts or _name(hosts[0]) in self._hosts):
            why = "that Host is not allowed (MJ_PUBLIC_URL, MJ_HTTP_ALLOWED_HOSTS)"
            return _refuse(421, why, host=", ".join(hosts))
        for origin in headers.getlist("origin"):
            if origin not in self._origins and not _is_page_of(origin, hosts[0]):
                return _refuse(403, "pages of that Origin may not use it (MJ_HTTP_ALLOWED_ORIGINS)", origin=origin)
        # A body without a declared length is counted while it is read.
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            return _refuse(413, f"a request may have {self._max_body_bytes} bytes at most (MJ_HTTP_MAX_BODY_BYTES)")
        return None


def _with_cors(app: ASGIApp, origins: frozenset[str]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=sorted(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],  # a browser asks for the headers that it will send; `Mcp-Param-*` have no fixed names
        expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
    )


def _name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host


def _is_page_of(origin: str, host: str) -> bool:
    """Whether the request comes from a page of this server itself."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == host


def _refuse(status: int, why: str, **given: str) -> Response:
    log.warning("http_refused", status=status, **{name: text[:SHOWN_CHARACTERS] for name, text in given.items()})
    return PlainTextResponse(f"{status}: {why}\n", status_code=status)
