"""How long a call may block, by the host that makes it.

Owns what is known of hosts' patience. A wait that a host cuts off is an error to the model, though the task lives on;
a wait that is too short costs one more call. Names are those that clients give in their `clientInfo`.
"""

from __future__ import annotations

DEFAULT_WAIT_SECONDS = 25.0
"""What every host known to us survives: the shortest cut seen is 30 s."""

HOST_WAIT_SECONDS: dict[str, float] = {
    # Idle clock of 5 min on HTTP and 30 min on stdio, which progress resets; long calls go to the background
    # after 2 min (public documentation and threads, late 2026).
    "claude-code": 110.0,
    # Reports between 60 s and about 4 min, no sign that progress helps: stay below the shortest.
    "claude-ai": 25.0,  # the name that Claude Desktop and the web connectors give; connectors cut at 30 to 60 s
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


def wait_seconds_for(client_name: str | None) -> float:
    """Seconds that a call of this client may block when it does not say; 25 for one that we do not know."""
    return HOST_WAIT_SECONDS.get((client_name or "").strip().lower(), DEFAULT_WAIT_SECONDS)
