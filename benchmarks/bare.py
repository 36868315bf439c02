"""The least that this SDK can do: a bare `MCPServer` with one tool, on the SDK's transports. What we are measured by.

bare.py                                        on stdio
bare.py serve --http --port N [--stateless]    over HTTP, as quiet as ours, and with a tool to wait in
"""

from __future__ import annotations

import asyncio
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("bare", log_level="WARNING")


@server.tool()
def echo(text: str) -> str:
    """Say it back."""
    return text


async def wait(seconds: float) -> str:
    """Say nothing for so long."""
    await asyncio.sleep(seconds)
    return "done"


if __name__ == "__main__":
    if "--http" in sys.argv:
        server.add_tool(wait)
        port = int(sys.argv[sys.argv.index("--port") + 1])
        server.run("streamable-http", port=port, stateless_http="--stateless" in sys.argv)
    else:
        server.run()
