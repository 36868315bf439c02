"""The gateway of the specification: the requests to it, and how its fetch answer is read.

Owns its paths and request bodies, and every field and status of a fetched task. Knows nothing of connections.

The shapes come from the API's specification, the deviations from its public relatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ValidationError

from mj_mcp.errors import Busy, Unauthorized, UpstreamError
from mj_mcp.proxy.body import (
    WORDS,
    code_in,
    describe,
    is_nothing,
    is_ok,
    is_page,
    status_of,
    words_in,
)
from mj_mcp.proxy.http import Answer, Fields, NoAnswer
from mj_mcp.proxy.outcomes import REFUSAL_STATUSES, REFUSALS, WRONG_PATH, FetchResult, Trouble, Unknown, name_in
from mj_mcp.proxy.text import Redact, check_task_id, clean, clean_url
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode

MAX_IMAGES = 16


ENDS: dict[str, Status] = {
    **dict.fromkeys(("SUCCEED", "SUCCEEDED", "SUCCESS", "COMPLETED", "FINISHED", "DONE"), Status.SUCCEEDED),
    **dict.fromkeys(("FAILED", "FAILURE", "FAIL", "ERROR"), Status.FAILED),
    **dict.fromkeys(("CANCELED", "CANCELLED", "CANCEL"), Status.FAILED),
}
"""The end states, with or without `TASK_STATUS_` before them. The specification's are SUCCEED and FAILED."""

UNKNOWN_TASK = frozenset({"TASK_NOT_FOUND", "task_no_found"})
"""Matched by name, whatever the HTTP status: the vendor family's, and new-api's with HTTP 400."""

REASONS = ("reason", "err_detail", "fail_reason", "failReason", *WORDS)
"""Fields in which a failed task gives its reason."""


def _number(value: Any) -> float | None:  # noqa: ANN401 - raw JSON
    """A number, or a text with one ("45%"). 0 counts as missing: many services never fill it in."""
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 1e6 else None


_Number = Annotated[float | None, BeforeValidator(_number)]


class _FetchTask(BaseModel):
    status: Any = None
    eta: _Number = None
    progress_percent: _Number = None


class _FetchAnswer(BaseModel):
    """The fetch answer. Every list may be missing or null, and entries that cannot be read are skipped."""

    task: _FetchTask
    images: Any = None


def read_fetch(answer: Answer | NoAnswer, redact: Redact) -> FetchResult:
    """The result of one poll."""
    if isinstance(answer, NoAnswer):
        return Trouble(UpstreamError.code if answer.sent else "upstream_unreachable", answer.reason)
    fields = answer.fields or {}
    if trouble := _trouble(answer, fields, redact):
        return trouble
    if _is_unknown(answer, fields):
        return Unknown()
    try:
        return _observation(_FetchAnswer.model_validate(fields), fields, redact)
    except ValidationError:
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
    return is_nothing(answer) or (fields.get("task") is None and (code_in(fields) is not None or "task" in fields))


def _observation(body: _FetchAnswer, fields: Fields, redact: Redact) -> Observation:
    word = clean(body.task.status, redact)[:64] or None
    end = (word or "").upper().removeprefix("TASK_STATUS_")
    status = ENDS.get(end, Status.QUEUED if end == "QUEUED" else Status.PROCESSING)
    images, warnings = _images(body.images, redact) if status is Status.SUCCEEDED else ((), ())
    failure = None
    if status is Status.FAILED:
        canceled = end.startswith("CANCEL")
        said = words_in(fields["task"], redact, REASONS) or words_in(fields, redact, REASONS)
        reason = said or ("canceled" if canceled else "the proxy gave no reason")
        failure = Failure("canceled" if canceled else "generation_failed", reason)
    progress = body.task.progress_percent
    return Observation(
        status=status,
        upstream_status=word,
        progress=min(int(progress), 99) or None if progress is not None and status is not Status.SUCCEEDED else None,
        eta_seconds=body.task.eta,
        failure=failure,
        images=images,
        warnings=warnings,
    )


def _images(listed: object, redact: Redact) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    entries = listed if isinstance(listed, list) else []
    images = tuple(
        Image(index=index, url=url)
        for index, entry in enumerate(entries[:MAX_IMAGES], start=1)
        if isinstance(entry, dict) and (url := clean_url(entry.get("image_url"), redact))
    )
    if len(images) < len(entries):
        return images, (WarningCode.LINKS_UNUSABLE.of(len(entries) - len(images), len(entries)),)
    return images, () if images else (WarningCode.NO_PICTURES.of(),)


# ---------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class Submit:
    """One POST: its path, and exactly the fields of the specification."""

    path: str
    body: dict[str, str | int]


def imagine(prompt: str) -> Submit:
    """POST /mj/submit/imagine."""
    return Submit("/mj/submit/imagine", {"prompt": prompt})


_ACTIONS = {Kind.UPSCALE: ("UPSCALE", "U"), Kind.VARIATION: ("VARIATION", "V"), Kind.REROLL: ("REROLL", "R")}


def change(kind: Kind, task_id: str, index: int | None) -> Submit:
    """POST /mj/submit/change; `index` is sent for UPSCALE and VARIATION only."""
    action, _ = _ACTIONS[kind]
    body: dict[str, str | int] = {"taskId": check_task_id(task_id), "action": action}
    if index is not None:
        body["index"] = index
    return Submit("/mj/submit/change", body)


def simple_change(kind: Kind, task_id: str, index: int | None) -> Submit:
    """POST /mj/submit/simple-change with "ID U1", "ID V3" or "ID R"."""
    _, letter = _ACTIONS[kind]
    content = f"{check_task_id(task_id)} {letter}{index or ''}"
    return Submit("/mj/submit/simple-change", {"content": content})


FETCH = "/mj/task/{id}/fetch"


def fetch_path(task_id: str) -> str:
    """GET /mj/task/{id}/fetch."""
    return FETCH.format(id=quote(check_task_id(task_id), safe=""))
