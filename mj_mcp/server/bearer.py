"""Checks the bearer token of every HTTP request, and passes its holder on.

Owns the answers 401, 403 and 503 to requests without a valid login, and the metadata that tells a client where to log
in (RFC 9728). Does not know what callers do. The token is removed here: later code sees only its holder, so the token
cannot be logged or sent on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from mcp.server.auth.handlers.metadata import ProtectedResourceMetadataHandler
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.shared.auth import ProtectedResourceMetadata
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from mj_mcp.auth.tokens import READ, SCOPES, TOKEN_PREFIX, TokenFile, TokensError
from mj_mcp.settings import Settings

if TYPE_CHECKING:
    from mj_mcp.auth.issuer import Issuer

log = structlog.get_logger("mj_mcp.auth")

METADATA = "/.well-known/oauth-protected-resource"
WELL_KNOWN = "/.well-known/"
ENDPOINT = "/mcp"

MAX_TOKEN_CHARACTERS = 8192
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")

MAX_ADDRESS_CHARACTERS = 45
"""The longest way to write an IPv6 address. A forwarded address can be any text."""

LOGIN_RETRY_SECONDS = 5
"""`Retry-After` when logins cannot be checked."""


@dataclass(frozen=True, slots=True)
class LoginRefusal:
    """Why a request is refused. `error`: the code of RFC 6750 section 3.1; None if there was no token."""

    status: int
    error: str | None
    why: str


NO_TOKEN = LoginRefusal(401, None, "this server needs a login: Authorization: Bearer ...")
MALFORMED = LoginRefusal(401, "invalid_token", "the Authorization header is not one bearer token")
UNKNOWN = LoginRefusal(401, "invalid_token", "the token is unknown or was revoked")
MAY_NOT_READ = LoginRefusal(403, "insufficient_scope", f"the login lacks the scope {READ}")
CANNOT_TELL = LoginRefusal(503, None, "logins cannot be checked now; the server's log says why")


NOT_FOUND = JSONResponse({"error": "not_found"}, status_code=404)


def bearer_auth_for(settings: Settings) -> BearerAuth:
    """The check of logins that the settings ask for."""
    tokens = TokenFile(settings.token_file)
    if not settings.auth_issuer:
        return BearerAuth(tokens, None, "", always=settings.http_tokens is not None)
    from mj_mcp.auth.issuer import Issuer  # noqa: PLC0415 - only who has an issuer pays for it

    resource = f"{settings.public_url}{ENDPOINT}" if settings.public_url else settings.auth_audience
    return BearerAuth(tokens, Issuer(settings.auth_issuer, settings.auth_audience), resource)


class BearerAuth:
    """Checks logins while a server runs."""

    def __init__(
        self,
        tokens: TokenFile,
        issuer: Issuer | None,
        resource: str,
        *,
        always: bool = False,
    ) -> None:
        """`resource`: the URL of the MCP endpoint, if there is an issuer.

        `always`: a login is needed even before the first token is created.
        """
        self._tokens = tokens
        self._issuer = issuer
        self.routes: list[Route] = []
        """The routes that tell a client where to log in. They need no login."""
        self._metadata_url = ""
        if issuer is not None:
            metadata = ProtectedResourceMetadata.model_validate(
                {
                    "resource": resource,
                    "authorization_servers": [issuer.url],
                    "scopes_supported": SCOPES,
                    "resource_name": "mj-mcp",
                }
            )
            self._metadata_url = str(build_resource_metadata_url(metadata.resource))
            answer = ProtectedResourceMetadataHandler(metadata).handle
            # Some clients ask at the root, whatever the path of the resource.
            paths = {METADATA, METADATA + ENDPOINT, urlsplit(self._metadata_url).path}
            self.routes = [Route(path, answer) for path in sorted(paths)]
        self._always = always or issuer is not None

    def wants_login(self) -> bool:
        """Whether a login is needed. Once true, it stays true."""
        self._always = self._always or self._tokens.is_there()
        return self._always

    def protect(self, app: ASGIApp) -> ASGIApp:
        """The application, for callers with a valid login only."""

        async def protected(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":  # no WebSocket is served here
                await WebSocketClose()(scope, receive, send)
            elif scope["path"].startswith(WELL_KNOWN):
                await NOT_FOUND(scope, receive, send)
            elif not self.wants_login():
                await app(scope, receive, send)
            elif isinstance(found := await self._identify(scope), LoginRefusal):
                await self._refuse(scope, found)(scope, receive, send)
            else:
                bare = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
                await app({**scope, "headers": bare, "user": found}, receive, send)

        return protected

    async def _identify(self, scope: Scope) -> AuthenticatedUser | LoginRefusal:
        headers = Headers(scope=scope).getlist("authorization")
        if not headers:
            return NO_TOKEN
        shown = _BEARER.fullmatch(headers[0])
        if len(headers) > 1 or shown is None or len(shown[1]) > MAX_TOKEN_CHARACTERS:
            return MALFORMED
        if self._issuer is not None and not shown[1].startswith(TOKEN_PREFIX):
            found = await self._of_issuer(self._issuer, shown[1])
        else:
            found = self._of_file(shown[1])
        if isinstance(found, AccessToken):
            return AuthenticatedUser(found) if READ in found.scopes else MAY_NOT_READ
        return found

    def _of_file(self, token: str) -> AccessToken | LoginRefusal:
        try:
            entry = self._tokens.find(token)
        except TokensError:  # logged when the file was read
            return CANNOT_TELL
        if entry is None:
            return UNKNOWN
        return AccessToken(token="", client_id=f"token:{entry.name}", subject=entry.name, scopes=[*entry.scopes])

    async def _of_issuer(self, issuer: Issuer, token: str) -> AccessToken | LoginRefusal:
        from mj_mcp.auth.issuer import IssuerUnavailable, NotAccepted  # noqa: PLC0415 - as above

        try:
            grant = await issuer.check(token)
        except NotAccepted as failure:
            return LoginRefusal(401, "invalid_token", f"the token is not accepted: {failure}")
        except IssuerUnavailable:  # logged when the fetch failed
            return CANNOT_TELL
        return AccessToken(
            token="",
            client_id=grant.client or grant.subject,
            subject=grant.subject,
            scopes=sorted(grant.scopes & set(SCOPES)),
            expires_at=grant.expires_at,
            claims={"iss": issuer.url},
        )

    def _refuse(self, scope: Scope, refusal: LoginRefusal) -> Response:
        address = (scope.get("client") or ("unknown",))[0][:MAX_ADDRESS_CHARACTERS]
        log.warning("login_refused", status=refusal.status, reason=refusal.why, address=address)
        headers = {"Retry-After": str(LOGIN_RETRY_SECONDS)}
        if refusal is not CANNOT_TELL:
            parts = [f'error="{refusal.error}"', f'error_description="{refusal.why}"'] if refusal.error else []
            if refusal is MAY_NOT_READ:
                parts.append(f'scope="{READ}"')
            if self._metadata_url:
                parts.append(f'resource_metadata="{self._metadata_url}"')
            headers = {"WWW-Authenticate": f"Bearer {', '.join(parts)}".rstrip()}
        error = refusal.error or HTTPStatus(refusal.status).phrase.lower().replace(" ", "_")
        body = {"error": error, "error_description": refusal.why}
        return JSONResponse(body, status_code=refusal.status, headers=headers)
