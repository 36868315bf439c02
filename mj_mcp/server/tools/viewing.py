"""The tools that show and save pictures."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import CallToolResult
from pydantic import Field

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts.options import reference
from mj_mcp.server.render import compared_result, files_result, picture_result, sheet_result
from mj_mcp.server.shapes import FilesView
from mj_mcp.server.tool_call import ToolCall
from mj_mcp.server.tool_spec import ToolSpec
from mj_mcp.server.tools.types import PictureIndex, TaskId
from mj_mcp.tasks import Task

MOST_COMPARED = 8


async def view_image(
    call: ToolCall,
    task_id: Annotated[str | None, Field(max_length=128, description="task_id or submission_id.")] = None,
    index: Annotated[
        Annotated[int, Field(ge=1, le=16)] | None, Field(description="Which picture. Left out: all on one sheet.")
    ] = None,
    compare: Annotated[
        list[str] | None, Field(description="Instead of task_id: up to 8 TASK_ID#INDEX, side by side.")
    ] = None,
    max_edge: Annotated[int, Field(ge=256, le=2048, description="Longer edge, pixels.")] = 1024,
) -> CallToolResult:
    """Show pictures of finished tasks: one large, all of a task, or several tasks side by side. Free."""
    if compare:
        if task_id is not None or index is not None:
            raise InvalidRequest.because("Give either `task_id` (with `index`) or `compare`, not both.")
        return compared_result(await call.studio.several.compare(call.caller, _references(compare)))
    if task_id is None:
        raise InvalidRequest.because("`task_id` must be given, or `compare` with several TASK_ID#INDEX.")
    if index is None:
        return sheet_result(await call.studio.view_sheet(call.caller, task_id))
    task, picture = await call.studio.view(call.caller, task_id, index, max_edge)
    return picture_result(task, index, picture)


async def save_images(
    call: ToolCall,
    task_id: TaskId,
    indexes: Annotated[list[PictureIndex] | None, Field(description="Which pictures. Default: all.")] = None,
    folder: Annotated[str | None, Field(description="A folder inside the output folder.")] = None,
    name: Annotated[
        str | None, Field(max_length=60, description="File name without its ending. Default: the id.")
    ] = None,
) -> Annotated[CallToolResult, FilesView]:
    """Save a finished task's full-size pictures on this machine; returns their paths. Free."""
    task, files = await call.studio.save(call.caller, task_id, indexes, folder, name)
    return files_result(task, files)


def _references(compare: list[str]) -> list[tuple[str, int]]:
    problems: list[str] = []
    found = []
    if len(compare) > MOST_COMPARED:
        problems.append(f"`compare` must be at most {MOST_COMPARED} pictures (got {len(compare)}).")
    for text in compare[:MOST_COMPARED]:
        if (picture := reference(text)) is None:
            problems += InvalidRequest("compare", text, "TASK_ID#INDEX, such as 4206749475220754#2").problems
        else:
            found.append((picture.handle, picture.index))
    if problems:
        raise InvalidRequest.because(*problems)
    return found


def _whole(task: Task) -> dict[str, Any] | None:
    return None if any(image.is_video for image in task.images) else {"task_id": task.handle}


TOOLS = (
    ToolSpec(verb=view_image, title="View image", next=_whole),
    ToolSpec(verb=save_images, title="Save images", saves=True, next=_whole),
)
