"""The face: the only rooms that import the MCP SDK.

Owns how the studio looks to an MCP client. Knows nothing of how anything is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server.mcpserver import MCPServer

from mj_mcp import __version__
from mj_mcp.server.render import INSTRUCTIONS
from mj_mcp.server.resources import add_prompts, add_resources
from mj_mcp.server.stdio import serve_stdio
from mj_mcp.server.tools import Face, build_tools
from mj_mcp.settings import Settings
from mj_mcp.studio import Studio

__all__ = ["build_server", "serve_stdio"]


def build_server(studio: Studio, settings: Settings) -> MCPServer[Face]:
    """The MCP server over a studio that is open already; whoever opened it closes it."""
    face = Face(studio, settings)

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Face]) -> AsyncIterator[Face]:
        yield face

    server = MCPServer(
        "mj-mcp",
        title="Midjourney",
        description="Midjourney pictures through a Midjourney Proxy.",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=[*build_tools(read_only=settings.read_only)],
        lifespan=lifespan,
    )
    add_resources(server, face)
    add_prompts(server, face)
    return server
