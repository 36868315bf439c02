"""How the answer to a fetch is read: a task, an unknown task, or trouble.

Owns what all dialects have in common. A task is read by its own shape, so a wrong guess of the dialect costs nothing.
"""

from __future__ import annotations

from mj_mcp.errors import Busy, Unauthorized, UpstreamError
from mj_mcp.proxy.body import code_in, describe, is_nothing, is_ok, is_page, status_of
from mj_mcp.proxy.dialects.flat import is_flat
from mj_mcp.proxy.dialects.table import read_task
from mj_mcp.proxy.http import Answer, Fields, NoAnswer
from mj_mcp.proxy.outcomes import REFUSAL_STATUSES, REFUSALS, WRONG_PATH, FetchResult, Trouble, Unknown, name_in
from mj_mcp.proxy.text import Redact

UNKNOWN_TASK = frozenset({"TASK_NOT_FOUND", "task_no_found", "task_not_found"})
"""Matched by name, whatever the HTTP status: the vendor family's, and new-api's with HTTP 400."""


def read_fetch(answer: Answer | NoAnswer, redact: Redact, origin: str = "") -> FetchResult:
    """The result of one poll. `origin`: scheme and host of the proxy, for links that name another one by mistake."""
    if isinstance(answer, NoAnswer):
        return Trouble(UpstreamError.code if answer.sent else "upstream_unreachable", answer.reason)
    fields = answer.fields or {}
    if trouble := _trouble(answer, fields, redact):
        return trouble
    if _is_unknown(answer, fields):
        return Unknown()
    if (observation := read_task(fields, redact, origin)) is not None:
        return observation
    what = f"HTTP {answer.status} with JSON that holds no task" if fields else describe(answer, redact)
    return Trouble(UpstreamError.code, what)


def _trouble(answer: Answer, fields: Fields, redact: Redact) -> Trouble | None:
    """A refused key, a limit, a wrong path or a server error. None for a 2xx, and for a 404 about the task."""
    status, name = status_of(answer, fields), name_in(fields)
    kind = REFUSAL_STATUSES.get(status) or REFUSALS.get(name or "")
    if kind in {Unauthorized, Busy}:
        return Trouble(kind.code, describe(answer, redact), answer.retry_after)
    if name in UNKNOWN_TASK:
        return None
    if name in WRONG_PATH:
        return Trouble(UpstreamError.code, f"{describe(answer, redact)}: check the path of MJ_BASE_URL")
    if status >= 500 or not (is_ok(answer.status) or answer.status == 404):
        return Trouble(UpstreamError.code, describe(answer, redact), answer.retry_after)
    return None


def _is_unknown(answer: Answer, fields: Fields) -> bool:
    """Whether the proxy knows no such task: HTTP 404, an empty answer, `{"task": null}` or a submit's refusal."""
    if name_in(fields) in UNKNOWN_TASK:
        return True
    if answer.status == 404:
        return not is_page(answer)
    has_task = fields.get("task") is not None or is_flat(fields)
    return is_nothing(answer) or (not has_task and (code_in(fields) is not None or "task" in fields))
