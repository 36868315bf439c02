"""What can go wrong, sorted by who can act. Owns the error codes; knows nothing of HTTP, SQL or MCP.

    MjError
    |-- CallerError            the caller can act: another call, other arguments
    |   |-- InvalidRequest       invalid_request        an argument is wrong
    |   |   `-- UnknownArgument    invalid_request        the tool has no such argument
    |   |-- NotReady             not_ready              the parent task is not finished
    |   |-- TaskNotFound         task_not_found         nobody knows the id
    |   |-- PromptRefused        prompt_refused         the proxy names a banned word
    |   |-- Rejected             rejected               any other readable refusal
    |   `-- ImageUnavailable     image_unavailable      the picture cannot be had
    |-- OperatorError          a person has to act: settings, account, disk, the proxy's records
    |   |-- Unauthorized         unauthorized           HTTP 401, 402, 403
    |   |-- LimitReached         limit_reached          the ceiling that a person set
    |   |-- StorageUnavailable   storage_unavailable    the journal cannot be written
    |   `-- Unconfirmed          unconfirmed            the submit may have been charged
    `-- PassingError           time may help: the same call later
        |-- Busy                 busy                   queue full, 429, our own limit
        |-- UpstreamUnreachable  upstream_unreachable   no connection, so nothing was charged
        `-- UpstreamError        upstream_error         looks fail for longer than we persist

An error carries facts (`message`, `retry_after_seconds`, `submission_id`); the advice that follows from
its code is worded at the face (`server/render.py` for a model, `cli.py` for a person).
"""

from __future__ import annotations

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
    """An argument is wrong. Names the argument, what was given, and what is allowed."""

    code = "invalid_request"

    def __init__(self, argument: str, given: object, allowed: str) -> None:
        shown = repr(given)
        if len(shown) > 200:
            shown = shown[:197] + "..."
        super().__init__(f"`{argument}` was {shown}; allowed: {allowed}.")
        self.argument = argument


class UnknownArgument(InvalidRequest):
    """An argument that the tool does not have: a dropped option would spend money on the wrong picture."""

    def __init__(self, tool: str, argument: str, nearest: str | None, known: list[str]) -> None:
        hint = f"; did you mean `{nearest}`?" if nearest else "."
        MjError.__init__(self, f"{tool} has no argument `{argument}`{hint} It takes: {', '.join(known)}.")
        self.argument = argument


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
    """The picture cannot be had: its link expired, the guard refused it, or it is no picture."""

    code = "image_unavailable"


class Unauthorized(OperatorError):
    """HTTP 401, 402 or 403: the key or the account is at fault."""

    code = "unauthorized"


class LimitReached(OperatorError):
    """The ceiling that a person set is reached."""

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
    """Looks at a task keep failing; the task stays open."""

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
        Unauthorized,
        LimitReached,
        StorageUnavailable,
        Unconfirmed,
        Busy,
        UpstreamUnreachable,
        UpstreamError,
    )
}
"""Every published code and its class."""
