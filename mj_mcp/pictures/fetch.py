"""Fetches the bytes of one picture, safely.

Owns the client for third-party hosts: no credentials, no cookies, no content encodings, hard limits on bytes and
time, and every redirect followed by us through the same guard. Through the tunnel of `HTTPS_PROXY` only the name is
checked; the tunnel must check what it resolves to. Does not know the proxy's API or its key, what the bytes mean, or
where they go.

It uses httpcore only, which adds no headers, follows nothing, decodes nothing and logs no address.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, Self
from urllib.parse import unquote

import httpcore

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures.guard import Connect, GuardedBackend, Resolve, dial, is_public_name, system_resolver
from mj_mcp.pictures.link import Link, follow, host_matches, origin, parse_link
from mj_mcp.urls import PORTS, UNUSABLE_TUNNEL, authorities, tunnel_parts

MAX_PICTURE_BYTES: Final = 64 * 2**20
MAX_REDIRECTS: Final = 3
MAX_AT_ONCE: Final = 8

STALL_SECONDS: Final = 20.0
STALL_BYTES: Final = 64 * 2**10
"""A picture is given up if fewer bytes arrive in `STALL_SECONDS`, or if it has not started by then."""
CEILING_SECONDS: Final = 300.0
"""The limit for one whole picture: 64 MiB need 220 KiB/s."""

_REDIRECTS = {301, 302, 303, 307, 308}
_EXPIRED = {401, 403, 404, 410}
_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, httpcore.TimeoutException, OSError)


class LinkExpired(ImageUnavailable):
    """The host refuses this link (HTTP 401, 403, 404, 410). Fetching the task again may give a new one."""


class PictureClient:
    """Fetches pictures from public hosts and from the proxy's own host. One instance is shared by all callers."""

    def __init__(
        self,
        own_url: str,
        image_hosts: frozenset[str] | None = None,
        resolve: Resolve | None = None,
        connect: Connect = dial,
        *,
        stall_seconds: float = STALL_SECONDS,
        max_bytes: int = MAX_PICTURE_BYTES,
        user_agent: str = "mj-mcp",
        tls: ssl.SSLContext | None = None,
        tunnel_for: Callable[[str], str | None] = lambda _url: None,
    ) -> None:
        """Store which hosts may be asked.

        Args:
            own_url: the proxy's URL. Its host and port may be private, since a person configured them.
            image_hosts: if given, only these hosts (`a.example.com`, `*.example.com`) and the own host are allowed.
            resolve: called once per connection; the system's resolver by default.
            connect: connects to an address that the guard has checked.
            stall_seconds: timeout until the body begins (names, connections, redirects), and for every `STALL_BYTES` of
            it.
            max_bytes: the limit of one picture, as transferred.
            user_agent: sent with every request.
            tls: for https; this machine's certificate authorities by default.
            tunnel_for: returns the HTTP proxy through which a URL is reached, if any. Only for https.
        """
        self._own = origin(own_url)
        self._image_hosts = image_hosts
        self._resolve = resolve
        self._connect = connect
        self._stall = stall_seconds
        self._max_bytes = max_bytes
        self._user_agent = user_agent
        self._tls = tls
        self._tunnel_for = tunnel_for
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._pools: dict[str | None, httpcore.AsyncConnectionPool] = {}
        self._names = ThreadPoolExecutor(MAX_AT_ONCE // 2, thread_name_prefix="mj-picture-names")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools.values():
            await pool.aclose()
        self._names.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str) -> bytes:
        """All bytes behind a link, whatever they are.

        Its time starts when a slot is free, so that slow hosts do not use up the time of other pictures.

        Raises:
            LinkExpired: HTTP 401, 403, 404 or 410.
            ImageUnavailable: any other reason why the bytes cannot be fetched.
        """
        link = parse_link(url)
        clock = asyncio.get_running_loop().time
        async with self._slots:
            ceiling = clock() + CEILING_SECONDS
            try:
                async with asyncio.timeout(self._stall) as limit:
                    return await self._follow(link, lambda: limit.reschedule(min(clock() + self._stall, ceiling)))
            except TimeoutError:
                slow = f"less than {STALL_BYTES:,} bytes came in {self._stall:g} s"
                late = f"it was not complete after {CEILING_SECONDS:g} s"
                why = late if clock() >= ceiling else slow
                raise ImageUnavailable(f"the picture from {link.host} did not arrive: {why}") from None
            except _FAILURES:
                raise ImageUnavailable(f"the connection to the picture's host {link.host} failed") from None

    async def _follow(self, link: Link, go_on: Callable[[], None]) -> bytes:
        for _ in range(1 + MAX_REDIRECTS):
            tunnel = self._tunnel_for(f"https://{link.authority}") if link.scheme == "https" else None
            self._admit(link, tunnel)
            async with self._asked(link, tunnel) as answer:
                if answer.status not in _REDIRECTS:
                    return await self._body(link, answer, go_on)
                location = _header(answer, b"location")
            link = follow(link, location)
        raise ImageUnavailable(f"the picture's link redirects more than {MAX_REDIRECTS} times")

    def _admit(self, link: Link, tunnel: str | None) -> None:
        if (link.host.rstrip("."), link.port) == self._own:
            return
        if self._image_hosts is not None and not host_matches(link.host, self._image_hosts):
            raise ImageUnavailable(f"the picture's host {link.host} is not among the hosts that are allowed")
        if tunnel is not None and not is_public_name(link.host):  # else it is checked when it is dialled
            raise ImageUnavailable(f"the picture's host {link.host} is not a public one")

    @asynccontextmanager
    async def _asked(self, link: Link, tunnel: str | None) -> AsyncIterator[httpcore.Response]:
        if tunnel not in self._pools:
            self._pools[tunnel] = self._open_tunnel(tunnel) if tunnel else self._open_pool()
        url = httpcore.URL(scheme=link.scheme, host=link.host, port=link.port, target=link.target)
        headers = [
            ("Host", link.authority),
            ("User-Agent", self._user_agent),
            ("Accept", "image/png,image/jpeg,image/webp,image/gif,*/*;q=0.1"),
            ("Accept-Encoding", "identity"),
        ]
        async with self._pools[tunnel].stream("GET", url, headers=headers) as answer:
            yield answer

    def _open_pool(self) -> httpcore.AsyncConnectionPool:
        """No connection is kept: every request connects, and is checked, again."""
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls or authorities(),
            max_connections=MAX_AT_ONCE,
            max_keepalive_connections=0,
            network_backend=GuardedBackend(self._own, self._resolve or system_resolver(self._names), self._connect),
        )

    def _open_tunnel(self, proxy: str) -> httpcore.AsyncHTTPProxy:
        """The environment names this proxy, so any address is allowed."""
        try:
            parts = tunnel_parts(proxy)
        except ValueError:
            raise ImageUnavailable(UNUSABLE_TUNNEL) from None
        port = parts.port or PORTS[parts.scheme]
        tls = self._tls or authorities()
        return httpcore.AsyncHTTPProxy(
            httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=port, target="/"),
            proxy_auth=(unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
            ssl_context=tls,
            proxy_ssl_context=tls if parts.scheme == "https" else None,
            max_connections=MAX_AT_ONCE,
            max_keepalive_connections=0,
        )

    async def _body(self, link: Link, answer: httpcore.Response, go_on: Callable[[], None]) -> bytes:
        """The body, within the limits. `go_on` is called for every `STALL_BYTES` of it."""
        if answer.status in _EXPIRED:
            raise LinkExpired(f"the picture's link at {link.host} has expired or is refused (HTTP {answer.status})")
        if answer.status != 200:
            raise ImageUnavailable(f"the picture's host {link.host} answered HTTP {answer.status}")
        if _header(answer, b"content-encoding").strip().lower() not in ("", "identity"):
            raise ImageUnavailable(f"the picture's host {link.host} sent an encoding that was not asked for")
        length = _header(answer, b"content-length")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large(link)
        body = io.BytesIO()  # returns its buffer without a copy
        go_on()
        wanted = STALL_BYTES
        async for part in answer.aiter_stream():
            if body.tell() + len(part) > self._max_bytes:
                raise self._too_large(link)
            body.write(part)
            if body.tell() >= wanted:
                go_on()
                wanted = body.tell() + STALL_BYTES
        return body.getvalue()

    def _too_large(self, link: Link) -> ImageUnavailable:
        return ImageUnavailable(f"the picture from {link.host} is larger than {self._max_bytes:,} bytes")


def _header(answer: httpcore.Response, name: bytes) -> str:
    """All values of a header, so that a second one cannot hide behind the first."""
    values = [value for key, value in answer.headers if key.lower() == name]
    return b", ".join(values).decode("utf-8", "replace")
