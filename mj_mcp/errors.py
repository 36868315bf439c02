"""What can go wrong, sorted by who can act. Owns the error codes; knows nothing of HTTP, SQL or MCP.

    MjError
    |-- CallerError            the caller can act: another call, other arguments
    |   |-- InvalidRequest       invalid_request        an argument is wrong
    |   |-- NotReady             not_ready              the parent task is not finished
    |   |-- TaskNotFound         task_not_found         nobody knows the id
    |   |-- PromptRefused        prompt_refused         the proxy names a banned word
    |   |-- Rejected             rejected               any other readable refusal
    |   |-- ImageUnavailable     image_unavailable      the picture cannot be fetched
    |   `-- Unsupported          unsupported            this proxy cannot do that
    |-- OperatorError          a person has to act: settings, account, disk, the proxy's records
    |   |-- Unauthorized         unauthorized           HTTP 401, 402, 403
    |   |-- NotConfigured        not_configured         no key was given yet
    |   |-- LimitReached         limit_reached          the ceiling that a person set
    |   |-- StorageUnavailable   storage_unavailable    the journal cannot be written
    |   `-- Unconfirmed          unconfirmed            the submit may have been charged
    `-- PassingError           time may help: the same call later
        |-- Busy                 busy                   queue full, 429, our own limit
        |-- UpstreamUnreachable  upstream_unreachable   no connection, so nothing was charged
        `-- UpstreamError        upstream_error         polls keep failing; the task stays open

An error carries facts (`message`, `retry_after_seconds`, `submission_id`). The advice for each code is worded where it
is shown: in `server/render/` for a model, in `cli/` for a person.
"""

from __future__ import annotations

import json
from typing import ClassVar


class MjError(Exception):
    """The root. `code` is the published error code; `message` states what happened, without advice."""

    code: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        submission_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.submission_id = submission_id


class CallerError(MjError):
    """The caller can act: another call, other arguments."""


class OperatorError(MjError):
    """A person has to act before this can work."""


class PassingError(MjError):
    """Time may help: the same call may work later."""


class InvalidRequest(CallerError):
    """An argument is wrong. Names the argument, what is allowed and what was given. Lists every wrong argument."""

    code = "invalid_request"

    def __init__(self, argument: str, given: object, must_be: str) -> None:
        """`must_be` ends the sentence "`argument` must be ..."."""
        self.problems: tuple[str, ...] = (f"`{shortened(argument)}` must be {must_be} (got {as_given(given)}).",)
        super().__init__(self.problems[0])

    @classmethod
    def because(cls, *problems: str) -> InvalidRequest:
        """One error for all `problems` of a call. Each problem is a sentence."""
        error = cls.__new__(cls)
        MjError.__init__(error, " ".join(problems))
        error.problems = problems
        return error


def as_given(value: object) -> str:
    """A value as the caller wrote it, in JSON. Invisible characters are escaped; at most 200 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)[:201]
    return shortened("".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text), 200)


def shortened(text: str, limit: int = 80) -> str:
    """`text`, cut where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


class NotReady(CallerError):
    """The parent task is not finished, so nothing can be made from it yet."""

    code = "not_ready"


class TaskNotFound(CallerError):
    """Neither the journal nor the proxy knows the id (or it belongs to somebody else)."""

    code = "task_not_found"


class PromptRefused(CallerError):
    """The proxy refused the prompt for its words (submit code 24)."""

    code = "prompt_refused"


class Rejected(CallerError):
    """Any other readable refusal by the proxy; carries the proxy's own code and description."""

    code = "rejected"


class ImageUnavailable(CallerError):
    """The picture cannot be fetched: its link expired, the guard refused it, or it is not a picture."""

    code = "image_unavailable"


class Unsupported(CallerError):
    """This proxy, or the model that made the picture, cannot do that. Nothing was sent."""

    code = "unsupported"


class Unauthorized(OperatorError):
    """HTTP 401, 402 or 403: the key or the account is at fault."""

    code = "unauthorized"


class NotConfigured(OperatorError):
    """No key is set yet. The server runs, but cannot submit or fetch."""

    code = "not_configured"


class LimitReached(OperatorError):
    """A limit that a person set is reached."""

    code = "limit_reached"


class StorageUnavailable(OperatorError):
    """The journal cannot be written, so nothing was submitted."""

    code = "storage_unavailable"


class Unconfirmed(OperatorError):
    """The submit may have been accepted and charged; only the proxy's records can tell."""

    code = "unconfirmed"


class Busy(PassingError):
    """The proxy's queue is full, it answered 429, or our own limit of open tasks is reached."""

    code = "busy"


class UpstreamUnreachable(PassingError):
    """No connection could be made, so nothing was charged."""

    code = "upstream_unreachable"


class UpstreamError(PassingError):
    """Polls of a task keep failing; the task stays open."""

    code = "upstream_error"


ERRORS: dict[str, type[MjError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        NotReady,
        TaskNotFound,
        PromptRefused,
        Rejected,
        ImageUnavailable,
        Unsupported,
        Unauthorized,
        NotConfigured,
        LimitReached,
        StorageUnavailable,
        Unconfirmed,
        Busy,
        UpstreamUnreachable,
        UpstreamError,
    )
}
"""Every published code and its class."""
