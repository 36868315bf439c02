"""Errors in words for a model: what happened, and what to do next, by code.

Owns the advice. An error has no structured content: clients built on the TypeScript SDK 1.x check it against the
tool's output schema and discard the whole error. Programs find the same facts as an object in `_meta`.
"""

from __future__ import annotations

from mcp_types import CallToolResult, TextContent

from mj_mcp.errors import MjError

ERROR_META = "io.github.mj-mcp/error"
"""The key in `_meta` of an error result; its object is described in docs/tools.md."""

NEXT_STEPS = {
    "invalid_request": "Correct the argument and call again. Nothing was submitted.",
    "not_ready": "Wait with get_task until the parent task has succeeded, then call again. Nothing was submitted.",
    "task_not_found": "Check the id; list_tasks shows the tasks that this server knows.",
    "prompt_refused": "Reword the prompt without the refused word. Nothing was charged.",
    "busy": "Wait for an open task to finish (list_tasks, get_task), or as long as the error says, then call again.",
    "not_configured": "Tell the person to set MJ_API_KEY where this server is configured and to restart it; "
    "`mj-mcp doctor` checks the key.",
    "unauthorized": "Tell the person: MJ_API_KEY or the account's balance must be fixed. Do not retry.",
    "rejected": "Change the request as the proxy's message says, or try once more later. Nothing was created.",
    "unsupported": "Choose what the message says there is, or tell the person. Nothing was submitted or charged.",
    "unconfirmed": "Do not submit it again: it may have been charged. Tell the person the submission_id; only the "
    "proxy's own records can show whether a task exists. The person can run `mj-mcp tasks attach` or `abandon`.",
    "upstream_unreachable": "Nothing was charged. Try again later; if it persists, tell the person to check "
    "MJ_BASE_URL and the network with `mj-mcp doctor`.",
    "upstream_error": "Call get_task again later. The task is kept.",
    "storage_unavailable": "Nothing was submitted. Tell the person: the server cannot write its journal "
    "(`mj-mcp doctor` says why).",
    "limit_reached": "Tell the person: they can change the limit. Do not retry before it is raised or reset.",
    "image_unavailable": "Try once more later. If that fails too, give the person the link (get_task, images): "
    "they may be able to open it.",
}
"""What an agent should do, by error code."""

FREE_STEPS = {
    "invalid_request": "Correct the argument and call again.",
    "not_ready": "Wait with get_task until the task has succeeded, then call again.",
    "storage_unavailable": "Tell the person what cannot be read or written; `mj-mcp doctor` checks the journal and the "
    "folders. Tasks and their pictures are not lost.",
}
"""The advice where it differs for a tool that buys nothing."""


def error_result(error: MjError, *, spends: bool = True) -> CallToolResult:
    """An error for a model, and the same facts for programs. `spends`: the tool costs money."""
    next_step = NEXT_STEPS[error.code] if spends else (NEXT_STEPS | FREE_STEPS)[error.code]
    return _result(error.code, error.message, next_step, error.retry_after_seconds, error.submission_id)


def failed_result(code: str, message: str, submission_id: str) -> CallToolResult:
    """A job that was bought and failed, as the result of the call that bought it."""
    return _result(
        code,
        message,
        "Tell the person why. The same call would start and charge a new job.",
        None,
        submission_id,
    )


def _result(
    code: str, message: str, next_step: str, retry_after_seconds: float | None, submission_id: str | None
) -> CallToolResult:
    lines = [f"{code}: {message}"]
    if submission_id:
        lines.append(f"submission_id: {submission_id}")
    if retry_after_seconds is not None:
        lines.append(f"Retry after {retry_after_seconds:g} s.")
    facts = {
        "code": code,
        "message": message,
        "next_step": next_step,
        "retry_after_seconds": retry_after_seconds,
        "submission_id": submission_id,
    }
    return CallToolResult(
        content=[TextContent(text="\n".join([*lines, next_step]))], is_error=True, _meta={ERROR_META: facts}
    )
