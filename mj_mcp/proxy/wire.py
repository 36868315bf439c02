"""The fetch answer: what one look at a task showed, in the language of the house.

Owns every field name and status word of a fetched task. Knows nothing of connections.

Source of the shape: the specification of the API; of the oddities: public relatives of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from mj_mcp.errors import Busy, Unauthorized, UpstreamError
from mj_mcp.proxy.body import (
    WORDS,
    Fields,
    code_in,
    describe,
    is_nothing,
    is_ok,
    is_page,
    read_fields,
    status_of,
    words_in,
)
from mj_mcp.proxy.http import Answer, NoAnswer
from mj_mcp.proxy.outcomes import REFUSAL_STATUSES, REFUSALS, WRONG_PATH, name_in
from mj_mcp.proxy.text import Redact, clean, clean_url
from mj_mcp.tasks import Failure, Image, Sighting, Status

MAX_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Unknown:
    """The proxy knows no such task, or not yet, or no more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The look failed; the task is as it was. `code` is one of our error codes."""

    code: str
    message: str
    retry_after: float | None = None


Look = Sighting | Unknown | Trouble

ENDS: dict[str, Status] = {
    **dict.fromkeys(("SUCCEED", "SUCCEEDED", "SUCCESS", "COMPLETED", "FINISHED", "DONE"), Status.SUCCEEDED),
    **dict.fromkeys(("FAILED", "FAILURE", "FAIL", "ERROR"), Status.FAILED),
    **dict.fromkeys(("CANCELED", "CANCELLED", "CANCEL"), Status.FAILED),
}
"""The end states, with or without `TASK_STATUS_` before them. The specification's are SUCCEED and FAILED."""

UNKNOWN_TASK = frozenset({"TASK_NOT_FOUND", "task_no_found"})
"""By name, whatever the HTTP status: the vendor family's, and new-api's with HTTP 400."""

REASONS = ("reason", "err_detail", "fail_reason", "failReason", *WORDS)
"""Where a failed task says why."""


def _number(value: Any) -> float | None:  # noqa: ANN401 - raw JSON
    """A number given as a number or as text ("45%"); 0 says nothing (many services never fill it in)."""
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
    """The fetch answer; every list may be missing or null, and entries we cannot read are passed over."""

    task: _FetchTask
    images: Any = None


def read_look(answer: Answer | NoAnswer, redact: Redact) -> Look:
    """What one look showed."""
    if isinstance(answer, NoAnswer):
        return Trouble(UpstreamError.code if answer.sent else "upstream_unreachable", answer.reason)
    fields = read_fields(answer) or {}
    if trouble := _trouble(answer, fields, redact):
        return trouble
    if _is_unknown(answer, fields):
        return Unknown()
    try:
        return _sighting(_FetchAnswer.model_validate(fields), fields, redact)
    except ValidationError:
        what = f"HTTP {answer.status} with JSON that holds no task" if fields else describe(answer, redact)
        return Trouble(UpstreamError.code, what)


def _trouble(answer: Answer, fields: Fields, redact: Redact) -> Trouble | None:
    """A refused key, a limit, a wrong path, a server in trouble; None for a 2xx, and for a 404 about the task."""
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


def _sighting(body: _FetchAnswer, fields: Fields, redact: Redact) -> Sighting:
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
    return Sighting(
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
        return images, (f"{len(entries) - len(images)} of {len(entries)} picture links were unusable",)
    return images, () if images else ("the proxy reports success, but lists no picture",)
