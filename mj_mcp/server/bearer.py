"""Who may come in over HTTP: a bearer token is checked, and its holder told to everything behind.

Owns the answers 401, 403, 429 and 503 to requests without a good login, and the metadata that tells a client where to
log in (RFC 9728). Knows nothing of what callers do. A token ends here: what is behind sees its holder only, so that it
can neither be logged nor sent on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from mj_mcp.auth.tokens import PREFIX, READ, SCOPES, TokenFile, TokensError
from mj_mcp.settings import Settings

if TYPE_CHECKING:
    from mj_mcp.auth.issuer import Issuer

log = structlog.get_logger("mj_mcp.auth")

METADATA = "/.well-known/oauth-protected-resource"
WELL_KNOWN = "/.well-known/"
ENDPOINT = "/mcp"

MAX_TOKEN_CHARACTERS = 8192
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")

FREE_FAILURES = 5
"""So many bad logins in a row from one address are answered at once: somebody sets up a client."""

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.25, 8.0
FORGET_SECONDS = 600.0
MAX_ADDRESSES = 4096
MAX_ADDRESS_CHARACTERS = 45
"""Of the longest way to write an IPv6 address."""

MAX_HELD = 64
"""Refusals held back at once; more are answered 429 instead of kept in memory."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody does not come in. `error`: the code of RFC 6750 section 3.1; None where no token was shown."""

    status: int
    error: str | None
    why: str


NO_TOKEN = Refusal(401, None, "this server needs a login: Authorization: Bearer ...")
MALFORMED = Refusal(401, "invalid_token", "the Authorization header is not one bearer token")
UNKNOWN = Refusal(401, "invalid_token", "the token is not known here, or was revoked")
MAY_NOT_READ = Refusal(403, "insufficient_scope", f"the login lacks the scope {READ}")
TOO_MANY = Refusal(429, None, "too many bad logins")
CANNOT_TELL = Refusal(503, None, "logins cannot be checked now; the server's log says why")


class Failures:
    """Bad logins by address. Who has a good one is never kept waiting, from whatever address."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives seconds on a clock that never goes back."""
        self._now = now
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, address: str) -> float:
        """Count one more from this address; how many seconds its answer is held back."""
        network = _network(address)
        count, at = self._seen.pop(network, (0, 0.0))
        if self._now() - at > FORGET_SECONDS:
            count = 0
        self._seen[network] = (count + 1, self._now())
        while len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)
        if count < FREE_FAILURES:
            return 0.0
        return float(min(FIRST_DELAY_SECONDS * 2 ** min(count - FREE_FAILURES, 16), LAST_DELAY_SECONDS))


def _network(address: str) -> str:
    """One IPv6 client has a whole /64 to choose from; what is no address is whatever a forwarded header says."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


@asynccontextmanager
async def open_reception(settings: Settings) -> AsyncIterator[Reception]:
    """The reception that the settings ask for, until the block ends."""
    tokens = TokenFile(settings.token_file)
    if not settings.auth_issuer:
        yield Reception(tokens, None, "", always=settings.http_tokens is not None)
        return
    from mj_mcp.auth.issuer import Issuer  # noqa: PLC0415 - only who has an issuer pays for it

    issuer = Issuer(settings.auth_issuer, settings.auth_audience)
    try:
        yield Reception(tokens, issuer, settings.auth_audience)
    finally:
        await issuer.aclose()


class Reception:
    """Checks logins, for as long as a server runs."""

    def __init__(
        self,
        tokens: TokenFile,
        issuer: Issuer | None,
        audience: str,
        *,
        always: bool = False,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`always`: a login is needed even before the first token is made."""
        self._tokens = tokens
        self._issuer = issuer
        self._audience = audience
        self._always = always or issuer is not None
        self._failures = Failures(now)
        self._sleep = sleep
        self._held = 0

    def wants_login(self) -> bool:
        """Whether everybody has to log in; once it is so, it stays so."""
        self._always = self._always or self._tokens.is_there()
        return self._always

    def protect(self, app: ASGIApp) -> ASGIApp:
        """The same application, for those who may use it."""

        async def protected(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":  # nothing here speaks it
                await WebSocketClose()(scope, receive, send)
            elif scope["path"].startswith(WELL_KNOWN):
                await self._metadata(scope)(scope, receive, send)
            elif not self.wants_login():
                await app(scope, receive, send)
            elif isinstance(found := await self._identify(scope), Refusal):
                await (await self._refuse(scope, found))(scope, receive, send)
            else:
                bare = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
                await app({**scope, "headers": bare, "user": found}, receive, send)

        return protected

    async def _identify(self, scope: Scope) -> AuthenticatedUser | Refusal:
        headers = Headers(scope=scope).getlist("authorization")
        if not headers:
            return NO_TOKEN
        shown = _BEARER.fullmatch(headers[0])
        if len(headers) > 1 or shown is None or len(shown[1]) > MAX_TOKEN_CHARACTERS:
            return MALFORMED
        if self._issuer is not None and not shown[1].startswith(PREFIX):
            found = await self._of_issuer(self._issuer, shown[1])
        else:
            found = self._of_file(shown[1])
        if isinstance(found, AccessToken):
            return AuthenticatedUser(found) if READ in found.scopes else MAY_NOT_READ
        return found

    def _of_file(self, token: str) -> AccessToken | Refusal:
        try:
            entry = self._tokens.find(token)
        except TokensError:  # told in the log when the file was read
            return CANNOT_TELL
        if entry is None:
            return UNKNOWN
        return AccessToken(token="", client_id=f"token:{entry.name}", subject=entry.name, scopes=[*entry.scopes])

    async def _of_issuer(self, issuer: Issuer, token: str) -> AccessToken | Refusal:
        from mj_mcp.auth.issuer import IssuerUnavailable, NotAccepted  # noqa: PLC0415 - as above

        try:
            grant = await issuer.check(token)
        except NotAccepted as failure:
            return Refusal(401, "invalid_token", f"the token is not accepted: {failure}")
        except IssuerUnavailable:  # told in the log when the fetch failed
            return CANNOT_TELL
        return AccessToken(
            token="",
            client_id=grant.client or grant.subject,
            subject=grant.subject,
            scopes=sorted(grant.scopes & set(SCOPES)),
            expires_at=grant.expires_at,
            claims={"iss": issuer.url},
        )

    async def _refuse(self, scope: Scope, refusal: Refusal) -> Response:
        """The answer, held back where bad logins have come too often from this address."""
        address = (scope.get("client") or ("unknown",))[0][:MAX_ADDRESS_CHARACTERS]
        delay = self._failures.note(address) if refusal.error == "invalid_token" else 0.0
        log.warning("login_refused", status=refusal.status, reason=refusal.why, address=address, held=delay)
        if delay:
            if self._held >= MAX_HELD:
                return self._answer(scope, TOO_MANY, {"Retry-After": str(int(LAST_DELAY_SECONDS))})
            self._held += 1
            try:
                await self._sleep(delay)
            finally:
                self._held -= 1
        return self._answer(scope, refusal, {"Retry-After": "5"} if refusal.status == 503 else {})

    def _answer(self, scope: Scope, refusal: Refusal, headers: dict[str, str]) -> Response:
        if refusal.status in {401, 403}:
            parts = [f'error="{refusal.error}"', f'error_description="{refusal.why}"'] if refusal.error else []
            if refusal is MAY_NOT_READ:
                parts.append(f'scope="{READ}"')
            if self._issuer is not None:
                parts.append(f'resource_metadata="{self._metadata_url(scope)}"')
            headers = {**headers, "WWW-Authenticate": f"Bearer {', '.join(parts)}".rstrip()}
        error = refusal.error or HTTPStatus(refusal.status).phrase.lower().replace(" ", "_")
        body = {"error": error, "error_description": refusal.why}
        return JSONResponse(body, status_code=refusal.status, headers=headers)

    def _metadata(self, scope: Scope) -> Response:
        paths = {METADATA, METADATA + ENDPOINT, urlsplit(self._metadata_url(scope)).path}
        if self._issuer is None or scope["path"] not in paths:
            return JSONResponse({"error": "not_found"}, status_code=404)
        return JSONResponse(
            {
                "resource": self._resource(scope),
                "authorization_servers": [self._issuer.url],
                "scopes_supported": [*SCOPES],
                "bearer_methods_supported": ["header"],
                "resource_name": "mj-mcp",
            },
            headers={"Cache-Control": "max-age=3600"},
        )

    def _resource(self, scope: Scope) -> str:
        """This server's public URL: what its audience says, or else what the client called it."""
        if urlsplit(self._audience).scheme in {"http", "https"}:
            return self._audience
        return f"{scope.get('scheme', 'http')}://{Headers(scope=scope).get('host', '')}{ENDPOINT}"

    def _metadata_url(self, scope: Scope) -> str:
        parts = urlsplit(self._resource(scope))
        return f"{parts.scheme}://{parts.netloc}{METADATA}{parts.path.rstrip('/')}"
