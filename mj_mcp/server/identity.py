"""Who calls: the owner of what a call buys and sees, and what the caller may do.

Owns the step from a request's credential to an identity. Knows nothing of how a credential is checked.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.context import CallNext, ServerRequestContext

from mj_mcp.tasks import LOCAL_OWNER

READ, SPEND = "mj:read", "mj:spend"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `owner` names whose tasks are seen: nobody else's exist for this caller."""

    owner: str
    scopes: frozenset[str]


LOCAL = Identity(LOCAL_OWNER, frozenset({READ, SPEND}))
"""The person at this machine: on stdio, and over HTTP where nobody has to log in."""

_CALLER: ContextVar[Identity] = ContextVar("caller", default=LOCAL)


def caller() -> Identity:
    """Who makes the call that is being answered."""
    return _CALLER.get()


async def identify(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:  # noqa: ANN401 - the SDK's signature
    """Middleware: each message is its sender's, also in a session, whose task began with another message."""
    user = ctx.request.scope.get("user") if ctx.request is not None else None
    if not isinstance(user, AuthenticatedUser):
        return await call_next(ctx)
    token = user.access_token
    before = _CALLER.set(Identity(token.subject or token.client_id, frozenset(token.scopes)))
    try:
        return await call_next(ctx)
    finally:
        _CALLER.reset(before)
