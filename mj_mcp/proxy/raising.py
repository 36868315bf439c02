"""Turns a recorded outcome or a fetch into a value, or into the error that explains it.

Owns the step from outcomes to errors, and nothing else.
"""

from __future__ import annotations

from mj_mcp.errors import (
    ERRORS,
    Busy,
    Rejected,
    TaskNotFound,
    Unauthorized,
    Unconfirmed,
    UpstreamError,
)
from mj_mcp.proxy import FetchResult, Trouble, Unknown
from mj_mcp.tasks import Observation, Status, Task

PROXY_BUSY_SECONDS = 15.0
"""The `Retry-After` for a caller when the proxy is busy and gives none."""

FAILED_POLLS_TOLERATED = 3


def observation_of(task_id: str, fetched: FetchResult) -> Observation:
    """The observation of a fetch, which must have found the task.

    Raises:
        TaskNotFound: the proxy does not know the task.
        MjError: the fetch failed; the class says why.
    """
    match fetched:
        case Observation():
            return fetched
        case Unknown():
            raise TaskNotFound(f"neither this server nor the proxy knows a task {task_id}")
        case Trouble():
            raise ERRORS[fetched.code](
                f"the fetch of task {task_id} failed: {fetched.message}", retry_after_seconds=fetched.retry_after
            )


def raise_unless_accepted(task: Task) -> None:
    """A submit that was refused or is unconfirmed raises an error for its caller."""
    failure = task.failure
    if task.status is Status.REFUSED and failure is not None:
        kind = ERRORS.get(failure.code, Rejected)
        stay_away = failure.retry_after_seconds
        if stay_away is None and kind is Busy:
            stay_away = PROXY_BUSY_SECONDS
        raise kind(failure.message, retry_after_seconds=stay_away, submission_id=task.submission_id)
    if task.status is Status.UNCONFIRMED:
        reason = failure.message if failure else "the answer was lost"
        raise Unconfirmed(f"the submit may have been accepted and charged ({reason})", submission_id=task.submission_id)


def raise_when_polls_fail(task: Task, trouble: tuple[int, Trouble] | None) -> None:
    """Raise if an open task cannot be polled. `trouble`: how many polls failed in a row, and the last failure.

    Raises:
        UpstreamError, UpstreamUnreachable, Unauthorized: too many failed; the task stays open.
    """
    if trouble is None or not task.is_open:
        return
    count, last = trouble
    kind = ERRORS.get(last.code, UpstreamError)
    if count >= FAILED_POLLS_TOLERATED or kind is Unauthorized:
        raise kind(
            f"the last {count} polls of task {task.handle} failed ({last.message}); the task stays open",
            retry_after_seconds=last.retry_after,
            submission_id=task.submission_id,
        )
