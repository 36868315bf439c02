"""A tool of ours: arguments checked by name, errors as results, one log line a call, and a lean schema.

Owns what is the same for every tool. Knows nothing of what the tools do.
"""

from __future__ import annotations

import time
import uuid
from difflib import get_close_matches
from typing import Any, cast

import structlog
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from opentelemetry.trace import get_current_span
from pydantic import ValidationError

from mj_mcp.errors import InvalidRequest, LimitReached, MjError, shortened
from mj_mcp.happenings import Called
from mj_mcp.server.identity import caller
from mj_mcp.server.render import SPENDING_TOOLS, error_result
from mj_mcp.tokens import SPEND

log = structlog.get_logger("mj_mcp.tools")

MEANT = {"aspect": "aspect_ratio", "ar": "aspect_ratio", "id": "task_id", "timeout": "wait_seconds"}
"""Names that agents were seen to try, where the nearest by spelling is another one."""


class CheckedTool(Tool):
    """An SDK tool that refuses unknown arguments by name and answers every error of ours as a result."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: ANN401 - the SDK's signature
        """Check, call, log."""
        began = time.perf_counter()
        call_id = uuid.uuid4().hex[:12]
        get_current_span().set_attribute("mj_mcp.call_id", call_id)
        with structlog.contextvars.bound_contextvars(call_id=call_id, tool=self.name):
            outcome = "cancelled"
            result: Any = None
            try:
                result = await self._answer(arguments, context, convert_result)
                outcome = "error" if isinstance(result, CallToolResult) and result.is_error else "ok"
            except Exception:
                outcome = "crashed"
                raise
            finally:
                facts, seconds = _facts(result), time.perf_counter() - began
                log.info("tool_call", owner=caller().owner, outcome=outcome, ms=round(seconds * 1000, 1), **facts)
                observe = context.request_context.lifespan_context.observe
                observe(Called(self.name, outcome, facts.get("code"), seconds))
                structlog.contextvars.unbind_contextvars("looks", "waited")
            return result

    async def _answer(self, arguments: dict[str, Any], context: Any, convert_result: bool) -> Any:  # noqa: ANN401 - as above
        if self.name in SPENDING_TOOLS and not caller().may_spend:
            return error_result(LimitReached(f"this login may look, not buy: it lacks the scope {SPEND}"))
        try:
            return await super().run(arguments, context, convert_result=convert_result)
        except ToolError as failure:
            if isinstance(failure.__cause__, MjError):
                return error_result(failure.__cause__, spends=self.name in SPENDING_TOOLS)
            if type(failure) is ToolError and isinstance(failure.__cause__, ValidationError):
                return error_result(self._wrong_argument(failure.__cause__), spends=self.name in SPENDING_TOOLS)
            raise

    def _wrong_argument(self, failure: ValidationError) -> MjError:
        errors = failure.errors(include_url=False, include_context=False)
        # A name that does not exist explains a missing one, so it is said first.
        first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
        name = ".".join(str(part) for part in first["loc"])
        known = list(self.parameters.get("properties", {}))
        if first["type"] == "extra_forbidden":
            near = MEANT.get(name) if MEANT.get(name) in known else None
            nearest = near or next(iter(get_close_matches(name, known, n=1, cutoff=0.4)), None)
            hint = f"; did you mean `{nearest}`?" if nearest else "."
            return InvalidRequest.because(
                f"{self.name} has no argument `{shortened(name)}`{hint} It takes: {', '.join(known)}."
            )
        given = None if first["type"] == "missing" else first["input"]
        said = "a value: it is required" if first["type"] == "missing" else first["msg"]
        return InvalidRequest(name, given, said[0].lower() + said[1:])


def checked(tool: Tool) -> CheckedTool:
    """Close the argument model of a tool, and strip from its schemas what no caller needs.

    The schema of the results is published; that our own results keep to it is for tests to say, not for every call.

    The argument model is no published API of the SDK; the pin of its minor version and a test hold this.
    """
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters = lean(model.model_json_schema(by_alias=True))
    if tool.fn_metadata.output_schema is not None:
        tool.fn_metadata.output_schema = lean(tool.fn_metadata.output_schema)
        tool.fn_metadata.output_model = None
    return cast("CheckedTool", tool)


def lean(schema: dict[str, Any]) -> dict[str, Any]:
    """The same JSON schema in fewer tokens: no titles, no null defaults, nullable types as a list, `$defs` inlined."""
    definitions = schema.get("$defs", {})

    def walk(node: Any, *, named: bool = False) -> Any:  # noqa: ANN401 - JSON
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return walk(
                {**definitions[node["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in node.items() if k != "$ref"}}
            )
        if named:
            return {key: walk(item) for key, item in node.items()}
        kept = {
            key: walk(item, named=key == "properties")
            for key, item in node.items()
            if key not in {"title", "$defs"}
            and not (key == "default" and item is None)
            and not (key == "additionalProperties" and item is True)
            and not (key == "description" and "properties" in node)
        }
        return _nullable(kept)

    lean_schema: dict[str, Any] = walk(schema)
    return lean_schema


def _nullable(node: dict[str, Any]) -> dict[str, Any]:
    """`anyOf: [X, null]` as X with "null" among its types."""
    options = node.get("anyOf")
    if (
        not options
        or len(options) != 2
        or options[1] != {"type": "null"}
        or not isinstance(options[0].get("type"), str)
    ):
        return node
    first = dict(options[0])
    if "enum" in first:
        first["enum"] = [*first["enum"], None]
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**first, "type": [first["type"], "null"], **rest}


def _facts(result: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the tool answered
    """What a log line says of a result."""
    content = getattr(result, "structured_content", None) or {}
    if error := content.get("error"):
        return {"code": error["code"], "submission_id": error["submission_id"]}
    return {key: content[key] for key in ("task_id", "submission_id", "status") if key in content}
