"""Pictures and files as results of calls.

`view_image` has no structured content: clients that pass only that to the model would drop the picture.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from mj_mcp.pictures import Rendered, SavedFile
from mj_mcp.studio import Result
from mj_mcp.studio.several import Compared
from mj_mcp.tasks import Task


def picture_result(task: Task, index: int, picture: Rendered) -> CallToolResult:
    """One picture, large enough to judge."""
    text = f"Picture {index} of task {task.handle}, {picture.width}x{picture.height}."
    data = base64.b64encode(picture.data).decode()
    return CallToolResult(content=[TextContent(text=text), ImageContent(data=data, mime_type=picture.media_type)])


def sheet_result(result: Result) -> CallToolResult:
    """All pictures of a task on one sheet."""
    count = len(result.task.images)
    text = f"The {count} pictures of task {result.task.handle}, numbered 1 to {count}."
    if count == 1:
        text = f"The picture of task {result.task.handle}."
    return _with_picture(text, result)


def compared_result(compared: Compared) -> CallToolResult:
    """Pictures of several tasks side by side, each tile with its label."""
    lines = ["Side by side:"]
    lines += [f"{one.label}: picture {one.index} of task {one.task.handle}" for one in compared.pictures]
    return _with_picture("\n".join(lines), compared)


def _with_picture(text: str, shown_by: Result | Compared) -> CallToolResult:
    shown = shown_by.shown
    lines = [text, *(f"Warning: {why}" for why in (shown.missing if shown else ()))]
    content: list[ContentBlock] = [TextContent(text="\n".join(lines))]
    if shown is not None and shown.data is not None:
        content.append(ImageContent(data=shown.data, mime_type=shown.media_type or "image/webp"))
    return CallToolResult(content=content)


def files_result(task: Task, files: Sequence[SavedFile]) -> CallToolResult:
    """Where the originals were saved."""
    text = "\n".join(f"Picture {file.index}: {file.path} ({file.bytes} bytes)" for file in files)
    structured = {
        "message": text,
        **({"task_id": task.task_id} if task.task_id else {}),
        "files": [
            {
                "index": file.index,
                "path": str(file.path),
                "bytes": file.bytes,
                "sha256": file.sha256,
                "media_type": file.media_type,
            }
            for file in files
        ],
    }
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured)
