"""The proxy's shapes, and the tables that turn them into the language of the house.

Owns every field name, status word and submit code of the "Midjourney Proxy" API. Knows nothing of connections.
Another dialect of this API is another block in this file.

Source of the shapes: the specification of the API; of the codes and oddities: public relatives of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from mj_mcp.errors import Busy, MjError, PromptRefused, Rejected, Unauthorized, UpstreamError
from mj_mcp.proxy.http import Answer, NoAnswer
from mj_mcp.proxy.requests import is_task_id
from mj_mcp.proxy.text import Redact, clean, clean_url
from mj_mcp.tasks import Failure, Image, Sighting, Status

MAX_IMAGES = 16

# ---------------------------------------------------------------------------------------------- submits


@dataclass(frozen=True, slots=True)
class Accepted:
    """The proxy took it: the job exists and is charged."""

    task_id: str
    code: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The proxy, or the lack of a connection, said no: nothing was created."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It may have been accepted and charged; nobody can tell from here."""

    reason: str


class _SubmitAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: int
    description: Any = None
    # Raw JSON, read by `_task_id`: a refusal is a refusal whatever stands beside its code.
    result: Any = None
    properties: Any = None


ACCEPTED_CODES = frozenset({0, 1, 21, 22})
"""Accepted when an id is there. 1 is the specification's; 22 queued; 21 exists already; 0 on two relatives."""

DOUBTFUL_WITHOUT_ID = frozenset({1, 21, 22})
"""These say that a job exists; without its id we cannot follow it, and must not say that it failed."""

REFUSAL_CODES: dict[int, type[MjError]] = {
    3: Rejected,  # no account, or the parent is unknown
    4: Rejected,  # validation, parent not finished, change not allowed
    5: Rejected,  # internal
    9: Rejected,  # system error
    23: Busy,  # queue full
    24: PromptRefused,  # banned word
    30: Busy,  # saturated
}
"""Nothing was created, whatever the HTTP status beside it."""

REFUSAL_STATUSES: dict[int, type[MjError]] = {401: Unauthorized, 402: Unauthorized, 403: Unauthorized, 429: Busy}
"""When the body says nothing, or says less."""

DOUBTFUL_STATUSES = frozenset({408, 425, 499})
"""4xx that a gateway sends on behalf of a server that may still be working."""

CLIENT_ERRORS = range(400, 500)


def read_submit(answer: Answer | NoAnswer, redact: Redact) -> Accepted | Refused | Doubtful:
    """What became of a submit: by the body where it is readable, then by the status."""
    if isinstance(answer, NoAnswer):
        if answer.sent:
            return Doubtful(answer.reason)
        return Refused(Failure("upstream_unreachable", answer.reason))
    try:
        body = _SubmitAnswer.model_validate_json(answer.body)
    except ValidationError:
        return _by_status(answer, redact)
    if body.code in ACCEPTED_CODES:
        task_id = _task_id(body.result, redact)
        if task_id is not None:
            return Accepted(task_id, body.code, _queue_warning(body))
        if body.code in DOUBTFUL_WITHOUT_ID:
            return Doubtful(f"the proxy answered code {body.code} without a usable task id")
    return _by_code(answer, body, redact)


def read_code(answer: Answer) -> int | None:
    """The code in the answer to a submit, if it can be read."""
    try:
        return _SubmitAnswer.model_validate_json(answer.body).code
    except ValidationError:
        return None


def _by_code(answer: Answer, body: _SubmitAnswer, redact: Redact) -> Refused | Doubtful:
    said = clean(body.description, redact)
    kind = REFUSAL_CODES.get(body.code)
    by_status = REFUSAL_STATUSES.get(answer.status)
    if by_status is not None and kind in {None, Rejected}:
        kind = by_status
    if kind is None:
        if not 200 <= answer.status < 300 and not _is_client_error(answer.status):
            return Doubtful(f"HTTP {answer.status} with the unknown code {body.code}")
        kind = Rejected
    message = f"the proxy refused it with code {body.code}" + (f": {said}" if said else "")
    if kind is PromptRefused and (word := _banned_word(body.properties, redact)):
        message += f" (banned word: {word})"
    return Refused(Failure(kind.code, message, answer.retry_after))


def _by_status(answer: Answer, redact: Redact) -> Refused | Doubtful:
    what = _describe(answer, redact)
    if kind := REFUSAL_STATUSES.get(answer.status):
        return Refused(Failure(kind.code, what, answer.retry_after))
    if _is_client_error(answer.status):
        return Refused(Failure(Rejected.code, what))
    return Doubtful(what)


def _is_client_error(status: int) -> bool:
    return status in CLIENT_ERRORS and status not in DOUBTFUL_STATUSES


def _describe(answer: Answer, redact: Redact) -> str:
    """An unreadable answer in our words: its status and the likely mistake, never its markup."""
    body = answer.body.strip()
    if _is_page(answer):
        return (
            f"HTTP {answer.status} with a web page instead of JSON:"
            " the base URL may lack a path, or a gateway stands in the way"
        )
    if not body:
        return f"HTTP {answer.status} with an empty body"
    try:
        error = _ErrorBody.model_validate_json(body)
    except ValidationError:
        return f"HTTP {answer.status} with an unreadable body"
    said = next((t for t in (clean(text, redact) for text in error.texts()) if t), None)
    return f"HTTP {answer.status}" + (f": {said}" if said else " without a submit code")


def _is_page(answer: Answer) -> bool:
    """A web page instead of JSON: whoever sent it does not speak this API."""
    return answer.body.lstrip()[:1] == b"<"


class _ErrorBody(BaseModel):
    """What gateways in front of the proxy send: {"error": {"message"}}, {"message"}, {"detail"}."""

    error: Any = None
    message: Any = None
    detail: Any = None
    description: Any = None

    def texts(self) -> tuple[Any, ...]:
        inner = self.error.get("message") if isinstance(self.error, dict) else self.error
        return (inner, self.message, self.detail, self.description)


def _task_id(result: object, redact: Redact) -> str | None:
    """The id from an integer, a text, or a list of one; never from a float, which cannot hold 16 digits."""
    if isinstance(result, list):
        result = result[0] if len(result) == 1 else None
    if type(result) is int and result > 0:
        result = str(result)
    if not isinstance(result, str):
        return None
    return result if is_task_id(result) and redact(result) == result else None


def _queue_warning(body: _SubmitAnswer) -> tuple[str, ...]:
    if body.code == 21:
        return ("the proxy says that this task existed already",)
    ahead = body.properties.get("numberOfQueues") if isinstance(body.properties, dict) else None
    return (f"queued behind {ahead} other jobs",) if type(ahead) is int and 0 < ahead < 1_000_000 else ()


def _banned_word(properties: object, redact: Redact) -> str:
    return clean(properties.get("bannedWord"), redact) if isinstance(properties, dict) else ""


# ------------------------------------------------------------------------------------------------ looks


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

STATUSES: dict[str, Status] = {
    "TASK_STATUS_QUEUED": Status.QUEUED,
    "TASK_STATUS_PROCESSING": Status.PROCESSING,
    "TASK_STATUS_SUCCEED": Status.SUCCEEDED,
    "TASK_STATUS_FAILED": Status.FAILED,
    "TASK_STATUS_CANCELED": Status.FAILED,
}
"""Any other word means "still open"."""


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
    reason: Any = None
    eta: _Number = None
    progress_percent: _Number = None


class _FetchAnswer(BaseModel):
    """The fetch answer; every list may be missing or null, and entries we cannot read are passed over."""

    task: _FetchTask
    images: Any = None


def read_look(answer: Answer | NoAnswer, redact: Redact) -> Look:
    """What one look showed."""
    if isinstance(answer, NoAnswer):
        return Trouble("upstream_error" if answer.sent else "upstream_unreachable", answer.reason)
    if kind := REFUSAL_STATUSES.get(answer.status):
        return Trouble(kind.code, _describe(answer, redact), answer.retry_after)
    if (answer.status == 404 and not _is_page(answer)) or (
        answer.status < 300 and b"".join(answer.body.split()) in {b"", b"null", b"{}"}
    ):
        return Unknown()
    if not 200 <= answer.status < 300:
        return Trouble(UpstreamError.code, _describe(answer, redact), answer.retry_after)
    try:
        body = _FetchAnswer.model_validate_json(answer.body)
    except ValidationError:
        return _no_task(answer, redact)
    return _sighting(body, redact)


def _no_task(answer: Answer, redact: Redact) -> Unknown | Trouble:
    """A 200 that holds no task: a submit-shaped refusal or `{"task": null}` means that it is not known."""
    try:
        shape = _Shape.model_validate_json(answer.body)
    except ValidationError:
        return Trouble(UpstreamError.code, _describe(answer, redact))
    if shape.task is None and (shape.code is not None or "task" in shape.model_fields_set):
        return Unknown()
    return Trouble(UpstreamError.code, f"HTTP {answer.status} with JSON that holds no task")


class _Shape(BaseModel):
    task: Any = None
    code: int | None = None


def _sighting(body: _FetchAnswer, redact: Redact) -> Sighting:
    word = clean(body.task.status, redact)[:64] or None
    status = STATUSES.get(word or "", Status.PROCESSING)
    images, warnings = _images(body.images, redact) if status is Status.SUCCEEDED else ((), ())
    failure = None
    if status is Status.FAILED:
        canceled = word == "TASK_STATUS_CANCELED"
        reason = clean(body.task.reason, redact) or ("canceled" if canceled else "the proxy gave no reason")
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
