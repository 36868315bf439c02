"""The MCP server. Only this package imports the MCP SDK.

Owns how the studio appears to an MCP client. Does not know how anything is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult
from mcp_types import Prompt as MCPPrompt
from mcp_types import Tool as MCPTool
from pydantic import AnyUrl

from mj_mcp import __version__
from mj_mcp.errors import InvalidRequest, LimitReached, shortened
from mj_mcp.events import Observer, ignore
from mj_mcp.pictures import media_type_of
from mj_mcp.server.completions import add_completions
from mj_mcp.server.identity import caller, identify
from mj_mcp.server.menu import PROMPTS
from mj_mcp.server.render import CANNOT, error_result, instructions
from mj_mcp.server.resources import add_resources
from mj_mcp.server.skills import Skills
from mj_mcp.server.stdio import serve_stdio
from mj_mcp.server.subscriptions import Bus, serve_older
from mj_mcp.server.task_handles import TaskHandles
from mj_mcp.server.tool_call import ToolContext
from mj_mcp.server.tools import SPENDING_TOOLS, TOOLS, build_tools
from mj_mcp.server.views import declare_to_older, view_extension
from mj_mcp.settings import Settings
from mj_mcp.studio import Studio
from mj_mcp.tasks import Image, Task

__all__ = ["build_server", "serve_stdio"]


class Server(MCPServer[ToolContext]):
    """The SDK's server, with tools and prompts per caller, errors for unknown ones, and typed binary resources."""

    async def list_tools(self) -> list[MCPTool]:
        """The tools that the caller may use."""
        tools = await super().list_tools()
        return tools if caller().may_spend else [tool for tool in tools if tool.name not in SPENDING_TOOLS]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[ToolContext, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. An unknown one is answered with the list of tools."""
        if self._tool_manager.get_tool(name) is None:
            if name in SPENDING_TOOLS:
                message = (
                    f"this server is read-only (MJ_READ_ONLY): {name} and every other tool that costs money is removed"
                )
                return error_result(LimitReached(message))
            there = ", ".join(tool.name for tool in await self.list_tools())
            message = f"There is no tool `{shortened(name)}`. The tools are: {there}. {CANNOT}"
            return error_result(InvalidRequest.because(message), spends=False)
        return await super().call_tool(name, arguments, context)

    async def list_prompts(self) -> list[MCPPrompt]:
        """The prompts that the caller may use."""
        prompts = await super().list_prompts()
        return [prompt for prompt in prompts if caller().may_spend or not PROMPTS[prompt.name].spends]

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[ToolContext, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """The text of a prompt. One that the caller does not have is answered with the list of prompts."""
        there = [prompt.name for prompt in await self.list_prompts()]
        if name not in there:
            message = f"There is no prompt `{shortened(name)}` for you here. The prompts are: {', '.join(there)}."
            raise MCPError(INVALID_PARAMS, message)
        return await super().get_prompt(name, arguments, context)

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[ToolContext, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource. Pictures get their real MIME type, where the SDK's template has one type for all."""
        contents = await super().read_resource(uri, context)
        return contents if isinstance(contents, InputRequiredResult) else [_typed(item) for item in contents]


def _typed(item: ReadResourceContents) -> ReadResourceContents:
    found = media_type_of(item.content) if isinstance(item.content, bytes) else None
    return replace(item, mime_type=found or item.mime_type)


def build_server(
    studio: Studio,
    settings: Settings,
    observe: Observer = ignore,
    *,
    link: Callable[[Task, Image], str] | None = None,
    sessions: bool = True,
) -> MCPServer[ToolContext]:
    """The MCP server over an open studio. The caller closes the studio.

    `link` returns picture URLs for callers on other machines. For those, files are saved only if a person set a folder.
    Without `sessions`, clients of the older generation cannot be notified, and subscriptions are not offered to them.
    """
    saves = link is None or "output_dir" in settings.model_fields_set
    tools = build_tools(spends=not settings.read_only, saves=saves, view=settings.view)
    names = {tool.name for tool in tools}
    context = ToolContext(studio, settings, observe, tuple(spec for spec in TOOLS if spec.name in names), link)
    views = [view_extension()] if settings.view else []
    bus = Bus()
    studio.listeners.follow(bus.notify)
    server = Server(
        "mj-mcp",
        title="Midjourney",
        description="Midjourney pictures through a Midjourney Proxy.",
        instructions=instructions(saves=saves),
        version=__version__,
        tools=[*tools],
        lifespan=lambda _server: nullcontext(context),
        subscriptions=bus,
        extensions=[TaskHandles(context), Skills(), *views],  # the SDK reads them in its constructor only
        middleware=[identify, *([declare_to_older] if views else [])],
    )
    add_resources(server, context)
    for prompt in PROMPTS.values():
        if not (prompt.spends and settings.read_only):
            server.add_prompt(prompt)
    add_completions(server, context)
    if sessions:
        serve_older(server._lowlevel_server, bus)  # noqa: SLF001 - the SDK has no public way to serve older subscribers
    return server
