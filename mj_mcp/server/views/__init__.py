"""The view that hosts with MCP Apps show beside a tool's answer (`io.modelcontextprotocol/ui`).

Owns its URI, what hosts are told of it, and where its file is. The view itself is `view.html`: one file that asks for
nothing outside and calls the published tools through the host. Results are the same with and without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID, Apps
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.mcpserver.resources import FileResource

VIEW_URI = "ui://mj/view.html"
VIEW_FILE = Path(__file__).resolve().with_name("view.html")

TOOL_META: dict[str, Any] = {"ui": {"resourceUri": VIEW_URI}, "ui/resourceUri": VIEW_URI}
"""The `_meta` of a tool whose answers the view shows. Hosts built before 2026 read the flat key."""

# One host ignores declared domains and another warns if they are missing, so each list is declared. No address is in
# any: the Inspector shows no picture unless `data:` is declared, which the specification allows by itself. No `domain`:
# each host has a format of its own, and one that it does not accept mounts nothing.
_RESOURCE_META: dict[str, Any] = {
    "ui": {
        "csp": {"connectDomains": [], "resourceDomains": ["data:"], "frameDomains": [], "baseUriDomains": []},
        "permissions": {"clipboardWrite": {}},
        "prefersBorder": True,
    }
}


def view_extension() -> Apps:
    """The extension with the view as its only resource. The file is read when a host asks for it."""
    apps = Apps()
    apps.add_resource(
        FileResource(
            uri=VIEW_URI,
            name="view",
            title="Pictures",
            description="Shows tasks and their pictures beside the answer, with actions on each picture.",
            mime_type=APP_MIME_TYPE,
            meta=_RESOURCE_META,
            path=VIEW_FILE,
            encoding="utf-8",
        )
    )
    return apps


async def declare_to_older(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:  # noqa: ANN401 - the SDK's signature
    """Middleware: names the extension in the answer to `initialize`, where the SDK leaves it out."""
    result = await call_next(ctx)
    if ctx.method == "initialize" and isinstance(result, dict):
        result["capabilities"].setdefault("extensions", {})[EXTENSION_ID] = {}
    return result
