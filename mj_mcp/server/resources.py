"""What a person can attach: tasks and their pictures as resources.

Owns the `mj://` URIs. The words come from `render/`.
"""

from __future__ import annotations

import json

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from mj_mcp.errors import InvalidRequest, MjError, NotReady, TaskNotFound
from mj_mcp.server.identity import caller
from mj_mcp.server.render import list_view, task_view
from mj_mcp.server.tool_call import ToolContext
from mj_mcp.studio import Call

RECENT = 20


def add_resources(server: MCPServer[ToolContext], context: ToolContext) -> None:
    """Register the resources."""

    @server.resource("mj://tasks", title="Recent tasks", mime_type="application/json")
    async def recent_tasks() -> str:
        """The newest tasks of this account."""
        page = await context.studio.list_tasks(caller().owner, None, RECENT, None)
        return _json(list_view(page, context.studio.remaining))

    @server.resource("mj://tasks/{task_id}", title="A task", mime_type="application/json")
    async def one_task(task_id: str) -> str:
        """The current state of one task."""
        try:
            context.require_key()
            result = await context.studio.recall(Call(owner=caller().owner), task_id)
        except TaskNotFound as failure:
            raise ResourceNotFoundError(failure.message) from failure
        except MjError as failure:
            raise ResourceError(failure.message) from failure
        return _json(task_view(result, context.studio.remaining(result.task), context.presentation()))

    @server.resource("mj://tasks/{task_id}/images/{index}", title="An original picture", mime_type="image/png")
    async def original(task_id: str, index: str) -> bytes:
        """One full-size original of a finished task."""
        try:
            context.require_key()
            return (await context.studio.original(Call(owner=caller().owner), task_id, int(index))).data
        except (TaskNotFound, InvalidRequest, NotReady, ValueError) as failure:
            raise ResourceNotFoundError(str(failure)) from failure
        except MjError as failure:
            raise ResourceError(failure.message) from failure


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
