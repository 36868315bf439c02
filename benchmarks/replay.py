"""Replays traces of job times through the schedule, as the poller lives them, and through the fixed loop.

No real time passes. The schedule sees only what a poller sees: ages of polls and what they showed, never true times.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mj_mcp.polling.open_jobs import OpenJob, OpenJobs, PollTimings
from mj_mcp.tasks import Image, Kind, Observation, Status, Task

POLL = 5.0
PER_SECOND = 50
PICTURES = (Image(1, "https://example.com/1.png"),)
CLAIM_SECONDS = 0.02
"""Between two claims of a wave."""

PAUSE_SECONDS = 5.0
"""Between the end of a wave and the next one."""

STEPS = (0.0, 15.0, 31.0, 46.0, 62.0, 77.0, 93.0)
"""Progress as Midjourney's bot reports it after a time in the queue: log in novicezk/midjourney-proxy issue 261
(waiting at 17:06:39.9, 0 % at :52.5, then a step each 6.5 to 7.8 s)."""

Seen = tuple[float, float, int]
"""(seconds it took, delay in seconds, polls) of one job."""


@dataclass
class Running:
    """An open job, and what the poller knows of it."""

    number: int
    claimed: float
    seconds: float
    queued: float
    task: Task
    job: OpenJob
    polls: int = 0
    polled_at: float = 0.0
    version: int = 0
    waiting: bool = False

    def progress(self, shape: str, age: float) -> int | None:
        """What the proxy reports at `age`."""
        share = min(1.0, age / self.seconds)
        if shape == "percent":
            return math.floor(100 * share)
        done = max(0.0, (share - self.queued) / (1 - self.queued)) * 7
        return int(STEPS[min(6, int(done))]) if shape else None


@dataclass
class Replay:
    """The least that a poller does: it asks when the next poll is due, keeps to the ceiling, and tells what it saw."""

    waves: list[list[float]]
    rng: random.Random
    at_once: int = 0
    progress: str = ""
    asked_together: bool = False
    poll: float = POLL
    now: float = 0.0
    results: dict[int, Seen] = field(default_factory=dict)
    open: dict[int, Running] = field(default_factory=dict)
    claims: list[tuple[float, int, float]] = field(default_factory=list)
    due: list[tuple[float, int, int]] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    made: deque[float] = field(default_factory=lambda: deque(maxlen=PER_SECOND))

    def run(self) -> list[Seen]:
        """What each job took, waited and cost, in the order of the claims."""
        self.jobs = OpenJobs(self.poll, PollTimings(idle=math.inf))
        numbers = iter(range(sum(map(len, self.waves))))
        self.coming = deque(deque((next(numbers), seconds) for seconds in wave) for wave in self.waves)
        self.submit()
        while self.claims or self.due or self.ready:
            slot = max(self.now, self.made[0] + 1 if len(self.made) == PER_SECOND else 0.0) if self.ready else math.inf
            claim = self.claims[0][0] if self.claims else math.inf
            due = self.due[0][0] if self.due else math.inf
            self.now = max(self.now, min(slot, claim, due))
            if claim <= min(slot, due):
                self.claim(*heapq.heappop(self.claims))
            elif due <= slot:
                self.when_due(*heapq.heappop(self.due))
            else:
                self.fetch(self.open[heapq.heappop(self.ready)[1]])
        return [self.results[number] for number in sorted(self.results)]

    def submit(self) -> None:
        """Ask for what has room now."""
        if not self.at_once and self.coming and not self.open:
            start = self.now + PAUSE_SECONDS
            for k, (number, seconds) in enumerate(self.coming.popleft()):
                heapq.heappush(self.claims, (start + CLAIM_SECONDS * k, number, seconds))
        while self.at_once and self.coming[0] and len(self.open) + len(self.claims) < self.at_once:
            number, seconds = self.coming[0].popleft()
            heapq.heappush(self.claims, (self.now + self.rng.random(), number, seconds))

    def claim(self, at: float, number: int, seconds: float) -> None:
        """A job begins."""
        task = Task(
            submission_id=str(number),
            kind=Kind.IMAGINE,
            status=Status.PROCESSING,
            updated_at=at,
            submitted_at=0.0 if self.asked_together else at,
            claimed_at=at,
        )
        job = self.jobs.begin(task, 0.0, known=True)
        self.open[number] = Running(number, at, seconds, self.rng.uniform(0.1, 0.35), task, job, polled_at=at)
        self.plan(self.open[number])

    def plan(self, running: Running) -> None:
        """Look at when its next poll is due."""
        running.version += 1
        at = running.claimed + self.jobs.next_poll(running.task, running.job)
        heapq.heappush(self.due, (max(self.now, at), running.number, running.version))

    def when_due(self, _at: float, number: int, version: int) -> None:
        """A poll is due, unless its time was moved; it waits for a slot."""
        running = self.open.get(number)
        if running is None or running.waiting or running.version != version:
            return
        age = self.now - running.claimed + 1e-6
        if self.jobs.next_poll(running.task, running.job) > age:
            self.plan(running)
        else:
            self.jobs.count(running.task, running.job, age)
            running.waiting = True
            heapq.heappush(self.ready, (running.polled_at, number))

    def fetch(self, running: Running) -> None:
        """Poll it."""
        self.made.append(self.now)
        age, times = self.now - running.claimed, running.job.times
        ended = age >= running.seconds
        seen = Observation(
            status=Status.SUCCEEDED if ended else Status.PROCESSING,
            images=PICTURES if ended else (),
            progress=running.progress(self.progress, age),
        )
        before = times.first_poll, times.early_poll
        self.jobs.apply(running.task, running.job, seen, age=age, now=self.now)
        running.polls, running.polled_at, running.waiting = running.polls + 1, self.now, False
        if ended:
            del self.open[running.number]
            self.results[running.number] = running.seconds, age - running.seconds, running.polls
            self.submit()
        else:
            self.plan(running)
        if before != (times.first_poll, times.early_poll):
            for other in self.open.values():
                if not other.job.polls.begun and not other.waiting:
                    self.plan(other)


def fixed(seconds: float, poll: float = POLL) -> Seen:
    """What the fixed loop makes of a job."""
    polls = math.ceil(seconds / poll)
    return seconds, polls * poll - seconds, polls


@dataclass(frozen=True)
class Row:
    """Means over jobs, the 95th percentile of the delay, and the standard error of its mean."""

    delay: float
    late: float
    polls: float
    error: float


def row(jobs: Sequence[Seen]) -> Row:
    """What some jobs come to."""
    delays, count = sorted(delay for _, delay, _ in jobs), len(jobs)
    mean = sum(delays) / count
    error = math.sqrt(sum((delay - mean) ** 2 for delay in delays)) / count
    return Row(mean, delays[int(0.95 * count)], sum(polls for *_, polls in jobs) / count, error)


def fixed_row(jobs: Sequence[Seen], poll: float = POLL) -> Row:
    """The fixed loop's row, on the same jobs."""
    return row([fixed(seconds, poll) for seconds, _, _ in jobs])
