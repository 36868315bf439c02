"""How long a call may block, by the client that makes it, and how long the next one should.

Owns what is known of the clients' timeouts. A call that the client cuts off is an error to the model, though the task
lives on; a wait that is too short costs one more call. Names are those that clients give in their `clientInfo`.
`docs/hosts.md` says the same to people, and how to raise each limit.
"""

from __future__ import annotations

import math

from cachetools import LRUCache

DEFAULT_WAIT_SECONDS = 25.0
"""What every client known to us survives, except those in `SHARED_NAMES`: the shortest other cut seen is 30 s."""

CLIENT_WAIT_SECONDS: dict[str, float] = {
    # Idle clock of 5 min on HTTP and 30 min on stdio, which progress resets; long calls go to the background
    # after 2 min (public documentation and threads, late 2026).
    "claude-code": 110.0,
    # Claude Desktop and the web connectors. Reports between 30 s and about 4 min, no sign that progress helps: stay
    # below the shortest.
    "claude-ai": 25.0,
    # 5 min in one report.
    "cursor-vscode": 110.0,
    "cursor": 110.0,
    # No limit in its source.
    "visual studio code": 110.0,
    "vscode": 110.0,
    # `tool_timeout_sec` is 60 s unless a person raised it.
    "codex-mcp-client": 50.0,
    # The TypeScript SDK's default of 60 s.
    "mcp-inspector": 50.0,
    "inspector-client": 50.0,
    # 60 s for n8n itself; other workflow runners 5 to 30 s, which cannot be told apart by name.
    "n8n": 25.0,
}

SHARED_NAMES = frozenset({"mcp", "fastmcp", "google-adk"})
"""Names that hasty and patient clients share. openai-agents and autogen (`mcp`) and google-adk cut at 5 s by default,
agno (`fastmcp`) at 10 s; the Python SDK (`mcp`) and the client of FastMCP (`fastmcp`) do not cut at all. Seen by
running them, November 2026."""

SHARED_WAITS = (3.0, 10.0, 25.0)
"""What such a client is proposed for one task: more each time that it comes back, since it survived the last wait."""

MARGIN_SECONDS = 5.0
"""Added to the usual remaining time, so that the proposed wait sees the end of most jobs."""

TASKS_REMEMBERED = 10_000


def wait_budget(client_name: str | None) -> float:
    """Seconds that a call of this client may block when it does not say; 25 for a client that we do not know."""
    name = _plain(client_name)
    return SHARED_WAITS[0] if name in SHARED_NAMES else CLIENT_WAIT_SECONDS.get(name, DEFAULT_WAIT_SECONDS)


class ProposedWaits:
    """How long the next call for a task should wait, by client and by how often it has come back for the task."""

    def __init__(self) -> None:
        """Nobody has come back yet."""
        self._returns: LRUCache[tuple[str, str], int] = LRUCache(TASKS_REMEMBERED)

    def came_back(self, owner: str, submission_id: str) -> None:
        """The owner asked for this task once more."""
        self._returns[owner, submission_id] = self._returns.get((owner, submission_id), 0) + 1

    def seconds(
        self, client_name: str | None, owner: str, submission_id: str, *, remaining: float | None, limit: float | None
    ) -> int:
        """Whole seconds for the next wait, at least 1. `limit` is the operator's, instead of the client's own."""
        if limit is not None:
            most = limit
        elif _plain(client_name) in SHARED_NAMES:
            times = self._returns.get((owner, submission_id), 0)
            most = SHARED_WAITS[min(times, len(SHARED_WAITS) - 1)]
        else:
            most = wait_budget(client_name)
        wished = most if remaining is None else min(most, math.ceil(remaining + MARGIN_SECONDS))
        return max(1, int(wished))


def _plain(client_name: str | None) -> str:
    return (client_name or "").strip().lower()[:100]
