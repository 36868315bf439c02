"""How long a call may block, by client, and how long its next call should wait.

Owns what is known of clients' timeouts. If the client cuts a call, the model gets an error although the task goes on; a
wait that is too short costs one more call. The names are those in the clients' `clientInfo`. `docs/hosts.md` has the
same table for people, and says how to raise each limit.
"""

from __future__ import annotations

import math

from cachetools import LRUCache

DEFAULT_WAIT_SECONDS = 25.0
"""Allowed by every known client except those in `SHARED_NAMES`: the shortest other timeout is 30 s."""

CLIENT_WAIT_SECONDS: dict[str, float] = {
    # Idle timeout of 5 min on HTTP and 30 min on stdio, which progress resets. Long calls move to the background after
    # 2 min (public documentation and threads, late 2026).
    "claude-code": 110.0,
    # Claude Desktop and the web connectors. Reports between 30 s and about 4 min; no sign that progress helps. So stay
    # below the shortest.
    "claude-ai": 25.0,
    # 5 min in one report.
    "cursor-vscode": 110.0,
    "cursor": 110.0,
    # No limit in its source.
    "visual studio code": 110.0,
    "vscode": 110.0,
    # `tool_timeout_sec` is 60 s unless a person raises it.
    "codex-mcp-client": 50.0,
    # The TypeScript SDK's default of 60 s.
    "mcp-inspector": 50.0,
    "inspector-client": 50.0,
    # 60 s for n8n itself; 5 to 30 s for other workflow runners with the same name.
    "n8n": 25.0,
}

SHARED_NAMES = frozenset({"mcp", "fastmcp", "google-adk"})
"""Names that impatient and patient clients share. openai-agents and autogen (`mcp`) and google-adk time out after 5 s
by default, agno (`fastmcp`) after 10 s; the Python SDK (`mcp`) and FastMCP's client (`fastmcp`) never. Measured in
November 2026."""

SHARED_WAITS = (3.0, 10.0, 25.0)
"""The waits proposed to such a client for one task, longer each time, since it survived the last one."""

MARGIN_SECONDS = 5.0
"""Added to the usual remaining time, so that most jobs end within the proposed wait."""

TASKS_REMEMBERED = 10_000


def wait_budget(client_name: str | None) -> float:
    """Seconds that a call of this client may block without `wait_seconds`; 25 for an unknown client."""
    name = _plain(client_name)
    return SHARED_WAITS[0] if name in SHARED_NAMES else CLIENT_WAIT_SECONDS.get(name, DEFAULT_WAIT_SECONDS)


class ProposedWaits:
    """How long the next call for a task should wait, by client and by how often it has asked for the task."""

    def __init__(self) -> None:
        """Starts empty."""
        self._returns: LRUCache[tuple[str, str], int] = LRUCache(TASKS_REMEMBERED)

    def came_back(self, owner: str, submission_id: str) -> None:
        """The owner asked for this task again."""
        self._returns[owner, submission_id] = self._returns.get((owner, submission_id), 0) + 1

    def seconds(
        self, client_name: str | None, owner: str, submission_id: str, *, remaining: float | None, limit: float | None
    ) -> int:
        """Whole seconds for the next wait, at least 1. `limit` is the operator's and replaces the client's own."""
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
