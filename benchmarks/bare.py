"""The least that this SDK can do: a bare `MCPServer` with one tool, on the SDK's own stdio. What we are measured by."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("bare")


@server.tool()
def echo(text: str) -> str:
    """Say it back."""
    return text


if __name__ == "__main__":
    server.run()
