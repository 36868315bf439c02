"""What an answer of the proxy means to whoever asked: a value to go on with, or the error that says why not.

Owns the step from recorded outcomes to errors. Does nothing else.
"""

from __future__ import annotations

from mj_mcp.errors import ERRORS, Busy, StorageUnavailable, TaskNotFound, Unconfirmed
from mj_mcp.proxy import Look, Trouble, Unknown
from mj_mcp.tasks import Sighting, Status, Task

BUSY_SECONDS = 15.0
"""What a caller is told to wait when the proxy is busy and does not say for how long."""


def seen(task_id: str, look: Look) -> Sighting:
    """A look that has to see something.

    Raises:
        TaskNotFound: the proxy knows no such task.
        MjError: the look failed; the class says why.
    """
    match look:
        case Sighting():
            return look
        case Unknown():
            raise TaskNotFound(f"neither this server nor the proxy knows a task {task_id}")
        case Trouble():
            raise ERRORS[look.code](
                f"the look at task {task_id} failed: {look.message}", retry_after_seconds=look.retry_after
            )


def raise_unless_accepted(task: Task) -> None:
    """A submit that the proxy did not take, or may have taken, is an error of whoever asked for it."""
    failure = task.failure
    if task.status is Status.REFUSED and failure is not None:
        kind = ERRORS.get(failure.code, StorageUnavailable)
        stay_away = failure.retry_after_seconds
        if stay_away is None and kind is Busy:
            stay_away = BUSY_SECONDS
        raise kind(failure.message, retry_after_seconds=stay_away, submission_id=task.submission_id)
    if task.status is Status.UNCONFIRMED:
        reason = failure.message if failure else "the answer was lost"
        raise Unconfirmed(f"the submit may have been accepted and charged ({reason})", submission_id=task.submission_id)
