"""When to poll a job next, as pure functions of how long recent jobs took.

A fixed loop polls a job at P, 2P, 3P ... seconds after its claim until it ends (P is `MJ_POLL_SECONDS`). This
schedule skips the first of those polls, while hardly any job can have ended, and adds as many between the later ones,
where most jobs end. Whatever was learned:

1. The first poll comes by P, or by the time when the quickest tenth of recent jobs had ended. Jobs that ended by P do
   not count here: while there are such jobs, every job gets one more poll, at P.
2. After the first poll no gap is longer than P.
3. The n-th poll of a job never comes before n * P, unless jobs that have ended got fewer polls than the fixed loop
   would have made (see `Budget`). So the total over all jobs is never higher.

Ages are in seconds since the claim. Knows no clock, no task and no proxy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

CELLS = 60
"""Cells per P (or per multiple of P where jobs take long). Ages are counted in cells, so a plan takes < 1 ms."""

MOST_PER_P = 5
"""The most polls within one P; never more than one a second."""

LATEST_FIRST = 12
"""The first poll comes after at most this many P."""

SURPRISE = 0.02
"""The share of jobs that may end at any time before the first poll, whatever recent jobs show."""

SPREAD = 0.2
"""A job that ended at some age also counts for ages up to a fifth lower or higher."""

SLACK = 0.02
"""The part of P by which a poll may be early, because timers are not exact."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that was last observed open at age `open_at` and first observed ended at age `ended_by`."""

    open_at: float
    ended_by: float

    @property
    def middle(self) -> float:
        """Its most likely end."""
        return (self.open_at + self.ended_by) / 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """The ages at which a job is polled. After the last one, or where there are none, the fixed loop applies."""

    poll_seconds: float
    ages: tuple[float, ...] = ()
    early: bool = False
    """Whether recent jobs have ended by P."""

    @property
    def first(self) -> float:
        """The age of the first poll, not counting the early one at P."""
        return self.ages[0] if self.ages else self.poll_seconds

    def after(self, age: float) -> float:
        """The age of the next poll after one at `age`."""
        p = self.poll_seconds
        position = bisect_right(self.ages, age + SLACK * p)
        return self.ages[position] if position < len(self.ages) else p * (math.floor(age / p + SLACK) + 1)


def plan(jobs: Sequence[EndedJob], poll_seconds: float) -> Schedule:
    """The schedule that would have noticed the ends of these jobs soonest, with no more polls than the fixed loop."""
    slow = [job for job in jobs if job.ended_by > poll_seconds * (1 + SLACK)]
    early = len(slow) < len(jobs)
    if not slow:
        return Schedule(poll_seconds, early=early)
    latest = max(poll_seconds, sorted(job.middle for job in slow)[len(slow) // 10])
    cells = _Cells.of(slow, poll_seconds)
    polls = min(_plans(cells, latest, early=early))[1]
    ages = [(cell + step / count) * cells.width for cell, count in enumerate(polls) for step in range(1, count + 1)]
    return Schedule(poll_seconds, tuple(ages), early)


def _plans(cells: _Cells, latest: float, *, early: bool) -> Iterator[tuple[float, list[int]]]:
    """For each cell that may hold the first poll: the jobs' delay in seconds, and the number of polls per cell.

    Polls saved before the first poll are spent where one more poll saves most delay.
    """
    width, fixed, ended = cells.width, cells.fixed, cells.ended
    more = sorted(cells.more_polls(), reverse=True)
    least = min((price for *_, price in more), default=0.0)
    for first in range(min(len(ended) - 1, LATEST_FIRST // fixed + 1)):
        if first * width >= latest:
            return
        polls = [0] * first + [fixed] * (len(ended) - 1 - first)
        polls[first] = max(fixed, math.ceil(width / (latest - first * width) - SLACK))
        if polls[first] > cells.most:
            continue
        missed = sum(ended[:first])
        spare = cells.fixed_polls(first) - missed - (cells.opened[0] if early and first else 0)
        spare -= (polls[first] - fixed) * cells.price(first)
        if spare < 0:
            continue
        delay = sum(count * (first - cell - 0.5) * width for cell, count in enumerate(ended[:first]))
        delay += (missed + ended[first] / 2) * width / polls[first] + sum(ended[first + 1 :]) * width / fixed / 2
        delay += SURPRISE * cells.opened[0] * first * width / 2
        for worth, cell, count, price in more:
            if price <= spare and polls[cell] == count:
                polls[cell] += 1
                spare -= price
                delay -= worth * price + (missed * width / (count * (count + 1)) if cell == first else 0)
                if spare < least:
                    break
        yield delay, polls


@dataclass(frozen=True, slots=True)
class _Cells:
    """How many jobs ended in each cell of `width` seconds, and how many were open before. The last cell has no end."""

    width: float
    fixed: int
    """Polls of the fixed loop in one cell."""
    ended: list[float]
    opened: list[float]

    @classmethod
    def of(cls, jobs: Sequence[EndedJob], poll_seconds: float) -> _Cells:
        """Count them. Each job is spread evenly over the ages at which such a job may end."""
        longest = sorted(job.ended_by for job in jobs)[-1 - len(jobs) // 20] * (1 + SPREAD)
        fixed = math.ceil(longest / poll_seconds / CELLS)
        width = fixed * poll_seconds
        last = math.ceil(longest / width)
        ended = [0.0] * (last + 1)
        for job in jobs:
            half = max((job.ended_by - job.open_at) / 2, SPREAD * job.middle)
            low, high = (job.middle - half) / width, (job.middle + half) / width
            for cell in range(math.floor(low), math.ceil(high)):
                ended[min(cell, last)] += (min(high, cell + 1) - max(low, cell)) / (high - low)
        opened = [len(jobs) - before for before in accumulate(ended[:-1], initial=0.0)]
        return cls(width, fixed, ended, opened)

    @property
    def most(self) -> int:
        """The most polls in one cell."""
        return self.fixed * max(1, min(MOST_PER_P, int(self.width / self.fixed)))

    def fixed_polls(self, before: int) -> float:
        """Polls that the fixed loop would have made in the cells before this one."""
        open_jobs, ends = sum(self.opened[:before]), sum(self.ended[:before])
        return open_jobs * self.fixed - ends * (self.fixed - 1) / 2

    def price(self, cell: int) -> float:
        """The cost of one more poll in this cell, in polls. Jobs that an earlier poll found ended cost nothing."""
        return self.opened[cell] - self.ended[cell] / 2

    def more_polls(self) -> Iterator[tuple[float, int, int, float]]:
        """Each further poll that a cell may have: delay saved per price, cell, polls so far, price."""
        for cell, ended in enumerate(self.ended[:-1]):
            if ended > 0 and (price := self.price(cell)) > 0:
                worth = ended * self.width / 2 / price
                for count in range(self.fixed, self.most):
                    yield worth / (count * (count + 1)), cell, count, price


@dataclass(slots=True)
class Polls:
    """The polls of one open job."""

    last: float = 0.0
    """The age at the last poll, planned or asked for."""
    made: int = 0
    """Planned polls. A poll that a caller asks for does not count."""
    lent: int = 0
    """Planned polls that came earlier than the fixed loop's."""
    begun: bool = False
    """Whether the first poll was made, not counting the early one at P."""
    progress: list[tuple[float, float]] = field(default_factory=list)
    """Each rise of the reported progress, in per cent, and the age at which it was observed."""
    eta: float | None = None
    """The age at which the job ends, as the proxy said at the last poll."""

    def report(self, age: float, percent: float | None, eta_seconds: float | None) -> None:
        """The progress and remaining time that a poll at this age reported."""
        if percent and (not self.progress or percent > self.progress[-1][1]):
            self.progress.append((age, percent))
        self.eta = age + eta_seconds if eta_seconds else None

    def end(self, last: float) -> float | None:
        """The age at which the job will end, by the proxy's reports; None where there are none."""
        if self.eta is not None or not self.progress:
            return self.eta
        (age, percent), (since, start) = self.progress[-1], self.progress[0] if len(self.progress) > 1 else (0.0, 0.0)
        end = age + (100 - percent) * (age - since) / (percent - start)
        return end if end > last else last + max(0.5, (last - end) / 10)


class Budget:
    """Polls that ended jobs did not use, compared with the fixed loop."""

    def __init__(self, poll_seconds: float) -> None:
        """Starts empty."""
        self._poll_seconds = poll_seconds
        self._left = 0

    def not_before(self, polls: Polls) -> float:
        """The age before which the next planned poll must not come."""
        return 0.0 if self._left else (polls.made - polls.lent + 1) * self._poll_seconds

    def poll(self, polls: Polls, age: float) -> None:
        """A planned poll is made at this age."""
        polls.made += 1
        if polls.made - polls.lent > self._marks(age):
            polls.lent += 1
            self._left -= 1

    def end(self, polls: Polls) -> None:
        """The job has ended. The fixed loop would have polled once more after the last poll that found it open."""
        self._left += self._marks(polls.last) + 1 - (polls.made - polls.lent)

    def _marks(self, age: float) -> int:
        return math.floor(age / self._poll_seconds + SLACK)
