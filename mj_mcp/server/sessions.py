"""Sessions of older clients: how many are allowed, and which one ends when there is no room for a new one.

Owns the choice among open sessions. It is made per login, so that no login can keep the others out. Does not know how
a login is checked. The sessions themselves are the SDK's.
"""

from __future__ import annotations

import math
from collections import Counter

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

SESSION_RETRY_SECONDS = 10
"""`Retry-After` when there is no room."""


class Sessions(StreamableHTTPSessionManager):
    """The SDK's sessions. Instead of refusing a new one, it ends the longest idle one of the login with most sessions.

    A session is idle while it has no request and no stream open. If a login has only busy sessions, a new one of
    another login ends the oldest; a new one of the same login is refused and may be retried.
    """

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        if self.max_sessions is not None and len(self._server_instances) >= self.max_sessions:
            victim = self._victim(_login(requestor))
            if victim is not None and self._task_group is not None:
                # Removed here, so that there is room at once; its resources are released later.
                self._task_group.start_soon(self._discard_session, victim, self._server_instances.pop(victim))
        return super()._admit_session(requestor)

    def _victim(self, login: str) -> str | None:
        """The session to end so that this login gets one; None if it has to wait."""
        owners = {session: _login(self._session_owners.get(session)) for session in self._server_instances}
        counts = Counter(owners.values())
        loser, most = counts.most_common(1)[0]
        # If the login would then have as many sessions as the other, the other would take this one back.
        if counts[login] + 1 >= most:
            loser = login
        idle_since = {session: self._idle_since(session) for session, owner in owners.items() if owner == loser}
        victim = min(idle_since, key=lambda session: idle_since[session], default=None)
        busy = victim is not None and idle_since[victim] == math.inf
        return None if busy and loser == login else victim

    def _idle_since(self, session: str) -> float:
        """When it became idle, on a monotonic clock; infinite while it is busy."""
        scope = self._server_instances[session].idle_scope
        return math.inf if scope is None else scope.deadline

    async def _handle_stateful_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_retry(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                message["headers"].append((b"retry-after", str(SESSION_RETRY_SECONDS).encode()))
            await send(message)

        opens = MCP_SESSION_ID_HEADER not in Headers(scope=scope)
        await super()._handle_stateful_request(scope, receive, send_with_retry if opens else send)


def _login(principal: AuthorizationContext | None) -> str:
    """The login that owns the session. All clients of one person count together."""
    return "" if principal is None else f"{principal['issuer']}#{principal['subject']}"
