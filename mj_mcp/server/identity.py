"""Who calls: the owner of what a call buys and sees, and what the caller may do.

Owns the step from a request's credential to an identity. Knows nothing of how a credential is checked.
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
    """A caller. `owner` names whose tasks are seen: nobody else's exist for this caller."""

    owner: str
    scopes: frozenset[str]
    origin: str | None = None
    """The address by which it reached this server over HTTP, with a slash at its end; None on stdio."""

    @property
    def may_spend(self) -> bool:
        """Whether it may buy; every caller may look, or it would not have come in."""
        return SPEND in self.scopes


LOCAL = Identity(LOCAL_OWNER, frozenset(SCOPES))
"""The person at this machine: on stdio, and over HTTP where nobody has to log in."""

_CALLER: ContextVar[Identity] = ContextVar("caller", default=LOCAL)


def caller() -> Identity:
    """Who makes the call that is being answered."""
    return _CALLER.get()


async def identify(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:  # noqa: ANN401 - the SDK's signature
    """Middleware: each message is its sender's, also in a session, whose task began with another message."""
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
    """Whose tasks the token's holder sees: an issuer's subject, or the name of a token, so that a new one keeps them.

    An issuer is a URL, so the two kinds never meet, and neither is ever `local`.
    """
    _client, issuer, subject = principal_components(token)
    return f"{issuer}#{subject}" if issuer else f"token:{subject}"
