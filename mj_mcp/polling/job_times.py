"""How long recent jobs of one kind took, and when an open job is polled because of that.

Owns what is learned and from which jobs. Knows no clock and no proxy. Times are in seconds; ages count from the claim.
"""

from __future__ import annotations

import math

from mj_mcp.polling.schedule import SLACK, EndedJob, Polls, Schedule, plan

JOBS_REMEMBERED = 40
"""Jobs to learn from: the newest, in the order of their claims."""

ENOUGH = 15
"""With fewer jobs than this, polls follow the fixed loop."""

FEW, SCOUT = 7, 4
"""Of this many open jobs, one is polled from P on. It shows when today's jobs are quicker than the last ones."""

STUCK = 2.0
"""A job that takes this many times as long as all remembered ones no longer delays learning from the others."""

JUST_AFTER = 0.2
"""Seconds to wait after the end that the proxy's progress predicts."""


class JobTimes:
    """What is known of the jobs of one kind, open ones included.

    A job counts only when all jobs claimed before it have ended. When many start at once, the quick ones end first and
    would otherwise suggest that all are quick.
    """

    def __init__(self, poll_seconds: float, usual: float) -> None:
        """`usual`: seconds that such a job takes, until jobs of this account have ended."""
        self._poll_seconds, self._usual = poll_seconds, usual
        self._schedule = Schedule(poll_seconds)
        self._history: list[tuple[float, EndedJob]] = []
        self._unsettled: list[tuple[float, EndedJob]] = []
        self._open: dict[str, float] = {}
        self._scouts: set[str] = set()

    def begin(self, name: str, claimed_at: float) -> None:
        """A job is open, and is polled from its claim on."""
        self._open[name] = claimed_at
        if FEW + SCOUT * len(self._scouts) < len(self._open):
            self._scouts.add(name)

    def drop(self, name: str) -> None:
        """This job is not polled any more."""
        self._open.pop(name, None)
        self._scouts.discard(name)

    def learn(self, claimed_at: float, job: EndedJob) -> None:
        """A job has ended. It is ignored if the time between its last two polls was too long to tell when."""
        if job.open_at and job.ended_by - job.open_at > max(2 * self._poll_seconds, job.ended_by / 2):
            return
        self._unsettled.append((claimed_at, job))
        longest = max((known.ended_by for _, known in self._history), default=math.inf)
        recent = claimed_at + job.ended_by - STUCK * longest
        oldest = min((at for at in self._open.values() if at > recent), default=math.inf)
        if settled := [known for known in self._unsettled if known[0] < oldest]:
            self._unsettled = [known for known in self._unsettled if known[0] >= oldest]
            self._history = sorted(self._history + settled, key=lambda known: known[0])[-JOBS_REMEMBERED:]
            if len(self._history) >= ENOUGH:
                self._schedule = plan([known for _, known in self._history], self._poll_seconds)

    @property
    def first_poll(self) -> float:
        """The age of the first poll. It is no later than the end of any job that does not count yet."""
        ends = (job.ended_by for _, job in self._unsettled if not self._is_early(job))
        return max(self._poll_seconds, min(self._schedule.first, min(ends, default=math.inf)))

    @property
    def early_poll(self) -> bool:
        """Whether jobs have ended by P, so that each job is polled at P."""
        return self._schedule.early or any(self._is_early(job) for _, job in self._unsettled)

    def is_first(self, name: str, age: float) -> bool:
        """Whether a poll at this age is the first one."""
        return name in self._scouts or age >= self.first_poll - SLACK * self._poll_seconds

    def next_poll(self, name: str, polls: Polls) -> float:
        """The age of the next poll of an open job."""
        p, last = self._poll_seconds, polls.last
        if not polls.begun:
            if last < p * (1 - SLACK) and (self.early_poll or name in self._scouts):
                return p
            if (first := self.first_poll) > last:
                return first
        if (end := polls.end(last)) is not None:
            return min(max(end, last + JUST_AFTER) + JUST_AFTER, last + p)
        return min(self._schedule.after(last), last + p)

    def remaining(self, age: float) -> float | None:
        """Seconds until half of the jobs that take longer than `age` have ended; None when no job ever took longer."""
        times = [job.middle for _, job in self._history] or [self._usual]
        longer = sorted(seconds for seconds in times if seconds > age)
        return longer[len(longer) // 2] - age if longer else None

    def _is_early(self, job: EndedJob) -> bool:
        return job.ended_by <= self._poll_seconds * (1 + SLACK)
