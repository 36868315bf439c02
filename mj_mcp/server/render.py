"""The only room that words things for a model: tasks, errors and advice become results of MCP calls.

Owns the words. Decides nothing: what happened is decided below.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from mj_mcp.errors import MjError
from mj_mcp.journal import Page
from mj_mcp.pictures import Rendered, SavedFile
from mj_mcp.studio import Told
from mj_mcp.tasks import Image, Kind, Status, Task

SPENDING_TOOLS = frozenset({"generate_image", "upscale_image", "vary_image", "reroll", "simple_change"})

_INSTRUCTIONS = """\
Midjourney pictures. Each generate_image, upscale_image, vary_image, reroll and simple_change costs the person money \
and takes 30 to 180 seconds.
- A call may come back before the picture is done, with a task_id: call get_task with that id and wait_seconds, again \
and again, until its status is succeeded or failed. Never submit the same request again to get a result.
- A result shows the pictures on one sheet, numbered. view_image shows one of them large; {originals}.
- A grid has pictures numbered 1 to 4 (left to right, top to bottom). Ask the person which one they mean, or choose, \
and pass it as index to upscale_image (one large picture) or vary_image (four similar ones). reroll makes the grid anew.
- status unconfirmed means that the submit may have been charged. Do not repeat it: tell the person, who can look into \
the proxy's records.
- Every result lists in `next` what can be called with it."""


def instructions(*, saves: bool) -> str:
    """What a model is told of the whole server; `saves`: it saves files that the person can reach."""
    kept = (
        "save_images saves the originals and says where" if saves else "the person opens the originals by their links"
    )
    return _INSTRUCTIONS.format(originals=kept)


NEXT_STEPS = {
    "invalid_request": "Correct the argument and call again. Nothing was submitted.",
    "not_ready": "Wait with get_task until the parent task has succeeded, then call again. Nothing was submitted.",
    "task_not_found": "Check the id; list_tasks shows the tasks that this server knows.",
    "prompt_refused": "Reword the prompt without the refused word. Nothing was charged.",
    "busy": "Wait for an open task to finish (list_tasks, get_task), or as long as retry_after_seconds says, "
    "then call again.",
    "not_configured": "Tell the person to set MJ_API_KEY where this server is configured and to restart it; "
    "`mj-mcp doctor` checks the key.",
    "unauthorized": "Tell the person: MJ_API_KEY or the account's balance must be put right. Do not retry.",
    "rejected": "Read what the proxy says, change the request accordingly, or try once more later. "
    "Nothing was created.",
    "unconfirmed": "Do not submit it again: it may have been charged. Tell the person the submission_id; only the "
    "proxy's own records can show whether a task exists. `mj-mcp tasks attach` or `abandon` is theirs to run.",
    "upstream_unreachable": "Nothing was charged. Try again later; if it persists, tell the person to check "
    "MJ_BASE_URL and the network with `mj-mcp doctor`.",
    "upstream_error": "Call get_task again later: the task is kept, and nothing is lost.",
    "storage_unavailable": "Nothing was submitted. Tell the person: the server cannot write its journal "
    "(`mj-mcp doctor` says why).",
    "limit_reached": "Tell the person: the limit is theirs to change. Do not retry before it is raised or reset.",
    "image_unavailable": "Try once more later. If it stays so, give the person the link (get_task, images): "
    "they may be able to open it.",
}
"""What an agent should do, by error code."""

FREE_STEPS = {
    "invalid_request": "Correct the argument and call again.",
    "not_ready": "Wait with get_task until the task has succeeded, then call again.",
    "storage_unavailable": "Tell the person what cannot be read or written; `mj-mcp doctor` checks the journal and the "
    "folders. Tasks and their pictures are not lost by it.",
}
"""The same, where a tool that buys nothing says it."""

_STANDS = {
    Status.SUBMITTING: "is being submitted; the proxy has not answered yet",
    Status.UNCONFIRMED: "is unconfirmed: it may have been accepted and charged, and must not be submitted again",
    Status.QUEUED: "is queued",
    Status.PROCESSING: "is being made",
    Status.STALLED: "has stalled",
    Status.SUCCEEDED: "has succeeded",
    Status.FAILED: "has failed",
    Status.ABANDONED: "was given up by a person",
    Status.REFUSED: "was refused",
}

GET_TASK_WAIT = 25
"""Seconds that `next` proposes for the following call: what hosts of unknown patience survive."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one caller is told of tasks: what is proposed, and where pictures are said to be.

    `tools` are those that the caller has; `follow` is how many seconds the next call should wait. `link` gives a URL of
    this server for a picture, to a caller on another machine, where our paths say nothing.
    """

    tools: frozenset[str]
    follow: int = GET_TASK_WAIT
    resource_links: bool = True
    link: Callable[[Task, Image], str] | None = None


def task_view(told: Told, eta: float | None, manner: Manner) -> dict[str, Any]:
    """The structured content of one task. `eta`: seconds until it is usually done."""
    task = told.task
    return {
        "task_id": task.task_id,
        "submission_id": task.submission_id,
        "kind": task.kind,
        "status": task.status,
        "upstream_status": task.upstream_status,
        "progress": task.progress,
        "prompt": task.prompt,
        "parent_id": task.parent_id,
        "index": task.index,
        "images": [
            {
                "index": image.index,
                "url": manner.link(task, image) if manner.link else image.url,
                "media_type": image.media_type,
                "width": image.width,
                "height": image.height,
                "path": None if manner.link else image.path,
            }
            for image in task.images
        ],
        "failure": {"code": task.failure.code, "message": task.failure.message} if task.failure else None,
        "warnings": [*task.warnings, *told.notes, *(told.shown.missing if told.shown else ())],
        "duplicate_of_open_task": told.duplicate,
        "submitted_at": _date(task.submitted_at),
        "updated_at": _date(task.updated_at),
        "finished_at": _date(task.finished_at),
        "eta_seconds": None if eta is None else round(eta, 1),
        "next": _next(task, manner),
    }


def task_result(told: Told, eta: float | None, manner: Manner, *, bought: bool = False) -> CallToolResult:
    """One task as a result: text, then the sheet, then links, and the structured content.

    A failed task is an error of the call that bought it (`bought`), and a normal answer to anybody who asks.
    """
    view = task_view(told, eta, manner)
    content: list[ContentBlock] = [TextContent(text=_task_text(told, view, manner))]
    if told.shown is not None and told.shown.data is not None:
        content.append(ImageContent(data=told.shown.data, mime_type=told.shown.media_type or "image/webp"))
    if manner.resource_links:
        content += [_link(told.task, image) for image in told.task.images]
    failed = bought and told.task.status is Status.FAILED
    return CallToolResult(content=content, structured_content=view, is_error=failed)


def _link(task: Task, image: Image) -> ResourceLink:
    """A link that this server resolves itself, so that it outlives the proxy's."""
    return ResourceLink(
        uri=f"mj://tasks/{task.handle}/images/{image.index}",
        name=f"picture-{image.index}",
        title=f"Picture {image.index}",
        mime_type=image.media_type,
    )


def picture_result(task: Task, index: int, picture: Rendered) -> CallToolResult:
    """One picture, large enough to judge."""
    size = f"{picture.width}x{picture.height}"
    structured = {
        "task_id": task.task_id,
        "index": index,
        "media_type": picture.media_type,
        "width": picture.width,
        "height": picture.height,
    }
    return CallToolResult(
        content=[
            TextContent(text=f"Picture {index} of task {task.handle}, {size}."),
            ImageContent(data=base64.b64encode(picture.data).decode(), mime_type=picture.media_type),
        ],
        structured_content=structured,
    )


def files_result(task: Task, files: list[SavedFile]) -> CallToolResult:
    """Where the originals were saved."""
    structured = {
        "task_id": task.task_id,
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
    text = "\n".join(f"Picture {file.index}: {file.path} ({file.bytes} bytes)" for file in files)
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured)


def list_result(page: Page, remaining: Callable[[Task], float | None], manner: Manner) -> CallToolResult:
    """A page of tasks: one line each, no pictures."""
    views = [task_view(Told(task), remaining(task), manner) for task in page.tasks]
    lines = [
        f"{task.handle}  {task.status}  {task.kind or 'task'}  {_shortened(task.prompt)}".rstrip()
        for task in page.tasks
    ]
    text = "\n".join(lines) if lines else "No tasks."
    if page.next_cursor:
        text += f"\nMore: call list_tasks with cursor={page.next_cursor}."
    structured = {"tasks": views, "next_cursor": page.next_cursor}
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured)


def error_result(error: MjError, *, spends: bool = True) -> CallToolResult:
    """An error that a program can act on, and a sentence that a model can. `spends`: the tool would have bought."""
    next_step = NEXT_STEPS[error.code] if spends else (NEXT_STEPS | FREE_STEPS)[error.code]
    structured = {
        "error": {
            "code": error.code,
            "message": error.message,
            "next_step": next_step,
            "retry_after_seconds": error.retry_after_seconds,
            "submission_id": error.submission_id,
        }
    }
    lines = [f"{error.code}: {error.message}"]
    if error.submission_id:
        lines.append(f"submission_id: {error.submission_id}")
    if error.retry_after_seconds is not None:
        lines.append(f"Retry after {error.retry_after_seconds:g} s.")
    text = "\n".join([*lines, next_step])
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured, is_error=True)


def _next(task: Task, manner: Manner) -> list[dict[str, Any]]:
    if task.is_moving:
        return [{"tool": "get_task", "arguments": {"task_id": task.handle, "wait_seconds": manner.follow}}]
    if task.status is not Status.SUCCEEDED or not task.images:
        return []
    one: dict[str, Any] = {"task_id": task.handle, "index": task.images[0].index}
    calls = [
        {"tool": "view_image", "arguments": one},
        {"tool": "save_images", "arguments": {"task_id": task.handle}},
    ]
    if task.kind is not Kind.UPSCALE:
        calls += [
            {"tool": "upscale_image", "arguments": one},
            {"tool": "vary_image", "arguments": one},
            {"tool": "reroll", "arguments": {"task_id": task.handle}},
        ]
    return [call for call in calls if call["tool"] in manner.tools]


def _task_text(told: Told, view: dict[str, Any], manner: Manner) -> str:
    task = told.task
    what = f"{task.kind or 'task'} {task.handle}" + (f" of {task.parent_id} #{task.index}" if task.index else "")
    lines = [f"{what[0].upper()}{what[1:]} {_STANDS[task.status]}{_how_far(task, view)}."]
    if told.duplicate:
        lines.append("An identical request was open already: this is it, and nothing new was submitted.")
    if task.failure and task.status is Status.FAILED:
        lines.append(f"The proxy says: {task.failure.message}")
    lines += [f"Picture {image['index']}: {image['path'] or image['url']}" for image in view["images"]]
    lines += [f"Warning: {warning}" for warning in view["warnings"]]
    if task.is_moving:
        lines.append(
            f'Call get_task with task_id="{task.handle}" and wait_seconds={manner.follow} to go on waiting. '
            "Do not submit it again."
        )
    elif view["next"]:
        lines.append(_advice(view))
    return "\n".join(lines)


def _advice(view: dict[str, Any]) -> str:
    offered = {call["tool"] for call in view["next"]}
    free = "view_image shows one picture large; it is free."
    if "save_images" in offered:
        free = "view_image shows one picture large, save_images saves the originals; both are free."
    if offered.isdisjoint(SPENDING_TOOLS):
        return free
    return f"Choose a picture by its index: {free} upscale_image, vary_image and reroll cost money."


def _how_far(task: Task, view: dict[str, Any]) -> str:
    if not task.is_watched:
        return ""
    parts = [f"{task.progress} % by the proxy"] if task.progress is not None else []
    if view["eta_seconds"] is not None:
        parts.append(f"usually done in about {view['eta_seconds']:.0f} s")
    if task.status is Status.STALLED:
        parts.append(f"nothing has moved since {view['updated_at']}")
    return f" ({', '.join(parts)})" if parts else ""


def _date(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shortened(prompt: str | None) -> str:
    text = prompt or ""
    return text if len(text) <= 80 else text[:77] + "..."
