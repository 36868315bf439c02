"""A client of the Tasks extension, on the SDK's public API: it takes handles, and asks for them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from conftest import Caller
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

TASKS = "io.modelcontextprotocol/tasks"


class Handle(Result):
    """What a call answers that has not ended."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int


class Handles(ClientExtension):
    """Declares the extension. Its tests take the handle themselves."""

    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Handles."""

        async def resolve(handle: Handle, _context: ClaimContext) -> CallToolResult:
            raise AssertionError(f"nobody took {handle.task_id}")

        return [ResultClaim(result_type="task", model=Handle, resolve=resolve)]


class TaskParams(RequestParams):
    """The parameters of each method."""

    task_id: str
    input_responses: dict[str, Any] | None = None


class TaskRequest(Request[TaskParams, str]):
    """One of the methods."""

    name_param: ClassVar[str | None] = "taskId"
    method: str
    params: TaskParams


class AnyResult(Result):
    """A result, whole."""

    model_config = ConfigDict(extra="allow")


async def take(caller: Caller, tool: str, **arguments: Any) -> Handle | CallToolResult:
    """Call a tool; what the server answered, a handle or not."""
    answer = await caller.client.session.call_tool(tool, arguments, allow_claimed=True)
    assert isinstance(answer, Handle | CallToolResult)
    return answer


async def ask(caller: Caller, method: str, task_id: str) -> dict[str, Any]:
    """The result of `tasks/get`, `tasks/update` or `tasks/cancel` as it was sent, without `_meta`."""
    answers: dict[str, Any] | None = {} if method == "tasks/update" else None
    request = TaskRequest(method=method, params=TaskParams(task_id=task_id, input_responses=answers))
    answer = await caller.client.session.send_request(request, AnyResult)
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meta"})
