"""What a person can attach or choose: tasks as resources, prompts as slash commands, completion of ids.

Owns the `mj://` URIs. The words come from `render/`.
"""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp_types import Completion, ResourceTemplateReference

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


def add_prompts(server: MCPServer[ToolContext], context: ToolContext) -> None:
    """Register the prompts, and the completion of task ids."""

    @server.prompt(title="Make a picture")
    def make_picture(subject: str) -> str:
        """Draw a subject with Midjourney, choose the best of four, and make it large."""
        return (
            f"Make a Midjourney picture of: {subject}\n"
            "Write one vivid prompt, call generate_image once, wait with get_task until it has succeeded, describe the "
            "four pictures to me, and ask which index I want before you call upscale_image."
        )

    @server.prompt(title="What became of my pictures")
    def catch_up() -> str:
        """Look through recent tasks and finish what is open."""
        return (
            "Call list_tasks. Tell me which pictures are finished, wait with get_task for those that are still being "
            "made, and name every unconfirmed submission. Do not submit anything."
        )

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]  # the SDK leaves it untyped
    async def complete(reference: Any, argument: Any, _context: Any) -> Completion | None:  # noqa: ANN401 - the SDK's signature
        if not isinstance(reference, ResourceTemplateReference) or argument.name != "task_id":
            return None
        try:
            page = await context.studio.list_tasks(caller().owner, None, 100, None)
        except MjError:
            return None
        ids = [task.task_id for task in page.tasks if task.task_id and task.task_id.startswith(argument.value)]
        return Completion(values=ids, total=len(ids), has_more=page.next_cursor is not None)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
