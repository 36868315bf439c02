"""Polls the open tasks, notifies every waiter, and resumes polling after a restart.

Owns which tasks this process polls and who waits for them. Several processes share the open tasks through the
journal's leases: each task is polled by one of them, and the others read the result from the journal. Knows nothing of
MCP, nor of how a task was submitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog
from cachetools import LRUCache

from mj_mcp.errors import StorageUnavailable, Unauthorized
from mj_mcp.events import Listener, Load, OnProgress
from mj_mcp.journal import Journal
from mj_mcp.polling.job_times import JOBS_REMEMBERED
from mj_mcp.polling.open_jobs import OpenJob, OpenJobs, PollTimings
from mj_mcp.polling.rate_limit import RateLimit
from mj_mcp.proxy import FetchResult, Proxy, Trouble
from mj_mcp.tasks import Kind, Status, Task, give_up, resume

log = structlog.get_logger("mj_mcp.polling")

PROGRESS_SECONDS = 1.0
CHANGES_REMEMBERED = 4096
"""Tasks whose last change is remembered: twice as many as the largest benchmark of one process."""

LAST_POLL_SECONDS = 0.7
"""A wait ends with a poll this long before its end, so that the answer is fresh."""


@dataclass(slots=True)
class _Entry:
    """A task that is polled here (`job`), or that a caller waits for. `task` is its newest known state."""

    task: Task
    job: OpenJob | None = None
    claimed: float = 0.0
    """When the job's time began, on the event loop's clock."""
    waiters: int = 0
    polls: int = 0
    lost: bool = False
    """Whether another process polls it now."""
    unrecorded: bool = False
    """Whether the result of the last poll is still to be written to the journal."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Poller:
    """Polls the open tasks that this process holds, and notifies every waiter."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        *,
        poll_seconds: float,
        polls_per_second: int,
        now: Callable[[], float],
        on_end: Listener,
        notify: Listener,
        timings: PollTimings,
    ) -> None:
        """`now`: Unix time. `on_end` gets each task that a poll finds ended, first; `notify` gets every change."""
        self._journal, self._proxy, self._timings = journal, proxy, timings
        self._now, self._on_end, self._notify = now, on_end, notify
        self._jobs = OpenJobs(poll_seconds, timings)
        self._limit = RateLimit(polls_per_second)
        self._entries: dict[str, _Entry] = {}
        self._latest: LRUCache[str, Task] = LRUCache(CHANGES_REMEMBERED)
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._released = False

    def load(self) -> Load:
        """The current number of tasks and waiters. May be called from any thread."""
        entries = list(self._entries.values())
        return Load(sum(entry.job is not None for entry in entries), sum(entry.waiters for entry in entries))

    def remaining(self, task: Task) -> float | None:
        """Seconds until the task is usually done; None when unknown, or when it takes longer than any known job."""
        if not task.is_polled or task.upstream_eta is not None:
            return task.upstream_eta
        return None if task.claimed_at is None else self._jobs.remaining(task, self._age(task))

    async def run(self) -> None:
        """Poll until cancelled. An error in one sweep is logged, and the next sweep runs as usual.

        It may run again after it ended with an error. The first sweep then resumes the open tasks.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._log_failure(self._recall)
                self._group.create_task(self._journal.listen(self._wake.set))
                while True:
                    await self._log_failure(self._sweep)
                    self._wake.clear()
                    await _wait_for(self._wake, self._timings.sweep if self._entries else self._timings.idle_sweep)
        finally:
            self._group = None

    def publish(self, task: Task, *, is_change: bool = True) -> None:
        """Notify all waiters of `task`, and the listeners of a change. Starts to poll it if it was just accepted."""
        self._latest[task.submission_id] = task
        entry = self._entries.get(task.submission_id)
        if entry is not None:
            entry.task = task
            entry.changed.set()
            entry.changed = asyncio.Event()
        if task.is_polled and (entry is None or entry.job is None):
            self._wake.set()
        if is_change:
            self._notify(task)

    def follow(self, task: Task) -> None:
        """Poll a task that was accepted or fetched just now. Its first poll follows the schedule."""
        self._begin(task, known=True)

    def release(self) -> None:
        """End every wait, current and future: the caller is answered with what is known. Polls continue."""
        self._released = True
        for entry in self._entries.values():
            entry.changed.set()

    def trouble(self, task: Task) -> tuple[int, Trouble] | None:
        """How many polls have failed since the last good one, and the last failure."""
        entry = self._entries.get(task.submission_id)
        job = entry.job if entry else None
        return (job.failures, job.trouble) if job and job.trouble else None

    # ----------------------------------------------------------------------------------------------- waiting

    async def wait(
        self,
        task: Task,
        until: float,
        *,
        enough: Callable[[Task], bool] = lambda task: not task.is_moving,
        poll_now: bool = False,
        one_poll: bool = False,
        on_progress: OnProgress | None = None,
    ) -> tuple[Task, int]:
        """`task` as soon as it is `enough`, or as last observed at the event loop's time `until`; and the polls made.

        `poll_now` asks for an immediate poll. With `one_poll` the first poll ends the wait, whatever its result. A
        refused key always ends it. `on_progress` is awaited once a second.
        """
        clock = asyncio.get_running_loop().time
        with self._waiter(task) as entry:
            before = entry.polls
            self._ask(entry, now=poll_now)
            last_poll = until - LAST_POLL_SECONDS if until - clock() > 2 * LAST_POLL_SECONDS else None
            task = await self._resumed(entry)
            while not enough(task) and (left := until - clock()) > 0 and not self._released:
                if last_poll is not None and clock() >= last_poll:
                    last_poll = None
                    self._ask(entry, now=True)
                pause = left if last_poll is None else last_poll - clock()
                heard = await _wait_for(entry.changed, max(0.0, min(pause, PROGRESS_SECONDS) if on_progress else pause))
                task = entry.task
                if heard and (one_poll or self._is_refused(entry)):
                    break
                if on_progress is not None and not enough(task):
                    await on_progress(task)
            return task, entry.polls - before

    @contextmanager
    def _waiter(self, task: Task) -> Iterator[_Entry]:
        # A change between the caller's read of the row and now is not missed.
        entry = self._entries.setdefault(task.submission_id, _Entry(task))
        heard = self._latest.get(task.submission_id, entry.task)
        entry.task = heard if heard.updated_at >= task.updated_at else task
        entry.waiters += 1
        try:
            yield entry
        finally:
            entry.waiters -= 1
            self._forget(entry)

    async def _resumed(self, entry: _Entry) -> Task:
        """The current task. If its polling was given up, it is resumed, because a caller asks for it."""
        if entry.task.given_up_at is not None:
            with suppress(StorageUnavailable):
                entry.task = await self._journal.update(entry.task.submission_id, resume)
                self._wake.set()
        return entry.task

    def _ask(self, entry: _Entry, *, now: bool) -> None:
        if entry.job is None:
            self._wake.set()
        else:
            entry.job.asked = entry.job.asked or now
            entry.wake.set()

    def _is_refused(self, entry: _Entry) -> bool:
        trouble = entry.job.trouble if entry.job else None
        return trouble is not None and trouble.code == Unauthorized.code

    def _forget(self, entry: _Entry) -> None:
        if not entry.waiters and entry.job is None:
            self._entries.pop(entry.task.submission_id, None)

    # -------------------------------------------------------------------------------------- which tasks are polled

    async def _log_failure(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except StorageUnavailable as failure:
            log.warning("journal_unavailable", reason=failure.message)
        except Exception:
            log.exception("sweep_failed")

    async def _recall(self) -> None:
        """Learn from the tasks that earlier processes finished."""
        for kind in Kind:
            self._jobs.learn_from(await self._journal.finished(kind, JOBS_REMEMBERED))

    async def _sweep(self) -> None:
        polled = self._polled()  # tasks that are gone from this set below have ended: `held` may be older than that
        for task in await self._journal.changes():
            self.publish(task)
        held = {task.submission_id: task for task in await self._journal.tend(self._now())}
        for task in [task for name, task in held.items() if name not in polled]:
            await asyncio.sleep(0)  # lets other work run between a thousand tasks
            if task.is_polled:
                self._begin(task, known=False)
            else:
                self.publish(task)  # settled for a dead process: a caller that repeated its call waits here
        for name in polled & self._polled() - held.keys():
            # Ended, or taken over by another process that considered this one dead.
            self._entries[name].lost = True
            self._entries[name].wake.set()

    def _polled(self) -> set[str]:
        return {name for name, entry in self._entries.items() if entry.job is not None}

    def _begin(self, task: Task, *, known: bool) -> None:
        """Start to poll the task. `known` says that its state was read just now."""
        if self._group is None or not task.is_polled:
            return
        entry = self._entries.setdefault(task.submission_id, _Entry(task))
        if entry.job is not None:
            return
        age = self._age(task)
        entry.task, entry.claimed = task, asyncio.get_running_loop().time() - age
        entry.lost = entry.unrecorded = False
        entry.job = self._jobs.begin(task, age, known=known)
        self._group.create_task(self._poll(entry, entry.job))

    # ------------------------------------------------------------------------------------------------ polling

    async def _poll(self, entry: _Entry, job: OpenJob) -> None:
        """Poll until the task is over. An error ends the polling of this task only; the next sweep resumes it."""
        task = entry.task
        try:
            while (task.is_polled or entry.unrecorded) and await self._due(entry, job):
                async with self._limit.slot(entry.claimed + job.polls.last):
                    job.asked = False
                    age = asyncio.get_running_loop().time() - entry.claimed
                    fetched = await self._proxy.fetch(task.task_id or "")
                entry.polls += 1
                before = entry.task
                task = await self._record(entry, self._apply(entry, job, fetched, age))
                if not task.is_open and not entry.unrecorded:
                    self._on_end(task)
                self.publish(task, is_change=task is not before)
        except Exception:
            log.exception("poll_failed", task_id=task.task_id)
            await asyncio.sleep(self._timings.failed)
        finally:
            self._jobs.drop(task)
            entry.job = None
            self._forget(entry)

    async def _due(self, entry: _Entry, job: OpenJob) -> bool:
        """Sleep until the next poll is due; a waiter or a new schedule may move it. False: no longer ours to poll."""
        clock = asyncio.get_running_loop().time
        while not entry.lost:
            task, idle = entry.task, self._now() - entry.task.updated_at
            if task.status is Status.STALLED and idle > self._timings.give_up and not entry.waiters:
                await self._journal.update(task.submission_id, lambda task: give_up(task, self._now()))
                return False
            age = clock() - entry.claimed
            if (left := self._jobs.next_poll(task, job) - age) <= 0:
                self._jobs.count(task, job, age)
                return True
            entry.wake.clear()
            await _wait_for(entry.wake, left)
        return False

    def _apply(self, entry: _Entry, job: OpenJob, fetched: FetchResult, age: float) -> Callable[[Task], Task] | None:
        """The change that a poll makes to the task. It may also move the first polls of other jobs."""
        times = job.times
        before = times.first_poll, times.early_poll
        change = self._jobs.apply(entry.task, job, fetched, age=age, now=self._now())
        if before != (times.first_poll, times.early_poll):
            for other in self._entries.values():
                if other.job is not None and other.job.times is times and not other.job.polls.begun:
                    other.wake.set()
        return change

    async def _record(self, entry: _Entry, change: Callable[[Task], Task] | None) -> Task:
        """The task after a poll, written to the journal if it changed."""
        task = entry.task
        if change is None or ((changed := change(task)) == task and not entry.unrecorded):
            return task
        try:
            written = await self._journal.update(task.submission_id, change)
        except StorageUnavailable as failure:
            # Waiters are notified all the same; a later poll writes the row.
            log.warning("poll_not_recorded", task_id=task.task_id, reason=failure.message)
            entry.unrecorded = True
            return changed
        entry.unrecorded = False
        return written

    def _age(self, task: Task) -> float:
        """Seconds since the claim. Without one: since the submit (older versions), or since the task was adopted."""
        return max(0.0, self._now() - (task.claimed_at or task.submitted_at or task.updated_at))


async def _wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event for at most `seconds`. Returns whether it was set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
