"""How long the jobs of one kind take, remembered from the last of them, and when that lets an open one be polled.

Owns what is learned and from which jobs. Knows no clock and no proxy; times are in seconds, ages count from the claim.
"""

from __future__ import annotations

import math

from mj_mcp.polling.schedule import SLACK, Job, Polls, Schedule, plan

REMEMBERED = 40
"""Jobs that are learned from, the last in the order of their claims."""

ENOUGH = 15
"""With fewer jobs than that, polls are those of the fixed loop."""

FEW, SCOUT = 7, 4
"""Of so many jobs open at once, one is polled from P on: it shows when today's jobs are quicker than the last ones."""

STUCK = 2.0
"""A job that takes so many times as long as all remembered ones holds the others up no longer."""

JUST_AFTER = 0.2
"""Seconds after the end that the proxy's reports promise."""


class JobTimes:
    """What is known of the jobs of one kind, those that are open among them.

    A job counts once all jobs that were claimed before it have ended. Of many that begin at once the quick ones end
    first, and would otherwise teach that all are quick.
    """

    def __init__(self, poll_seconds: float, usual: float) -> None:
        """`usual`: seconds that such a job takes, as long as no job has shown it."""
        self._poll_seconds, self._usual = poll_seconds, usual
        self._schedule = Schedule(poll_seconds)
        self._history: list[tuple[float, Job]] = []
        self._unsettled: list[tuple[float, Job]] = []
        self._open: dict[str, float] = {}
        self._scouts: set[str] = set()

    def begin(self, name: str, claimed_at: float) -> None:
        """A job is open, and is polled from its claim on."""
        self._open[name] = claimed_at
        if FEW + SCOUT * len(self._scouts) < len(self._open):
            self._scouts.add(name)

    def drop(self, name: str) -> None:
        """That job is not polled any more."""
        self._open.pop(name, None)
        self._scouts.discard(name)

    def learn(self, claimed_at: float, job: Job) -> None:
        """A job has ended. One whose end nobody watched closely teaches nothing."""
        if job.open_at and job.ended_by - job.open_at > max(2 * self._poll_seconds, job.ended_by / 2):
            return
        self._unsettled.append((claimed_at, job))
        longest = max((known.ended_by for _, known in self._history), default=math.inf)
        recent = claimed_at + job.ended_by - STUCK * longest
        oldest = min((at for at in self._open.values() if at > recent), default=math.inf)
        if settled := [known for known in self._unsettled if known[0] < oldest]:
            self._unsettled = [known for known in self._unsettled if known[0] >= oldest]
            self._history = sorted(self._history + settled, key=lambda known: known[0])[-REMEMBERED:]
            if len(self._history) >= ENOUGH:
                self._schedule = plan([known for _, known in self._history], self._poll_seconds)

    @property
    def first_poll(self) -> float:
        """The age of the first poll; it comes by the end of any job that is not counted yet."""
        ends = (job.ended_by for _, job in self._unsettled if not self._is_early(job))
        return max(self._poll_seconds, min(self._schedule.first, min(ends, default=math.inf)))

    @property
    def early_poll(self) -> bool:
        """Whether jobs have ended by P, so that each is polled then."""
        return self._schedule.early or any(self._is_early(job) for _, job in self._unsettled)

    def is_first(self, name: str, age: float) -> bool:
        """Whether a poll at that age is the first one."""
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
        """Seconds until half of the jobs that take longer than `age` have ended; None when none ever took longer."""
        times = [job.middle for _, job in self._history] or [self._usual]
        longer = sorted(seconds for seconds in times if seconds > age)
        return longer[len(longer) // 2] - age if longer else None

    def _is_early(self, job: Job) -> bool:
        return job.ended_by <= self._poll_seconds * (1 + SLACK)
