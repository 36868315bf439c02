"""The connection to the proxy: deadlines, the size cap, the retry, and the table of transport failures.

Owns httpx for the API. Knows nothing of submit codes or task fields: it returns bytes to the client.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
import stamina
import structlog
from opentelemetry.trace import Span, SpanKind, StatusCode, get_tracer

from mj_mcp import __version__
from mj_mcp.proxy.http import AUTHS, Answer, HttpRequest, NoAnswer
from mj_mcp.urls import UNUSABLE_TUNNEL, authorities, tunnel_parts

log = structlog.get_logger("mj_mcp.proxy")
tracer = get_tracer("mj_mcp")

MAX_BODY_BYTES = 1 << 20
"""An answer of this API is a few KiB. A larger one does not come from this API."""

MAX_RETRY_AFTER = 3600.0
"""Seconds. Proxies send absurd values of `Retry-After`; they are capped."""

TRIES_BEFORE_SENDING = 3

Sent = Literal["never left", "maybe sent"]

TRANSPORT_FAILURES: dict[type[Exception], tuple[Sent, str]] = {
    # Before a byte of the request has been sent.
    httpx.ConnectError: ("never left", "no connection could be made"),
    httpx.ConnectTimeout: ("never left", "the connection was not made in time"),
    httpx.PoolTimeout: ("never left", "no free connection in time"),
    httpx.ProxyError: ("never left", "the HTTP proxy on the way refused the connection"),
    httpx.UnsupportedProtocol: ("never left", "the base URL has no http or https scheme"),
    # After that, or where it is not known.
    httpx.LocalProtocolError: ("maybe sent", "the request broke the HTTP protocol"),
    httpx.RemoteProtocolError: ("maybe sent", "the connection closed before the answer was complete"),
    httpx.ReadError: ("maybe sent", "the connection broke while the answer was read"),
    httpx.ReadTimeout: ("maybe sent", "no answer in time"),
    httpx.WriteError: ("maybe sent", "the connection broke while the request was sent"),
    httpx.WriteTimeout: ("maybe sent", "the request could not be sent in time"),
    httpx.CloseError: ("maybe sent", "the connection broke while it was closed"),
    httpx.DecodingError: ("maybe sent", "the answer's content encoding was broken"),
    httpx.TooManyRedirects: ("maybe sent", "the answer redirects"),
    # httpx parses the Location of a redirect that it does not follow. Our own URL is parsed before anything is sent.
    httpx.InvalidURL: ("maybe sent", "the answer redirects to an invalid URL"),
}
"""What each failure of httpx says about the request. A test checks that the table is complete."""


class _NeverLeft(Exception):
    """The request provably never left. It is safe to send again."""


class _CannotConnect(Exception):
    """The environment's certificates or its HTTP proxy cannot be used."""


class _Progress:
    """The progress of one attempt through a tunnel. While only `CONNECT` was sent, the request has not left."""

    def __init__(self) -> None:
        self._last_sent: bytes | None = None

    async def note(self, event: str, info: dict[str, Any]) -> None:
        """Called by httpcore's `trace` extension."""
        if event.endswith("send_request_headers.started"):
            self._last_sent = info["request"].method

    @property
    def only_connect_was_sent(self) -> bool:
        return self._last_sent == b"CONNECT"


class Transport:
    """The connections of one `Http`."""

    def __init__(self, base_url: str, key: str, tunnel: str | None, connect_seconds: float) -> None:
        """See `Http`."""
        self._base_url = base_url
        self._key = key
        self._tunnel = tunnel
        self._connect_seconds = connect_seconds
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def request(self, call: HttpRequest) -> Answer | NoAnswer:
        """See `Http.request`.

        The timeouts of httpx are per read, so the deadline around the whole request also ends a body that arrives byte
        by byte.
        """
        retries = stamina.retry_context(
            on=_NeverLeft, attempts=TRIES_BEFORE_SENDING, wait_initial=0.1, wait_max=1.0, timeout=call.seconds
        )
        progress = _Progress()
        try:
            async with asyncio.timeout(call.seconds):
                async for attempt in retries:
                    with attempt:
                        return await self._logged(call, attempt.num, progress)
        except _NeverLeft as failure:
            return NoAnswer(sent=False, reason=str(failure))
        except TimeoutError:
            if progress.only_connect_was_sent:
                return NoAnswer(sent=False, reason=f"no connection within {call.seconds:g} s{_THROUGH}")
            # The deadline may have passed while connecting. That is not known, so the request counts as sent.
            return NoAnswer(sent=True, reason=f"no complete answer within {call.seconds:g} s")
        raise AssertionError("stamina ends in an answer or an exception")  # pragma: no cover

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    async def _logged(self, call: HttpRequest, attempt: int, progress: _Progress) -> Answer | NoAnswer:
        began = time.perf_counter()
        outcome: Answer | NoAnswer | None = None
        with _span(call) as span:
            try:
                outcome = await self._exchange(call, progress)
            finally:
                facts = {
                    "status": outcome.status if isinstance(outcome, Answer) else None,
                    "code": call.code_of(outcome) if isinstance(outcome, Answer) else None,
                    "failure": outcome.reason if isinstance(outcome, NoAnswer) else None if outcome else "cut off",
                    "attempt": attempt,
                }
                _set_attributes(span, facts)
                ms = round((time.perf_counter() - began) * 1000, 1)
                log.info("upstream_request", method=call.method, path=call.path, **facts, ms=ms)
        if isinstance(outcome, NoAnswer) and not outcome.sent:
            raise _NeverLeft(outcome.reason)
        return outcome

    async def _exchange(self, call: HttpRequest, progress: _Progress) -> Answer | NoAnswer:
        timeout = httpx.Timeout(call.seconds, connect=min(self._connect_seconds, call.seconds))
        try:
            client = self._client(keep_alive=call.method == "GET")
            url = httpx.URL(self._base_url + call.path)
        except httpx.InvalidURL:
            return NoAnswer(sent=False, reason="the base URL is not valid")
        except _CannotConnect as failure:
            return NoAnswer(sent=False, reason=str(failure))
        traced = {"trace": progress.note} if self._tunnel else {}
        header, value = AUTHS[call.auth].format(self._key).split(": ", 1)
        try:
            async with client.stream(
                call.method, url, json=call.json, headers={header: value}, timeout=timeout, extensions=traced
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        return NoAnswer(sent=True, reason=f"the answer is larger than {MAX_BODY_BYTES} bytes")
                retry_after = read_retry_after(response.headers.get("retry-after"), time.time)
                return Answer(response.status_code, bytes(body), retry_after, _location(response))
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            fate, reason = _look_up(failure)
            sent = fate == "maybe sent" and not progress.only_connect_was_sent
            return NoAnswer(sent=sent, reason=reason if sent or not self._tunnel else reason + _THROUGH)

    def _client(self, *, keep_alive: bool) -> httpx.AsyncClient:
        """A client. Submits use no keep-alive: if the proxy closes an idle connection, a POST's outcome is unknown."""
        if keep_alive not in self._clients:
            self._clients[keep_alive] = httpx.AsyncClient(
                headers={
                    "User-Agent": f"mj-mcp/{__version__}",
                    "Accept-Encoding": "identity",  # a compressed answer could expand beyond the size limit at once
                },
                follow_redirects=False,
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=8 if keep_alive else 0),
                trust_env=False,  # no proxy for plain http, which would see the key
                proxy=_proxy(self._tunnel) if self._tunnel else None,
                verify=_trusted(),
            )
        return self._clients[keep_alive]


_THROUGH = " (through the proxy of HTTPS_PROXY)"


def _proxy(url: str) -> httpx.Proxy:
    try:
        encrypted = tunnel_parts(url).scheme == "https"
        return httpx.Proxy(url, ssl_context=_trusted() if encrypted else None)
    except (ValueError, httpx.InvalidURL):
        raise _CannotConnect(UNUSABLE_TUNNEL) from None


def _trusted() -> ssl.SSLContext:
    try:
        return authorities()
    except OSError as failure:  # an SSLError, too
        raise _CannotConnect(
            f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {failure.strerror or failure}"
        ) from failure


def _location(response: httpx.Response) -> str | None:
    """The full target of a redirect. httpx has parsed it and refuses an invalid URL."""
    return str(response.next_request.url) if response.next_request else None


def _span(call: HttpRequest) -> AbstractContextManager[Span]:
    """The span of one attempt, below the span of its tool call, even if it runs in another task."""
    route = call.route or call.path
    attributes = {"http.request.method": call.method, "url.template": route}
    if call_id := structlog.contextvars.get_contextvars().get("call_id"):
        attributes["mj_mcp.call_id"] = call_id
    return tracer.start_as_current_span(
        f"{call.method} {route}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,  # the table of failures has the error, without a link
        set_status_on_exception=False,
    )


SPAN_ATTRIBUTES = {
    "status": "http.response.status_code",
    "code": "mj_mcp.proxy_code",
    "failure": "error.type",
    "attempt": "mj_mcp.attempt",
}
"""The name in the log, and the attribute of a span (OpenTelemetry's names for HTTP)."""


def _set_attributes(span: Span, facts: dict[str, Any]) -> None:
    span.set_attributes({SPAN_ATTRIBUTES[name]: fact for name, fact in facts.items() if fact is not None})
    if facts["failure"] is not None or (facts["status"] or 0) >= 400:
        span.set_status(StatusCode.ERROR)


def _look_up(failure: Exception) -> tuple[Sent, str]:
    """The row of the table for this failure, or for its nearest base class."""
    if _is_untrusted(failure):
        return "never left", "the server's certificate is not trusted here (SSL_CERT_FILE names your own authority)"
    for kind in type(failure).__mro__:
        if kind in TRANSPORT_FAILURES:
            return TRANSPORT_FAILURES[kind]
    return "maybe sent", "the connection failed"


def _is_untrusted(failure: BaseException | None) -> bool:
    """Whether the TLS handshake failed because the certificate is not trusted. It comes before the request."""
    while failure is not None and not isinstance(failure, ssl.SSLCertVerificationError):
        failure = failure.__cause__ or failure.__context__
    return failure is not None


def read_retry_after(text: str | None, now: Callable[[], float]) -> float | None:
    """Seconds from a `Retry-After` header: a number or an HTTP date (RFC 9110, 10.2.3), at most 1 hour."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
            # "-0000" gives a date without a zone: it is UTC, not this machine's.
            seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return None
    # `max` and `min` in this order also replace a NaN by a bound.
    return min(max(0.0, seconds), MAX_RETRY_AFTER)
