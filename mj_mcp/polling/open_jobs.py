"""The open jobs of this process: when each is polled next, and what a poll changes.

Owns the joint between the tasks and the schedule of their kind, and what is done where the schedule does not apply: a
poll that failed, a stalled task, one that was taken over. Knows no event loop, no journal and no waiters; times are in
seconds, ages count from the claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from mj_mcp.polling.job_times import JobTimes
from mj_mcp.polling.schedule import Budget, Job, Polls
from mj_mcp.proxy import FetchResult, Trouble, Unknown
from mj_mcp.tasks import Kind, Observation, Status, Task, WarningCode, merge, stall_if_running, stall_when_idle

STALLED_SHARE, STALLED_SECONDS = 0.1, 300.0
"""A stalled task is polled after a tenth of its age more, at most every five minutes."""

UNKNOWN_TOLERATED = 5

USUAL_SECONDS = {Kind.IMAGINE: 40.0, Kind.VARIATION: 40.0, Kind.REROLL: 40.0, Kind.UPSCALE: 25.0}
"""What a job takes, before this account's own jobs have shown it: docs.rixapi.com/en/guides/midjourney."""


@dataclass(frozen=True, slots=True)
class PollTimings:
    """What only a test changes, in seconds."""

    sweep: float = 0.5
    """How often the journal is asked for what other processes changed, left or lost, while there is anything to do."""
    idle_sweep: float = 2.0
    asked: float = 1.0
    """A caller who asks again and again brings no more polls of one task than this."""
    failed: float = 1.0
    failed_at_most: float = 60.0
    """A poll that failed is repeated after a second, then later and later: a hiccup ends soon, an outage is spared."""
    idle: float = 600.0
    """A task of which nothing has changed for so long is stalled."""
    give_up: float = 24 * 3600.0
    """A stalled task is not polled by itself any more; a caller who asks still gets a poll."""


@dataclass(slots=True)
class OpenJob:
    """What is known of a job because it is polled here."""

    times: JobTimes
    polls: Polls
    followed: bool
    """Whether it is polled from its claim on, so that the fixed loop's polls can be told."""
    open_at: float | None
    """Its age when it was last seen open; None when this process has not seen that."""
    asked: bool
    """Whether a caller wishes a poll now."""
    made: int = 0
    failures: int = 0
    trouble: Trouble | None = None
    unknown: int = 0
    unlisted: bool = False
    """Whether it was seen to succeed before its pictures were listed: when it ended is not known."""


class OpenJobs:
    """All kinds together: they share one budget."""

    def __init__(self, poll_seconds: float, timings: PollTimings) -> None:
        """`poll_seconds`: the pace that the proxy asks for."""
        self._poll_seconds, self._timings = poll_seconds, timings
        self._times = {kind: JobTimes(poll_seconds, usual) for kind, usual in USUAL_SECONDS.items()}
        self._budget = Budget(poll_seconds)

    def learn_from(self, tasks: Iterable[Task]) -> None:
        """Learn from finished tasks of earlier processes. Those without `claimed_at` are of an older version."""
        for task in tasks:
            if task.claimed_at is not None and task.finished_at is not None and task.unseen_seconds is not None:
                seconds = max(0.0, task.finished_at - task.claimed_at)
                self._of(task).learn(task.claimed_at, Job(max(0.0, seconds - task.unseen_seconds), seconds))

    def remaining(self, task: Task, age: float) -> float | None:
        """Seconds until such a job is usually done; None when it is later than any known."""
        return self._of(task).remaining(age)

    def begin(self, task: Task, age: float, *, known: bool) -> OpenJob:
        """Poll that task from now on: at once, unless it is `known` to have been accepted or seen this moment."""
        times = self._of(task)
        if known and task.claimed_at is not None:
            times.begin(task.submission_id, task.claimed_at)
            return OpenJob(times, Polls(), followed=True, open_at=0.0, asked=False)
        # Whoever polled it before kept to its budget: it counts as polled as often as by the fixed loop.
        polls = Polls(last=age if known else -math.inf, made=math.floor(age / self._poll_seconds), begun=True)
        return OpenJob(times, polls, followed=False, open_at=None, asked=not known)

    def drop(self, task: Task) -> None:
        """That task is not polled any more."""
        self._of(task).drop(task.submission_id)

    def next_poll(self, task: Task, job: OpenJob) -> float:
        """The age at which the next poll is due."""
        planned = self._planned(task, job)
        return min(planned, job.polls.last + self._timings.asked) if job.asked else planned

    def count(self, task: Task, job: OpenJob, age: float) -> None:
        """A poll is made at that age. One that only a caller's wish brings does not count."""
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
        """What a poll at that age changes; None for nothing. `now` is Unix time."""
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
            job.times.learn(task.claimed_at, Job(age - unseen_seconds, age))

    def _of(self, task: Task) -> JobTimes:
        return self._times[task.kind or Kind.IMAGINE]
