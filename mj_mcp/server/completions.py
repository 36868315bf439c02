"""What a person is offered while filling in an argument of a prompt or of a resource's address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp_types import Completion, PromptReference

from mj_mcp.errors import MjError
from mj_mcp.server.identity import caller
from mj_mcp.server.menu import PROMPTS
from mj_mcp.server.tool_call import ToolContext
from mj_mcp.tasks import Status

MOST_VALUES = 100
"""The most values of one answer, by the protocol."""


def add_completions(server: MCPServer[ToolContext], context: ToolContext) -> None:
    """Register the completions. Free text, and a journal that does not answer, are offered nothing."""

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]  # the SDK leaves it untyped
    async def complete(reference: Any, argument: Any, filled: Any) -> Completion | None:  # noqa: ANN401 - the SDK's signature
        try:
            if isinstance(reference, PromptReference):
                values = await _for_prompt(context, reference.name, argument.name)
            else:
                known = (filled.arguments if filled else None) or {}
                values = await _for_resource(context, argument.name, known.get("task_id"))
        except MjError:
            return None
        return _matching(values, argument.value.strip())


async def _for_prompt(context: ToolContext, prompt: str, argument: str) -> list[str]:
    takes = PROMPTS[prompt].takes if prompt in PROMPTS else ()
    found = next((one for one in takes if one.name == argument), None)
    if found is None:
        return []
    if not found.is_picture:
        return list(found.suggested)
    page = await context.studio.list_tasks(caller().owner, Status.SUCCEEDED, MOST_VALUES, None)
    return [f"{task.handle}#{image.index}" for task in page.tasks for image in task.images if not image.is_video]


async def _for_resource(context: ToolContext, argument: str, task_id: str | None) -> list[str]:
    """Ids of tasks; or, once the task is known, the indexes of its pictures."""
    page = await context.studio.list_tasks(caller().owner, None, MOST_VALUES, None)
    if argument == "task_id":
        return [task.task_id for task in page.tasks if task.task_id]
    return [str(image.index) for task in page.tasks if task_id in {task.task_id, task.handle} for image in task.images]


def _matching(values: Iterable[str], beginning: str) -> Completion:
    found = [value for value in values if value.startswith(beginning)]
    return Completion(values=found[:MOST_VALUES], total=len(found), has_more=len(found) > MOST_VALUES)
