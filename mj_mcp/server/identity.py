"""The caller: the owner of what a call buys and sees, and what the caller may do.

Owns the step from a checked login to an identity. Does not know how a login is checked.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken, principal_components
from mcp.server.context import CallNext, ServerRequestContext
from starlette.requests import Request

from mj_mcp.auth.tokens import SCOPES, SPEND
from mj_mcp.tasks import LOCAL_OWNER


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. It sees the tasks of `owner` and no others."""

    owner: str
    scopes: frozenset[str]
    origin: str | None = None
    """The address of this server that the caller used over HTTP, ending with a slash; None on stdio."""

    @property
    def may_spend(self) -> bool:
        """Whether it may submit. Every caller may read, or the login would have been refused."""
        return SPEND in self.scopes


LOCAL = Identity(LOCAL_OWNER, frozenset(SCOPES))
"""The person at this machine: on stdio, and over HTTP where no login is needed."""

_CALLER: ContextVar[Identity] = ContextVar("caller", default=LOCAL)


def caller() -> Identity:
    """The caller of the current call."""
    return _CALLER.get()


async def identify(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:  # noqa: ANN401 - the SDK's signature
    """Middleware: each message has its own sender, even in a session that another message started."""
    if ctx.request is None:
        return await call_next(ctx)
    before = _CALLER.set(_identity(ctx.request))
    try:
        return await call_next(ctx)
    finally:
        _CALLER.reset(before)


def _identity(request: Request) -> Identity:
    user, origin = request.scope.get("user"), str(request.base_url)
    if not isinstance(user, AuthenticatedUser):
        return replace(LOCAL, origin=origin)
    return Identity(_owner(user.access_token), frozenset(user.access_token.scopes), origin)


def _owner(token: AccessToken) -> str:
    """The owner for a token: an issuer's subject, or the name of a token, so that a new token keeps the tasks.

    An issuer is a URL, so the two kinds never collide, and neither is ever `local`.
    """
    _client, issuer, subject = principal_components(token)
    return f"{issuer}#{subject}" if issuer else f"token:{subject}"
