"""The least that this SDK can do: a bare `MCPServer` with one tool, on the SDK's own transports. What we are measured by.

    bare.py                                   on stdio
    bare.py --http --port N [--stateless]     on HTTP, as quiet as ours: no line for each request
"""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("bare", log_level="WARNING")


@server.tool()
def echo(text: str) -> str:
    """Say it back."""
    return text


if __name__ == "__main__":
    if "--http" in sys.argv:
        port = int(sys.argv[sys.argv.index("--port") + 1])
        server.run("streamable-http", port=port, stateless_http="--stateless" in sys.argv)
    else:
        server.run()
