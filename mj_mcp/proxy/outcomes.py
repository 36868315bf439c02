"""The outcome of a submit or a fetch, and the tables that decide it.

Owns every code, reason and flag of the answer to a submit. The body decides where it is readable, then the status.
Knows nothing of connections, nor which proxy answers: each answer is read by its own shape.

Rule: whatever may have been charged is `OutcomeUnknown`. Only a known refusal is `Refused`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mj_mcp.errors import Busy, MjError, PromptRefused, Rejected, Unauthorized
from mj_mcp.proxy.body import code_in, describe, is_ok, status_of, words_in
from mj_mcp.proxy.http import Answer, Fields, NoAnswer
from mj_mcp.proxy.text import Redact, clean, is_task_id
from mj_mcp.tasks import Failure, Observation, WarningCode


@dataclass(frozen=True, slots=True)
class Accepted:
    """The proxy accepted it: the job exists and is charged."""

    task_id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The proxy refused it, or there was no connection: nothing was created.

    `status` is the HTTP status of the refusal, if it is about the key or the account (401, 402, 403).
    """

    failure: Failure
    status: int | None = None


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """It may have been accepted and charged. This cannot be known from here."""

    reason: str


Outcome = Accepted | Refused | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class Unknown:
    """The proxy does not know the task: never, not yet, or no more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The poll failed; the task is unchanged. `code` is one of our error codes."""

    code: str
    message: str
    retry_after: float | None = None


FetchResult = Observation | Unknown | Trouble

# ------------------------------------------------------------------------------------------------ the tables

TAKEN = frozenset({1, 21, 22})
"""A job exists: 1 is the specification's, 22 queued, 21 exists already. Without its id it cannot be polled."""

TAKEN_WITH_ID = frozenset({0, 200})
"""Accepted by some relatives of the proxy, if the answer has an id."""

REFUSALS: dict[int | str, type[MjError]] = {
    3: Rejected,  # no account, or the parent is unknown
    4: Rejected,  # validation, parent not finished, change not allowed
    5: Rejected,  # internal
    9: Rejected,  # system error
    23: Busy,  # queue full
    24: PromptRefused,  # banned word
    30: Busy,  # saturated
    # new-api, with code 4. Only a person can top up the account, so the caller cannot fix it.
    "quota_not_enough": Unauthorized,
    # The vendor family behind the gateway: {"code": HTTP status, "reason": ..., "message": ...}
    "ILLEGAL_PROMPT": PromptRefused,
    "ILLEGAL_IMAGE_CONTENT": Rejected,
    "INVALID_REQUEST_BODY": Rejected,
    "MISSING_API_KEY": Unauthorized,
    "INVALID_API_KEY": Unauthorized,
    "API_NOT_ALLOWED": Unauthorized,
    "NEED_REAL_NAME_VERIFY": Unauthorized,
    "BILLING_BALANCE_NOT_ENOUGH": Unauthorized,
    "BILLING_AUTH_FAILED": Unauthorized,
    "TASK_NOT_FOUND": Rejected,  # the parent
    "API_NOT_FOUND": Rejected,
    "PATH_NOT_FOUND": Rejected,
    "RATE_LIMIT_EXCEEDED": Busy,
}
"""Nothing was created, whatever the HTTP status. By code, or by name, which is more precise."""

UNKNOWN_OUTCOMES = frozenset(
    {
        # new-api, with code 4: the proxy behind it accepted the job, and the relay failed after that.
        "insert_midjourney_task_failed",
        "copy_response_body_failed",
        "close_response_body_failed",
        "unmarshal_response_body_failed",
        # The vendor family, with HTTP 500: it started, and does not say how far it got.
        "CREATE_TASK_FAILED",
        "GET_RESULT_FAILED",
        "TASK_FAILED",
        "BILLING_FAILED",
    }
)
"""Names of failures after which a job may exist."""

REFUSAL_STATUSES: dict[int, type[MjError]] = {401: Unauthorized, 402: Unauthorized, 403: Unauthorized, 429: Busy}
"""Used when the body has no error, or a less precise one."""

UNKNOWN_OUTCOME_STATUSES = frozenset({408, 425, 499})
"""4xx that a gateway sends on behalf of a server that may still be working."""

WRONG_PATH = frozenset({"API_NOT_FOUND", "PATH_NOT_FOUND"})

YES = frozenset({"true", "success", "succeed", "succeeded", "ok"})
_FLAGS = ("success", "ok", "succeeded", "accepted", "created", "submitted")
_SAYS_SUCCESS = re.compile(r"(?i)(?<!un)succe|\bok\b|成功")
_ID = re.compile(r"(?:^|_)(?:id|ids)$|[a-z]Ids?$|ID$|^(?:uuid|result|data|(?:task|job)id)$")
_NO_JOB = re.compile(r"(?i)^(?:request|req|trace|span|log|correlation|user|account|channel|client|session)_?id$")
"""Ids that an answer carries for any outcome."""


# ----------------------------------------------------------------------------------------------- the reading


def read_submit(answer: Answer | NoAnswer, redact: Redact) -> Outcome:
    """The outcome of a submit: by the body where it is readable, then by the status."""
    if isinstance(answer, NoAnswer):
        return OutcomeUnknown(answer.reason) if answer.sent else Refused(Failure("upstream_unreachable", answer.reason))
    fields = answer.fields
    if fields is None:
        return _by_status(answer, describe(answer, redact))
    return _by_body(answer, fields, redact)


def _by_status(answer: Answer, what: str) -> Refused | OutcomeUnknown:
    kind = _kind_of(answer.status)
    return _refusal(kind, answer, answer.status, what) if kind else OutcomeUnknown(what)


def _by_body(answer: Answer, fields: Fields, redact: Redact) -> Outcome:
    code = code_in(fields)
    if _says_taken(answer, fields) and (task_id := _task_id(fields, redact, anywhere=is_ok(answer.status))):
        return Accepted(task_id, _warnings(code, fields))
    if code in TAKEN:
        return OutcomeUnknown(f"the proxy answered code {code} without a usable task id")
    if _is_before_the_relay(fields):
        return _refused(_kind_of(answer.status) or Rejected, answer, fields, redact)
    name = name_in(fields)
    lost = code == 5 and fields.get("type") == "upstream_error" and not fields.get("result")
    if lost or name in UNKNOWN_OUTCOMES:
        return OutcomeUnknown(_said("the proxy lost track of it with", answer, fields, redact))
    if kind := REFUSALS.get(name or "") or REFUSALS.get(code or ""):
        return _refused(kind, answer, fields, redact)
    return _unknown(answer, fields, redact)


def read_code(answer: Answer) -> int | None:
    """The code in the answer to a submit, if it can be read."""
    return code_in(answer.fields or {})


def name_in(fields: Fields) -> str | None:
    """The name of the error: the vendor family's `reason`, or the first word of new-api's errors."""
    if isinstance(reason := fields.get("reason"), str) and reason:
        return reason.strip().upper()
    if fields.get("type") == "upstream_error":
        return (str(fields.get("description") or "").split() or [""])[0]
    return None


def _is_before_the_relay(fields: Fields) -> bool:
    """Whether new-api refused the request itself, whatever the status: it was sent to nobody.

    401 for the key, 400 for a button that it does not pass on, 503 where its operator offers no channel for the kind.
    """
    error = fields.get("error")
    return isinstance(error, dict) and error.get("type") == "new_api_error"


def _says_taken(answer: Answer, fields: Fields) -> bool:
    """Whether an id in this answer belongs to a job: the code says so, or a flag where there is no code."""
    code = code_in(fields)
    if code in TAKEN:
        return True
    if any(fields.get(flag) is False for flag in _FLAGS) or fields.get("error") or fields.get("err_detail"):
        return False
    if code in TAKEN_WITH_ID:
        return code == 0 or is_ok(answer.status)
    said = [str(fields.get(name)).lower() for name in ("code", "status", *_FLAGS)]
    return code is None and is_ok(answer.status) and not YES.isdisjoint(said)


def _unknown(answer: Answer, fields: Fields, redact: Redact) -> Refused | OutcomeUnknown:
    """Neither a known success nor a known refusal. A 2xx that resembles a success is an unknown outcome."""
    code, status = code_in(fields), status_of(answer, fields)
    kind = Rejected if is_ok(status) else _kind_of(status)
    if is_ok(answer.status) and status not in REFUSAL_STATUSES:
        kind = None if code is None or is_ok(code) or _speaks_of_success(fields) else kind
    if kind is None:
        return OutcomeUnknown(_said(f"HTTP {answer.status} with", answer, fields, redact))
    return _refused(kind, answer, fields, redact)


def _kind_of(status: int) -> type[MjError] | None:
    """The error for a status; None where a job may exist."""
    if status in REFUSAL_STATUSES:
        return REFUSAL_STATUSES[status]
    return Rejected if 400 <= status < 500 and status not in UNKNOWN_OUTCOME_STATUSES else None


def _refused(kind: type[MjError], answer: Answer, fields: Fields, redact: Redact) -> Refused:
    """A readable refusal. The status decides where the body only says that it was rejected."""
    status = status_of(answer, fields)
    if kind is Rejected:
        kind = REFUSAL_STATUSES.get(status, Rejected)
    what = _said("the proxy refused it with", answer, fields, redact)
    properties = fields.get("properties")
    if kind is PromptRefused and isinstance(properties, dict) and (word := clean(properties.get("bannedWord"), redact)):
        what += f" (banned word: {word})"
    if name_in(fields) in WRONG_PATH:
        what += " (the path of MJ_BASE_URL may be wrong)"
    return _refusal(kind, answer, status, what)


def _refusal(kind: type[MjError], answer: Answer, status: int, what: str) -> Refused:
    about_key = kind is Unauthorized and REFUSAL_STATUSES.get(status) is Unauthorized
    return Refused(Failure(kind.code, what, answer.retry_after), status if about_key else None)


def _said(what: str, answer: Answer, fields: Fields, redact: Redact) -> str:
    """`what` happened, the code or reason (else the status), and the proxy's text."""
    code, reason = code_in(fields), fields.get("reason")
    if isinstance(reason, str) and reason in REFUSALS.keys() | UNKNOWN_OUTCOMES:
        label = reason
    elif code is not None:
        label = f"code {code}"
    else:
        return describe(answer, redact)
    words = words_in(fields, redact)
    return f"{what} {label}" + (f": {words}" if words and words != label else "")


# ---------------------------------------------------------------------------------------------------- the id


def _task_id(fields: Fields, redact: Redact, *, anywhere: bool) -> str | None:
    """The id in `result`. With `anywhere`, also in the fields that relatives use, if there is only one."""
    documented = as_id(fields.get("result"), redact)
    # If the code is not one of the specification, `result` may also be a word.
    if documented and (code_in(fields) in TAKEN or any(map(str.isdigit, documented))):
        return documented
    found = {one for value in _named_ids(fields) if (one := as_id(value, redact))} if anywhere else set()
    return found.pop() if len(found) == 1 else None


def _named_ids(fields: Fields) -> Iterator[object]:
    inner = [_only(fields.get(name)) for name in ("data", "result", "task")]
    for holder in [fields, *(one for one in inner if isinstance(one, dict))]:
        yield from (holder.get(name) for name in ("task_id", "taskId"))
        if holder is not fields:
            yield holder.get("result")


def _only(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def as_id(value: object, redact: Redact) -> str | None:
    """The id from an integer, a text, or a list of one. Never from a float, which cannot hold 16 digits."""
    value = _only(value)
    if type(value) is int and 0 < value < 10**128:
        value = str(value)
    if not isinstance(value, str):
        return None
    return value if is_task_id(value) and redact(value) == value else None


def _warnings(code: int | None, fields: Fields) -> tuple[str, ...]:
    if code == 21:
        return (WarningCode.EXISTED.of(),)
    properties = fields.get("properties")
    ahead = properties.get("numberOfQueues") if isinstance(properties, dict) else None
    return (WarningCode.QUEUED_BEHIND.of(ahead),) if type(ahead) is int and 0 < ahead < 1_000_000 else ()


def _speaks_of_success(fields: Fields) -> bool:
    """Whether anything in the answer, at any depth, resembles an id or says "success"."""
    left: list[tuple[str, object]] = [("", fields)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, item) for item in value]
        elif value and name != "code" and _is_like_success(name, str(value)):
            return True
    return False


def _is_like_success(name: str, text: str) -> bool:
    if name.lower() in _FLAGS:
        return text.lower() in YES | {"1"}
    named = _ID.search(name) is not None and _NO_JOB.match(name) is None
    return bool(_SAYS_SUCCESS.search(text)) or (named and text not in {"True", "False"} and is_task_id(text))
