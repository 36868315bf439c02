"""What a person at the machine can settle in the journal, with or without a running server.

Owns how an unconfirmed submit is settled: it is attached to the task that it became, or abandoned. No agent can do
this. Knows nothing of MCP, of waiting or of pictures.
"""

from __future__ import annotations

from collections.abc import Callable

from mj_mcp.errors import InvalidRequest, TaskNotFound
from mj_mcp.journal import Journal
from mj_mcp.proxy import Proxy, check_task_id
from mj_mcp.proxy.raising import observation_of
from mj_mcp.tasks import Status, Task, accept, move
from mj_mcp.tasks.merging import merge


class Settlement:
    """The tasks of every owner, as the journal has them."""

    def __init__(self, journal: Journal, proxy: Proxy, *, now: Callable[[], float]) -> None:
        """`now` returns seconds since the epoch."""
        self._journal = journal
        self._proxy = proxy
        self._now = now

    async def attach(self, submission_id: str, task_id: str) -> Task:
        """Settle an unconfirmed submit: the proxy's records show that it became this task.

        Raises:
            InvalidRequest: it is not unconfirmed, or the task belongs to another submission. (A row that only a poll
                has made is merged: both rows then describe the same task.)
            TaskNotFound, UpstreamError: there is no such submission, or the proxy has no such task.
        """
        task = await self._find(submission_id, Status.UNCONFIRMED, Status.ABANDONED)
        other = await self._journal.find(check_task_id(task_id), None)
        if other is not None and other.submitted_at is not None:
            raise InvalidRequest("task_id", task_id, f"a task that no submission has; {other.submission_id} has it")
        fetched = observation_of(task_id, await self._proxy.fetch(task_id))
        now = self._now()
        return await self._journal.update(
            task.submission_id, lambda task: merge(accept(task, task_id, now), fetched, now)
        )

    async def abandon(self, submission_id: str) -> Task:
        """Abandon an unconfirmed submit. Its claim is released, so the same request can be submitted again.

        Raises:
            InvalidRequest: it is not unconfirmed.
            TaskNotFound: there is no such submission.
        """
        task = await self._find(submission_id, Status.UNCONFIRMED)
        return await self._journal.update(task.submission_id, lambda task: move(task, Status.ABANDONED, self._now()))

    async def _find(self, submission_id: str, *allowed: Status) -> Task:
        task = await self._journal.find(submission_id, None)
        if task is None or task.submission_id != submission_id:
            raise TaskNotFound(f"no submission {submission_id} is known here")
        if task.status not in allowed:
            raise InvalidRequest("submission_id", submission_id, f"an unconfirmed one; this one is {task.status}")
        return task
