"""The Tasks extension: a client that declares it gets a handle at once, in place of a call that blocks.

Owns the methods and shapes of `io.modelcontextprotocol/tasks` (github.com/modelcontextprotocol/ext-tasks, revision
2026-07-28). A handle is the submission id of a row in the journal: written before it is answered, impossible to guess,
and bound to its owner, so that it outlives this process. Does not know how a task is bought or polled.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mj_mcp.errors import MjError, shortened
from mj_mcp.server.identity import caller
from mj_mcp.server.progress import progress_message
from mj_mcp.server.render import error_result, rfc3339, task_result
from mj_mcp.server.tool_call import TASKS_EXTENSION, ToolContext, declares_tasks
from mj_mcp.server.tools import SPENDING_TOOLS
from mj_mcp.studio import Call
from mj_mcp.tasks import Task

POLL_MILLISECONDS = 3000
"""How often a client is asked to look. A look reads the journal; the proxy is polled by the server's own schedule."""

RESULT_SECONDS = 3.0
"""How long one look may take to make the sheet of a task that has just succeeded."""

LATE_PICTURES_SECONDS = 60.0
"""How long a task that has succeeded counts as worked on while pictures of it are still being fetched."""

Request = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """The parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class UpdateParams(TaskParams):
    """The parameters of `tasks/update`."""

    input_responses: dict[str, Any]


class TaskHandles(Extension):
    """The extension. Tools that buy a job answer with a handle, unless they can answer at once."""

    identifier = TASKS_EXTENSION

    def __init__(self, context: ToolContext) -> None:
        """`context`: what the tools of the server share."""
        self._context = context

    def methods(self) -> Sequence[MethodBinding]:
        """`tasks/get`, `tasks/update` and `tasks/cancel`."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        return (
            MethodBinding("tasks/get", TaskParams, self._get, versions),
            MethodBinding("tasks/update", UpdateParams, self._acknowledge, versions),
            MethodBinding("tasks/cancel", TaskParams, self._acknowledge, versions),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Answer with the handle of what was bought, if the client can use one and the job is not over yet.

        A call with `wait_seconds=0` asks for the id at once, so it gets its normal answer.
        """
        result = await call_next(ctx)
        at_once = (params.arguments or {}).get("wait_seconds") == 0
        if not declares_tasks(ctx) or params.name not in SPENDING_TOOLS or at_once:
            return result
        bought = isinstance(result, CallToolResult) and (result.structured_content or {}).get("submission_id")
        with suppress(MjError):  # the result has the id, too
            task = await self._find(bought) if bought else None
            if task is not None and task.is_moving:
                return {"resultType": "task"} | self.fields(task)
        return result

    def fields(self, task: Task) -> dict[str, Any]:
        """The fields of a task that is still worked on. It is kept for ever, so it has no time to live."""
        return {
            "taskId": task.submission_id,
            "status": "working",
            "statusMessage": progress_message(task, self._context.studio.remaining(task)),
            "createdAt": rfc3339(task.submitted_at or task.updated_at),
            "lastUpdatedAt": rfc3339(task.updated_at),
            "ttlMs": None,
            "pollIntervalMs": POLL_MILLISECONDS,
        }

    async def _get(self, ctx: Request, params: TaskParams) -> dict[str, Any]:
        task = await self._known(ctx, params.task_id)
        if task.is_moving:
            return self.fields(task)
        result, lacks = await self._result(task)
        # A client asks no more once a task is completed, so the pictures come first.
        if lacks and self._context.studio.now() - (task.finished_at or task.updated_at) < LATE_PICTURES_SECONDS:
            return self.fields(task) | {"statusMessage": "fetching the pictures"}
        dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return self.fields(task) | {"status": "completed", "statusMessage": str(task.status), "result": dumped}

    async def _acknowledge(self, ctx: Request, params: TaskParams) -> EmptyResult:
        """Nothing here asks for input, and a job that is paid for cannot be stopped: both methods change nothing."""
        await self._known(ctx, params.task_id)
        return EmptyResult(result_type="complete")

    async def _known(self, ctx: Request, task_id: str) -> Task:
        require(ctx)
        check_header(ctx, task_id)
        try:
            task = await self._find(task_id)
        except MjError as failure:
            raise MCPError(INTERNAL_ERROR, failure.message) from failure
        if task is None:
            raise MCPError(INVALID_PARAMS, f"taskId: there is no task {shortened(task_id)}")
        if task.given_up_at is not None:
            with suppress(MjError):  # to ask for it polls it again
                return (await self._context.studio.recall(Call(owner=caller().owner), task_id)).task
        return task

    async def _find(self, submission_id: str) -> Task | None:
        task = await self._context.studio.find(caller().owner, submission_id)
        return task if task is not None and task.submission_id == submission_id else None

    async def _result(self, task: Task) -> tuple[CallToolResult, bool]:
        """What the call would have answered, had it waited; and whether it lacks a picture."""
        call = Call(owner=caller().owner, wait_seconds=RESULT_SECONDS)
        try:
            found = await self._context.studio.recall(call, task.submission_id, picture=True)
        except MjError as failure:
            return error_result(failure), False
        result = task_result(found, None, self._context.presentation(), bought=True)
        return result, bool(found.shown and found.shown.missing)


def require(ctx: Request) -> None:
    """Refuse a request that does not declare the extension.

    Raises:
        MCPError: -32021, with what is missing.
    """
    if not declares_tasks(ctx):
        missing: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS_EXTENSION: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"the client must declare {TASKS_EXTENSION}", missing)


def check_header(ctx: Request, task_id: str) -> None:
    """Refuse a request whose routing header names another task than its body.

    Raises:
        MCPError: -32020.
    """
    if ctx.request is not None and decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(HEADER_MISMATCH, f"{MCP_NAME_HEADER}: the header must be the taskId")
