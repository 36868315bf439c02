"""Several tasks as a result: a page of the list, the end of a wait, and the usage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from mj_mcp.journal import Page, Usage
from mj_mcp.server.render.task_results import (
    PROMPT_CHARACTERS,
    Presentation,
    counted,
    present_only,
    rfc3339,
    shortened_prompt,
)
from mj_mcp.studio.several import Awaited
from mj_mcp.tasks import Status, Task

ROW_CHARACTERS = 195
"""The average length of one row as JSON: 20 rows stay under 4,000 characters, since each list costs tokens."""

LEAST_PROMPT_CHARACTERS = 16

Remaining = Callable[[Task], float | None]


def list_view(page: Page, remaining: Remaining) -> dict[str, Any]:
    """The structured content of `list_tasks`, and the resource `mj://tasks`."""
    rows = _rows(page.tasks, remaining)
    return present_only({"message": _counts(page), "tasks": rows, "next_cursor": page.next_cursor})


def list_result(page: Page, remaining: Remaining) -> CallToolResult:
    """A page of tasks: one line each, no pictures."""
    view = list_view(page, remaining)
    text = "\n".join([view["message"], *(_line(task) for task in page.tasks)])
    return CallToolResult(content=[TextContent(text=text)], structured_content=view)


def wait_result(awaited: Awaited, remaining: Remaining, presentation: Presentation) -> CallToolResult:
    """Several tasks after a wait: one row each, and a sheet of what has finished."""
    open_ids = [task.handle for task in awaited.tasks if task.is_moving]
    rows = [
        row | ({"failure": {"code": task.failure.code, "message": task.failure.message}} if task.failure else {})
        for task, row in zip(awaited.tasks, _rows(awaited.tasks, remaining), strict=True)
    ]
    rows += [{"task_id": handle, "status": "unknown", "image_count": 0} for handle in awaited.unknown]
    ended = len(awaited.tasks) - len(open_ids)
    lines = [f"{ended} of {len(rows)} have ended, {len(open_ids)} are still open."]
    lines += [" ".join(filter(None, [awaited.letters.get(task.submission_id), _line(task)])) for task in awaited.tasks]
    lines += [f"{handle} unknown: neither this server nor the proxy knows this id" for handle in awaited.unknown]
    lines += [f"Warning: {why}" for why in (awaited.shown.missing if awaited.shown else ())]
    following = []
    if open_ids:
        arguments = {"task_ids": open_ids, "wait_seconds": presentation.wait_seconds}
        following = [{"tool": "wait_for_tasks", "arguments": arguments}]
        lines.append("Call wait_for_tasks with the open ids to keep waiting. Do not submit them again.")
    message = "\n".join(lines)
    content: list[ContentBlock] = [TextContent(text=message)]
    shown = awaited.shown
    if presentation.inline_images and shown is not None and shown.data is not None:
        content.append(ImageContent(data=shown.data, mime_type=shown.media_type or "image/webp"))
    structured = {"message": message, "tasks": rows, "open": open_ids, "next": following}
    return CallToolResult(content=content, structured_content=structured)


def usage_result(usage: Usage) -> CallToolResult:
    """The usage, and what is left of the limits."""
    limits = present_only(
        {"open_left": usage.open_left, "today_left": usage.today_left, "resets_at": rfc3339(usage.resets_at)}
    )
    lines = [
        f"Today (UTC): {_spent(usage.today)}. Last 7 days: {_spent(usage.last_7_days)}.",
        f"Open now: {usage.open}; waiting for a queue slot: {usage.waiting}.",
        f"Left: {usage.open_left} more at once, "
        + ("no daily limit." if usage.today_left is None else f"{usage.today_left} more today."),
    ]
    structured = {
        "message": "\n".join(lines),
        "today": _with_total(usage.today),
        "last_7_days": _with_total(usage.last_7_days),
        "open": usage.open,
        "waiting": usage.waiting,
        "limits": limits,
    }
    return CallToolResult(content=[TextContent(text=structured["message"])], structured_content=structured)


def _with_total(counts: Mapping[str, int]) -> dict[str, int]:
    return {**counts, "total": sum(counts.values())}


def _spent(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{total} jobs ({kinds})" if total else "no jobs"


def _rows(tasks: Sequence[Task], remaining: Remaining) -> list[dict[str, Any]]:
    """One compact row per task. Prompts are cut so that rows have `ROW_CHARACTERS` on average."""
    rows = [_row(task, remaining(task)) for task in tasks]
    fixed = sum(len(json.dumps(row | {"prompt": ""}, separators=(",", ":"))) + 1 for row in rows)
    room = (max(len(rows), 20) * ROW_CHARACTERS - fixed) // max(len(rows), 1)
    characters = max(LEAST_PROMPT_CHARACTERS, min(PROMPT_CHARACTERS, room))
    return [row | {"prompt": shortened_prompt(row["prompt"], characters)} if "prompt" in row else row for row in rows]


def _row(task: Task, eta: float | None) -> dict[str, Any]:
    return present_only(
        {
            "task_id": task.task_id,
            "submission_id": None if task.task_id else task.submission_id,
            "kind": task.kind,
            "status": task.status,
            "prompt": task.prompt,
            "parent_id": task.parent_id,
            "index": task.index,
            "image_count": len(task.images),
            "submitted_at": rfc3339(task.submitted_at),
            "finished_at": rfc3339(task.finished_at),
            "eta_seconds": None if eta is None else round(eta),
        }
    )


def _line(task: Task) -> str:
    when = rfc3339(task.submitted_at or task.updated_at) or ""
    pictures = f", {counted(task)}" if task.images else ""
    pressed = f' "{task.button}"' if task.button else ""
    of = f" of {task.parent_id}" + (f" #{task.index}" if task.index else "") if task.parent_id else ""
    what = f"{task.kind or 'task'}{pressed}{of}: {shortened_prompt(task.prompt, 80)}".rstrip(": ")
    return f"{task.handle} {task.status} {when[:10]} {when[11:16]} {what}{pictures}"


def _counts(page: Page) -> str:
    if not page.tasks:
        return "No tasks."
    counts = Counter(task.status for task in page.tasks)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    more = f" More: call list_tasks with cursor={page.next_cursor}." if page.next_cursor else ""
    unsure = " Do not repeat unconfirmed ones." if counts[Status.UNCONFIRMED] else ""
    return f"{len(page.tasks)} tasks, newest first: {said}.{unsure}{more}"
