"""What an answer of the proxy means to whoever asked: a value to go on with, or the error that says why not.

Owns the step from recorded outcomes to errors. Does nothing else.
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

BUSY_SECONDS = 15.0
"""What a caller is told to wait when the proxy is busy and does not say for how long."""

FAILED_POLLS_TOLERATED = 3


def observation_of(task_id: str, fetched: FetchResult) -> Observation:
    """A poll that has to see something.

    Raises:
        TaskNotFound: the proxy knows no such task.
        MjError: the poll failed; the class says why.
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
    """A submit that the proxy did not take, or may have taken, is an error of whoever asked for it."""
    failure = task.failure
    if task.status is Status.REFUSED and failure is not None:
        kind = ERRORS.get(failure.code, Rejected)
        stay_away = failure.retry_after_seconds
        if stay_away is None and kind is Busy:
            stay_away = BUSY_SECONDS
        raise kind(failure.message, retry_after_seconds=stay_away, submission_id=task.submission_id)
    if task.status is Status.UNCONFIRMED:
        reason = failure.message if failure else "the answer was lost"
        raise Unconfirmed(f"the submit may have been accepted and charged ({reason})", submission_id=task.submission_id)


def raise_when_polls_fail(task: Task, trouble: tuple[int, Trouble] | None) -> None:
    """An open task that cannot be seen: `trouble` is how many polls have failed in a row, and how the last one did.

    Raises:
        UpstreamError, UpstreamUnreachable, Unauthorized: too many; the task stays open.
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
