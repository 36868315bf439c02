"""A call of a tool: reads arguments as hosts send them, turns errors into results, and logs one line.

Owns what is the same for every tool. Does not know what the tools do.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, cast

import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry.trace import get_current_span

from mj_mcp.auth.tokens import SPEND
from mj_mcp.errors import InvalidRequest, LimitReached, MjError, NotConfigured
from mj_mcp.events import Called, Observer
from mj_mcp.prompts import Options, compile_prompt
from mj_mcp.server.arguments import read_arguments
from mj_mcp.server.client_timeouts import ProposedWaits, wait_budget
from mj_mcp.server.identity import caller
from mj_mcp.server.progress import progress_reporter
from mj_mcp.server.render import ERROR_META, Presentation, error_result, task_result
from mj_mcp.server.schemas import plain
from mj_mcp.server.tool_spec import ToolSpec
from mj_mcp.server.views import TOOL_META
from mj_mcp.settings import Settings
from mj_mcp.studio import Call, Result, Studio
from mj_mcp.tasks import Image, Task

log = structlog.get_logger("mj_mcp.tools")

TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
"""Its methods are in `task_handles.py`. A call needs to know only whether its client declares it."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What the tools of one server share."""

    studio: Studio
    settings: Settings
    observe: Observer
    tools: tuple[ToolSpec, ...]
    link: Callable[[Task, Image], str] | None = None
    waits: ProposedWaits = field(default_factory=ProposedWaits)

    def require_key(self) -> None:
        """Raises `NotConfigured` if no key is set yet."""
        if not self.settings.has_key:
            raise NotConfigured("this server has no key for a Midjourney Proxy yet (MJ_API_KEY is not set)")

    def presentation(self, wait_seconds: int = 25) -> Presentation:
        """How tasks are shown to the caller. `wait_seconds`: how long its next call should wait."""
        return Presentation(
            tuple(spec for spec in self.tools if caller().may_spend or not spec.spends),
            wait_seconds,
            self.settings.resource_links,
            self.settings.inline_images,
            self.link,
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: its arguments, its caller, and the server's context."""

    context: ToolContext
    request: Context[Any]
    tool: str
    arguments: dict[str, Any]
    caller: Call
    warnings: tuple[str, ...] = ()

    @property
    def studio(self) -> Studio:
        """The use cases."""
        return self.context.studio

    def next_wait(self, task: Task) -> int:
        """How many seconds the next call for this task should wait."""
        return self.context.waits.seconds(
            _client_name(self.request),
            self.caller.owner,
            task.submission_id,
            remaining=self.studio.remaining(task),
            limit=self.context.settings.wait_seconds,
        )

    def read(self, result: Result) -> CallToolResult:
        """The answer of a tool that reads one task."""
        self.context.waits.came_back(self.caller.owner, result.task.submission_id)
        return self._answer(result, bought=False)

    async def bought(self, submitted: Result) -> CallToolResult:
        """The answer of a tool that bought one task, once it has ended or the call's time is up."""
        return self._answer(await self.studio.wait(self.caller, submitted), bought=True)

    def _answer(self, result: Result, *, bought: bool) -> CallToolResult:
        result = result.noting(*self.warnings)
        structlog.contextvars.bind_contextvars(polls=result.polls, waited=round(result.waited, 3))
        again = {"tool": self.tool, "arguments": self.arguments | {"allow_duplicate": True}}
        presentation = self.context.presentation(self.next_wait(result.task))
        return task_result(result, self.studio.remaining(result.task), presentation, bought=bought, again=again)


class CheckedTool(Tool):
    """An SDK tool that reads its arguments itself and answers every error of ours with a result."""

    spends: bool = False

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: ANN401, ARG002 - the SDK's signature
        """Check, call, log."""
        began = time.perf_counter()
        call_id = uuid.uuid4().hex[:12]
        get_current_span().set_attribute("mj_mcp.call_id", call_id)
        with structlog.contextvars.bound_contextvars(call_id=call_id, tool=self.name):
            outcome = "cancelled"
            result: CallToolResult | None = None
            try:
                result = await self._answer(arguments, context)
                outcome = "error" if result.is_error else "ok"
            except MCPError:
                outcome = "error"
                raise
            except Exception as failure:
                outcome = "crashed"
                raise UnexpectedToolError(f"{self.name} failed; the server's log says why") from failure
            finally:
                facts, seconds = _facts(result), time.perf_counter() - began
                log.info("tool_call", owner=caller().owner, outcome=outcome, ms=round(seconds * 1000, 1), **facts)
                observe = context.request_context.lifespan_context.observe
                observe(Called(self.name, outcome, facts.get("code"), seconds))
                structlog.contextvars.unbind_contextvars("polls", "waited")
            return result

    async def _answer(self, arguments: dict[str, Any], context: Context[ToolContext]) -> CallToolResult:
        shared: ToolContext = context.request_context.lifespan_context
        spends = self.spends
        if spends and not caller().may_spend:
            return error_result(LimitReached(f"this login may read but not submit: it lacks the scope {SPEND}"))
        try:
            shared.require_key()
            imagines = self.name == "generate_image"
            check = partial(prompt_problems, extra_flags=shared.settings.extra_flags) if imagines else None
            given = read_arguments(self.name, arguments, self.parameters, drop_zeros=imagines, check=check)
            if given.dropped:
                log.info("host_fields_dropped", fields=sorted(given.dropped))
            warnings = (f"0 was taken as left out for: {', '.join(given.zeros)}.",) if given.zeros else ()
            call = ToolCall(
                shared, context, self.name, given.values, self._caller(shared, context, given.values), warnings
            )
            result: CallToolResult = await self.fn(call, **given.values)
        except MjError as failure:
            return error_result(failure, spends=spends)
        return result

    def _caller(self, shared: ToolContext, context: Context[ToolContext], values: Mapping[str, Any]) -> Call:
        """The caller, and how long it may block: as requested, as the operator set it, or as its client allows."""
        seconds = 0.0
        if "wait_seconds" in self.parameters["properties"]:
            waits = values.get("wait_seconds"), shared.settings.wait_seconds, wait_budget(_client_name(context))
            seconds = next(wait for wait in waits if wait is not None)
        leaves = self.spends and declares_tasks(context.request_context)
        return Call(owner=caller().owner, wait_seconds=seconds, leaves=leaves, on_progress=progress_reporter(context))


def declares_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether this request names the Tasks extension, so that what it buys is answered with a handle."""
    capabilities = ctx.session.client_capabilities
    declared = (capabilities and capabilities.extensions) or {}
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS_EXTENSION in declared


def _client_name(request: Context[Any]) -> str | None:
    """The name in the client's `clientInfo`."""
    client = request.session.client_params
    return client.client_info.name if client else None


def prompt_problems(values: Mapping[str, Any], extra_flags: frozenset[str]) -> Sequence[str]:
    """What is wrong with a prompt and its options, as far as they can be read."""
    names = [field.name for field in fields(Options) if field.name in values]
    options: dict[str, Any] = {
        name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in names
    }
    multiple = values.get("allow_multiple", False)
    try:
        compile_prompt(
            values.get("prompt", "any"), Options(**options), allow_multiple=multiple, extra_flags=extra_flags
        )
    except InvalidRequest as failure:
        return failure.problems
    return ()


def checked(spec: ToolSpec, *, view: bool) -> CheckedTool:
    """A tool with plain schemas. The first parameter of its function is the `ToolCall`.

    With `view`, hosts are told to show the view beside its results, if they are tasks.
    """
    built = CheckedTool.from_function(
        spec.verb,
        title=spec.title,
        annotations=spec.annotations,
        context_kwarg="call",
        meta=TOOL_META if view and spec.view else None,
    )
    tool = cast("CheckedTool", built)
    tool.spends = spec.spends
    tool.parameters = plain(tool.parameters)
    if tool.fn_metadata.output_schema is not None:
        tool.fn_metadata.output_schema = plain(tool.fn_metadata.output_schema)
    return tool


def _facts(result: CallToolResult | None) -> dict[str, Any]:
    """The log fields of a result."""
    if result is None:
        return {}
    if result.is_error:
        error = (result.meta or {}).get(ERROR_META, {})
        return {"code": error.get("code"), "submission_id": error.get("submission_id")}
    content = result.structured_content or {}
    return {key: content[key] for key in ("task_id", "submission_id", "status") if key in content}
