"""The tools that return the status of tasks and the usage."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Annotated

import structlog
from mcp_types import CallToolResult
from pydantic import Field

from mj_mcp.errors import InvalidRequest
from mj_mcp.server.render import list_result, usage_result, wait_result
from mj_mcp.server.shapes import TaskListView, TaskView, UsageView, WaitView
from mj_mcp.server.tool_call import ToolCall
from mj_mcp.server.tool_spec import ToolSpec
from mj_mcp.server.tools.types import TaskId, WaitSeconds
from mj_mcp.tasks import TASKS, Status

MOST_TASKS = 20
"""The most tasks of one `wait_for_tasks`: as many as a page of `list_tasks` has by default."""

_AGE = re.compile(r"([0-9]{1,6})\s*([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_STATUSES = tuple(sorted(status.value for status in TASKS))
_STATUS_WORDS = f"{', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}"


async def get_task(
    call: ToolCall,
    task_id: TaskId,
    wait_seconds: WaitSeconds = None,
    include_image: Annotated[bool, Field(description="false leaves the pictures out.")] = True,
) -> Annotated[CallToolResult, TaskView]:
    """The status of a task, after waiting for its end, and its pictures once there are any. Free."""
    return call.read(await call.studio.recall(call.caller, task_id, picture=include_image))


async def wait_for_tasks(
    call: ToolCall,
    task_ids: Annotated[list[str], Field(description="Up to 20 ids.")],
    until: Annotated[str | None, Field(description="all (default) or any: when to return.")] = None,
    wait_seconds: WaitSeconds = None,
) -> Annotated[CallToolResult, WaitView]:
    """Wait for several tasks at once: the status of each, and one sheet of those that have finished. Free."""
    handles = list(dict.fromkeys(task_ids))
    problems = []
    if not 1 <= len(handles) <= MOST_TASKS:
        problems.append(f"`task_ids` must be 1 to {MOST_TASKS} ids (got {len(handles)}).")
    _check_choice(problems, "until", until, ("all", "any"))
    _raise(problems)
    awaited = await call.studio.several.wait_for_all(call.caller, handles, until_any=until == "any")
    structlog.contextvars.bind_contextvars(waited=round(awaited.waited, 3))
    for task in awaited.tasks:
        call.context.waits.came_back(call.caller.owner, task.submission_id)
    waits = [call.next_wait(task) for task in awaited.tasks if task.is_moving]
    return wait_result(awaited, call.studio.remaining, call.context.presentation(max(waits, default=1)))


async def list_tasks(
    call: ToolCall,
    status: Annotated[str | None, Field(description=f"Only this status: {_STATUS_WORDS}.")] = None,
    since: Annotated[str | None, Field(description="Only newer tasks: 30m, 2h, 7d, or an RFC 3339 date.")] = None,
    limit: Annotated[int, Field(ge=1, le=100, description="How many rows.")] = 20,
    cursor: Annotated[str | None, Field(description="next_cursor of the previous page.")] = None,
) -> Annotated[CallToolResult, TaskListView]:
    """The tasks of this account, newest first, finished ones included. Free."""
    problems: list[str] = []
    _check_choice(problems, "status", status, _STATUSES)
    moment = read_moment(problems, since, call.studio.now())
    _raise(problems)
    wanted = Status(status) if status else None
    page = await call.studio.list_tasks(call.caller.owner, wanted, limit, cursor, since=moment)
    return list_result(page, call.studio.remaining)


async def get_usage(call: ToolCall) -> Annotated[CallToolResult, UsageView]:
    """Jobs today and in 7 days by kind, open tasks, and what is left of the limits. Free."""
    return usage_result(await call.studio.usage(call.caller.owner))


def _check_choice(problems: list[str], name: str, value: str | None, choices: Collection[str]) -> None:
    if value is not None and value not in choices:
        problems += InvalidRequest(name, value, f"one of {', '.join(choices)}").problems


def read_moment(problems: list[str], since: str | None, now: float) -> float | None:
    """`since` of the argument, in seconds since the epoch. What is wrong with it is added to `problems`."""
    if since is None:
        return None
    if age := _AGE.fullmatch(since.strip()):
        return now - int(age[1]) * _SECONDS[age[2]]
    try:
        moment = datetime.fromisoformat(since.strip())
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    allowed = "an age such as 30m, 2h or 7d, or a date with its time zone such as 2026-11-27T08:00:00Z"
    problems += InvalidRequest("since", since, allowed).problems
    return None


def _raise(problems: list[str]) -> None:
    if problems:
        raise InvalidRequest.because(*problems)


TOOLS = (
    ToolSpec(verb=get_task, title="Get task", view=True),
    ToolSpec(verb=wait_for_tasks, title="Wait for tasks", view=True),
    ToolSpec(verb=list_tasks, title="List tasks", view=True),
    ToolSpec(verb=get_usage, title="Get usage"),
)
