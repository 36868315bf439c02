"""One task as a result of a call: text, then the sheet, then links, and the structured content.

Clients differ in what they pass to the model: text and pictures, only the structured content, or only the text of a
result without it. So the text and the structured content (`message`, `next`) are each complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from mj_mcp.server.render.error_results import failed_result
from mj_mcp.server.render.warnings import warnings_of
from mj_mcp.server.tool_spec import ToolSpec, next_calls
from mj_mcp.studio import Result
from mj_mcp.tasks import Image, Status, Task

PROMPT_CHARACTERS = 120
"""The length of a prompt in a text. The structured content of a task has all of it."""

_STATUS_TEXT = {
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


@dataclass(frozen=True, slots=True)
class Presentation:
    """How tasks are shown to one caller: its tools, what it can open, and how long its next call should wait.

    `link` returns a URL of this server for a picture. Callers on other machines need it, since our paths do not exist
    there.
    """

    tools: tuple[ToolSpec, ...]
    wait_seconds: int = 25
    resource_links: bool = False
    inline_images: bool = True
    link: Callable[[Task, Image], str] | None = None

    def url(self, task: Task, image: Image) -> str:
        """Where the caller can open it. This server never has videos."""
        return self.link(task, image) if self.link and not image.is_video else image.url


def task_view(
    result: Result, eta: float | None, presentation: Presentation, again: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The structured content of one task.

    `eta`: seconds until it is usually done. `again`: the call that buys another one, if an earlier task answers.
    """
    task = result.task
    facts = {
        "task_id": task.task_id,
        "submission_id": task.submission_id,
        "kind": task.kind,
        "status": task.status,
        "upstream_status": task.upstream_status,
        "progress": task.progress,
        "prompt": task.prompt,
        "parent_id": task.parent_id,
        "index": task.index,
        "button": task.button,
        "buttons": list(task.buttons) or None,
        "images": [_image_view(task, image, presentation) for image in task.images],
        "failure": {"code": task.failure.code, "message": task.failure.message} if task.failure else None,
        "warnings": warnings_of(result),
        "duplicate_of": task.submission_id if result.duplicate else None,
        "duplicate_of_open_task": task.is_open if result.duplicate else None,
        "submitted_at": rfc3339(task.submitted_at),
        "updated_at": rfc3339(task.updated_at),
        "finished_at": rfc3339(task.finished_at),
        "eta_seconds": None if eta is None else round(eta, 1),
        "next": [*_next(task, presentation), *([again] if result.duplicate and again else [])],
    }
    view = present_only(facts)
    return {"message": _message(result, view, presentation)} | view


def task_result(
    result: Result,
    eta: float | None,
    presentation: Presentation,
    *,
    bought: bool = False,
    again: dict[str, Any] | None = None,
) -> CallToolResult:
    """One task as a result.

    A failed task is an error of the call that bought it (`bought`), and a normal answer to any other call. An error has
    no structured content; its text says what happened to the task.
    """
    view = task_view(result, eta, presentation, again)
    failure = result.task.failure
    if bought and result.task.status is Status.FAILED and failure is not None:
        return failed_result(failure.code, view["message"], result.task.submission_id)
    content: list[ContentBlock] = [TextContent(text=view["message"])]
    if presentation.inline_images and result.shown is not None and result.shown.data is not None:
        content.append(ImageContent(data=result.shown.data, mime_type=result.shown.media_type or "image/webp"))
    if presentation.resource_links:
        content += [_resource_link(result.task, image) for image in result.task.images]
    return CallToolResult(content=content, structured_content=view)


def present_only(facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` without fields that have no value."""
    return {name: value for name, value in facts.items() if value is not None}


def rfc3339(seconds: float | None) -> str | None:
    """A time in UTC, to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shortened_prompt(prompt: str | None, characters: int = PROMPT_CHARACTERS) -> str:
    """The prompt on one line, cut to this length."""
    text = " ".join((prompt or "").split())
    return text if len(text) <= characters else text[: characters - 3].rstrip() + "..."


def _image_view(task: Task, image: Image, presentation: Presentation) -> dict[str, Any]:
    return present_only(
        {
            "index": image.index,
            "url": presentation.url(task, image),
            "media_type": image.media_type,
            "width": image.width,
            "height": image.height,
            "path": None if presentation.link else image.path,
        }
    )


def _resource_link(task: Task, image: Image) -> ResourceLink:
    """A link that this server resolves itself, so it works longer than the proxy's. A video has only the proxy's."""
    word = "video" if image.is_video else "picture"
    return ResourceLink(
        uri=image.url if image.is_video else f"mj://tasks/{task.handle}/images/{image.index}",
        name=f"{word}-{image.index}",
        title=f"{word.title()} {image.index}",
        mime_type=image.media_type,
    )


def _next(task: Task, presentation: Presentation) -> list[dict[str, Any]]:
    if task.is_moving:
        wait = {"task_id": task.handle, "wait_seconds": presentation.wait_seconds}
        return [{"tool": "get_task", "arguments": wait}]
    if task.status is not Status.SUCCEEDED or not task.images:
        return []
    return next_calls(presentation.tools, task)


def _message(result: Result, view: dict[str, Any], presentation: Presentation) -> str:
    task = result.task
    lines = [_earlier(result)] if result.duplicate else []
    of = f" of {task.parent_id} #{task.index}" if task.index else ""
    what = f"{task.kind or 'task'} {task.handle}{of or _pressed(task)}"
    lines.append(f"{what[0].upper()}{what[1:]} {_STATUS_TEXT[task.status]}{_progress_text(task, view)}.")
    if task.prompt:
        lines.append(f"Prompt: {shortened_prompt(task.prompt)}")
    if task.failure and task.status is Status.FAILED:
        lines.append(f"The proxy's message: {task.failure.message}")
    lines += [f"Warning: {warning}" for warning in view["warnings"]]
    lines += [f"Video {image.index}: {image.url}" for image in task.images if image.is_video]
    if task.is_moving:
        wait = f'task_id="{task.handle}" and wait_seconds={presentation.wait_seconds}'
        lines.append(f"Call get_task with {wait} to keep waiting. Do not submit it again.")
    elif view["next"]:
        lines += _advice(view)
    if task.buttons and any(spec.name == "press_button" for spec in presentation.tools):
        lines.append(f"More with press_button, which costs money: {', '.join(task.buttons)}.")
    return "\n".join(lines)


def _earlier(result: Result) -> str:
    if result.finished_ago is None:
        return "Nothing new was started: the same request is open already. allow_duplicate=true buys another."
    return (
        f"Nothing new was started: the same request finished {_ago(result.finished_ago)}. "
        "allow_duplicate=true buys another."
    )


def _ago(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit or (name != "days" and seconds >= unit):
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _advice(view: dict[str, Any]) -> list[str]:
    offered = {call["tool"] for call in view["next"]}
    paid = [name for name in ("upscale_image", "vary_image", "reroll") if name in offered]
    sentences = ["Choose a picture by its index:"] if offered & {"upscale_image", "vary_image"} else []
    if "save_images" in offered:
        sentences.append("view_image shows one large, save_images saves the originals; both are free.")
    elif "view_image" in offered:
        sentences.append("view_image shows one large; it is free.")
    if paid:
        *others, last = paid
        sentences.append(f"{', '.join(others)} and {last} cost money." if others else f"{last} costs money.")
    return [" ".join(sentences)] if sentences else []


def _pressed(task: Task) -> str:
    return f' ("{task.button}" of {task.parent_id})' if task.button else ""


def _progress_text(task: Task, view: dict[str, Any]) -> str:
    if task.status is Status.SUCCEEDED:
        return f": {_pictures(task)}" if task.images else " without pictures"
    if not task.is_polled:
        return ""
    parts = [f"{task.progress} % by the proxy"] if task.progress is not None else []
    if "eta_seconds" in view:
        parts.append(f"usually done in about {view['eta_seconds']:.0f} s")
    if task.status is Status.STALLED:
        parts.append(f"nothing has moved since {view['updated_at']}")
    return f" ({', '.join(parts)})" if parts else ""


def counted(task: Task) -> str:
    """How many pictures or videos it has."""
    word = "video" if any(image.is_video for image in task.images) else "picture"
    return f"1 {word}" if len(task.images) == 1 else f"{len(task.images)} {word}s"


def _pictures(task: Task) -> str:
    sizes = {(image.width, image.height) for image in task.images}
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return f"{counted(task)} of {width}x{height}" if width else counted(task)
