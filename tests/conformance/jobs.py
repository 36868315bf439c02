"""The jobs that the conformance suite buys: the server's Tasks extension, with jobs of this process beside its rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import MethodBinding
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmptyResult,
    InputRequiredResult,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mj_mcp.server.task_handles import Request, TaskHandles, TaskParams, UpdateParams, check_header, require
from mj_mcp.server.tool_call import declares_tasks
from mj_mcp.tasks import Status, Task

ASKED = {"confirm_delete": ("confirm",), "multi_input": ("first", "second")}
"""The jobs that ask for input once they run, and the keys of what they ask."""


def elicit(field: str) -> ElicitRequest:
    """A question for the person."""
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=f"{field}?", requested_schema=schema))


class Job:
    """One job: its row, its work, and the answers that it waits for."""

    def __init__(self, number: int, work: asyncio.Future[HandlerResult], asked: Sequence[str]) -> None:
        now = time.time()
        self.row = Task(submission_id=f"sub_job{number}", status=Status.PROCESSING, submitted_at=now, updated_at=now)
        self.work = work
        self.asked = list(asked)

    def state(self) -> dict[str, Any]:
        """What the suite may see of it beside the fields of its row."""
        if self.asked:
            requests = {
                key: elicit(key).model_dump(by_alias=True, mode="json", exclude_none=True) for key in self.asked
            }
            return {"status": "input_required", "inputRequests": requests}
        if not self.work.done():
            return {}
        if self.work.cancelled():
            return {"status": "cancelled"}
        if failure := self.work.exception():
            return {"status": "failed", "error": {"code": INTERNAL_ERROR, "message": str(failure)}}
        result = self.work.result()
        assert isinstance(result, CallToolResult)
        return {"status": "completed", "result": result.model_dump(by_alias=True, mode="json", exclude_none=True)}


class HandlesOfJobs(TaskHandles):
    """The extension, with the suite's jobs."""

    jobs: dict[str, Job] = {}  # noqa: RUF012 - one server in this process

    def methods(self) -> Sequence[MethodBinding]:
        """The same methods; these two can change a job."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        get, *_ = super().methods()
        return (
            get,
            MethodBinding("tasks/update", UpdateParams, self._update, versions),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, versions),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Start a job of the suite; other tools are as in the product."""
        if params.name not in JOBS:
            return await super().intercept_tool_call(params, ctx, call_next)
        if params.name in ("failing_job", "test_tool_with_task"):
            require(ctx)
        if not declares_tasks(ctx):
            return await call_next(ctx)
        work: asyncio.Future[HandlerResult] = asyncio.ensure_future(call_next(ctx))
        if params.name == "test_tool_with_task" and isinstance(await work, InputRequiredResult):
            return await work
        job = Job(len(self.jobs), work, ASKED.get(params.name, ()))
        self.jobs[job.row.submission_id] = job
        return {"resultType": "task"} | self.fields(job.row)

    async def _get(self, ctx: Request, params: TaskParams) -> dict[str, Any]:
        job = await self._job(ctx, params)
        return self.fields(job.row) | job.state() if job else await super()._get(ctx, params)

    async def _update(self, ctx: Request, params: UpdateParams) -> EmptyResult:
        if job := await self._job(ctx, params):
            job.asked = [key for key in job.asked if key not in params.input_responses]
        return EmptyResult(result_type="complete")

    async def _cancel(self, ctx: Request, params: TaskParams) -> EmptyResult:
        if job := await self._job(ctx, params):
            job.asked.clear()
            job.work.cancel()
        return EmptyResult(result_type="complete")

    async def _job(self, ctx: Request, params: TaskParams) -> Job | None:
        if params.task_id not in self.jobs:
            await self._known(ctx, params.task_id)
            return None
        require(ctx)
        check_header(ctx, params.task_id)
        return self.jobs[params.task_id]


def add_jobs(server: MCPServer[Any]) -> None:
    """The tools whose calls are jobs, and one that never is."""

    @server.tool()
    async def greet(name: str) -> CallToolResult:
        """Greet."""
        return said(f"Hello, {name}!")

    for job in JOBS.values():
        server.add_tool(job)


def said(words: str) -> CallToolResult:
    """A result of these words."""
    return CallToolResult(content=[TextContent(text=words)])


async def slow_compute(seconds: float, label: str = "") -> CallToolResult:
    """Take a while."""
    await asyncio.sleep(seconds)
    return said(f"done {label}")


async def failing_job() -> CallToolResult:
    """Answer with an error of the tool."""
    return CallToolResult(content=[TextContent(text="this job fails")], is_error=True)


async def protocol_error_job() -> CallToolResult:
    """Raise an error of the protocol."""
    raise MCPError(INTERNAL_ERROR, "this job breaks")


async def confirm_delete(filename: str) -> CallToolResult:
    """Ask for one thing, then end."""
    return said(f"deleted {filename}")


async def multi_input() -> CallToolResult:
    """Ask for two things, then end."""
    return said("both")


async def test_tool_with_task(ctx: Context[Any]) -> CallToolResult | InputRequiredResult:
    """Ask before the job starts."""
    answer = (ctx.input_responses or {}).get("user_name")
    if not isinstance(answer, ElicitResult):
        return InputRequiredResult(input_requests={"user_name": elicit("name")})
    return said(f"Hello, {(answer.content or {}).get('name')}!")


JOBS = {
    job.__name__: job
    for job in (slow_compute, failing_job, protocol_error_job, confirm_delete, multi_input, test_tool_with_task)
}
