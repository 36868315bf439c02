"""The open jobs of this process: when each is polled next, and what a poll changes.

Connects tasks to the schedule of their kind. Owns the cases that the schedule does not cover: a failed poll, a stalled
task, a task taken over from another process. Knows no event loop, no journal and no waiters. Times are in seconds;
ages count from the claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from mj_mcp.polling.job_times import JobTimes
from mj_mcp.polling.schedule import Budget, EndedJob, Polls
from mj_mcp.proxy import FetchResult, Trouble, Unknown
from mj_mcp.tasks import Kind, Observation, Status, Task, WarningCode, stall_if_running, stall_when_idle
from mj_mcp.tasks.merging import merge

STALLED_SHARE, STALLED_SECONDS = 0.1, 300.0
"""A stalled task is polled again after a tenth of its age, at most 5 minutes."""

UNKNOWN_TOLERATED = 5

USUAL_SECONDS = dict.fromkeys(Kind, 40.0) | {Kind.UPSCALE: 25.0}
"""Seconds that a job takes, until this account's own jobs are known: docs.rixapi.com/en/guides/midjourney."""


@dataclass(frozen=True, slots=True)
class PollTimings:
    """Times in seconds that only a test changes."""

    sweep: float = 0.5
    """How often the journal is checked for tasks that other processes changed or left, while tasks are open."""
    idle_sweep: float = 2.0
    asked: float = 1.0
    """The shortest time between two polls of one task that callers ask for."""
    failed: float = 1.0
    failed_at_most: float = 60.0
    """The retry delay after a failed poll. It doubles from 1 s to at most 60 s."""
    idle: float = 600.0
    """A task is stalled when nothing about it has changed for this long."""
    give_up: float = 24 * 3600.0
    """A stalled task is not polled automatically any more after this time. A caller who asks still gets a poll."""


@dataclass(slots=True)
class OpenJob:
    """What is known of a job that this process polls."""

    times: JobTimes
    polls: Polls
    followed: bool
    """Whether it was polled from its claim on, so that its polls can be compared with the fixed loop's."""
    open_at: float | None
    """Its age when it was last observed open; None when this process has not observed it."""
    asked: bool
    """Whether a caller asks for a poll now."""
    made: int = 0
    failures: int = 0
    trouble: Trouble | None = None
    unknown: int = 0
    unlisted: bool = False
    """Whether it succeeded before its pictures were listed. Its end is then not known."""


class OpenJobs:
    """The open jobs of all kinds. They share one budget of polls."""

    def __init__(self, poll_seconds: float, timings: PollTimings) -> None:
        """`poll_seconds`: the interval that the proxy asks for."""
        self._poll_seconds, self._timings = poll_seconds, timings
        self._times = {kind: JobTimes(poll_seconds, usual) for kind, usual in USUAL_SECONDS.items()}
        self._budget = Budget(poll_seconds)

    def learn_from(self, tasks: Iterable[Task]) -> None:
        """Learn from tasks that earlier processes finished. Older versions' rows, without `claimed_at`, are skipped."""
        for task in tasks:
            if task.claimed_at is not None and task.finished_at is not None and task.unseen_seconds is not None:
                seconds = max(0.0, task.finished_at - task.claimed_at)
                self._of(task).learn(task.claimed_at, EndedJob(max(0.0, seconds - task.unseen_seconds), seconds))

    def remaining(self, task: Task, age: float) -> float | None:
        """Seconds until such a job is usually done; None when it takes longer than any known job."""
        return self._of(task).remaining(age)

    def begin(self, task: Task, age: float, *, known: bool) -> OpenJob:
        """Start to poll the task: at once, unless it is `known` to have been accepted or polled just now."""
        times = self._of(task)
        if known and task.claimed_at is not None:
            times.begin(task.submission_id, task.claimed_at)
            return OpenJob(times, Polls(), followed=True, open_at=0.0, asked=False)
        # The process that polled it before kept its budget: count as many polls as the fixed loop would have made.
        polls = Polls(last=age if known else -math.inf, made=math.floor(age / self._poll_seconds), begun=True)
        return OpenJob(times, polls, followed=False, open_at=None, asked=not known)

    def drop(self, task: Task) -> None:
        """This task is not polled any more."""
        self._of(task).drop(task.submission_id)

    def next_poll(self, task: Task, job: OpenJob) -> float:
        """The age at which the next poll is due."""
        planned = self._planned(task, job)
        return min(planned, job.polls.last + self._timings.asked) if job.asked else planned

    def count(self, task: Task, job: OpenJob, age: float) -> None:
        """A poll is made at this age. It does not count if it is made only because a caller asked."""
        if age >= self._planned(task, job):
            self._budget.poll(job.polls, age)

    def _planned(self, task: Task, job: OpenJob) -> float:
        timings, polls, last = self._timings, job.polls, job.polls.last
        if job.failures:
            backoff = min(timings.failed * 2.0 ** min(job.failures - 1, 16), timings.failed_at_most)
            due = last + max(backoff, (job.trouble.retry_after if job.trouble else None) or 0.0)
        elif task.status is Status.STALLED:
            due = last + max(self._poll_seconds, min(STALLED_SHARE * last, STALLED_SECONDS))
        elif job.followed and not job.unlisted:
            due = job.times.next_poll(task.submission_id, polls)
        else:
            due = last + self._poll_seconds
        return max(due, self._budget.not_before(polls))

    def apply(
        self, task: Task, job: OpenJob, fetched: FetchResult, *, age: float, now: float
    ) -> Callable[[Task], Task] | None:
        """The change that a poll at this age makes to the task; None for none. `now` is Unix time."""
        if job.times.is_first(task.submission_id, age):
            job.polls.begun = True
        job.made += 1
        job.trouble = fetched if isinstance(fetched, Trouble) else None
        change: Callable[[Task], Task] | None = None
        if isinstance(fetched, Observation):
            change = self._apply_observation(task, job, fetched, age, now)
        else:
            job.failures += 1
        if isinstance(fetched, Unknown):
            job.unknown += 1
            if job.unknown >= UNKNOWN_TOLERATED and task.status is not Status.STALLED:
                change = partial(stall_if_running, warning=WarningCode.UNKNOWN.of(), now=now)
        job.polls.last = age
        return change

    def _apply_observation(
        self, task: Task, job: OpenJob, observed: Observation, age: float, now: float
    ) -> Callable[[Task], Task]:
        job.failures = job.unknown = 0
        ended = task.is_polled and not merge(task, observed, now).is_polled
        if observed.status is Status.SUCCEEDED and not observed.images:
            job.unlisted = True
        unseen_seconds = None if job.open_at is None or job.unlisted else round(age - job.open_at, 3)
        if ended:
            self._ended(task, job, age, unseen_seconds)
        elif not job.unlisted:
            job.open_at = age
            job.polls.report(age, observed.progress, observed.eta_seconds)
        idle, made = self._timings.idle, job.made

        def change(task: Task) -> Task:
            merged = stall_when_idle(merge(task, observed, now), idle, now)
            if merged.finished_at is not None and task.finished_at is None:
                return replace(merged, polls=made, unseen_seconds=unseen_seconds)
            return merged

        return change

    def _ended(self, task: Task, job: OpenJob, age: float, unseen_seconds: float | None) -> None:
        job.times.drop(task.submission_id)
        if job.followed:
            self._budget.end(job.polls)
            job.followed = False
        if task.claimed_at is not None and unseen_seconds is not None:
            job.times.learn(task.claimed_at, EndedJob(age - unseen_seconds, age))

    def _of(self, task: Task) -> JobTimes:
        return self._times[task.kind or Kind.IMAGINE]
