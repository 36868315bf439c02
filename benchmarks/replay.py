"""Replays job times through the cadence, as a watch would live them, and through the fixed loop. No real time passes.

The cadence sees only what a watch sees: ages of looks and what they reported, never true times.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mj_mcp.cadence import Model, Watched, learn, next_look
from mj_mcp.jobtimes import MEMORY, Finished

POLL = 5.0
RELEARN_SECONDS = 15.0

STEPS = (0.0, 15.0, 31.0, 46.0, 62.0, 77.0, 93.0)
"""Progress as Midjourney's bot reports it after a time in the queue: log in novicezk/midjourney-proxy issue 261
(waiting at 17:06:39.9, 0 % at :52.5, then a step each 6.5 to 7.8 s)."""

Learner = Callable[["Watch"], Model]
Seen = tuple[float, float, int]
"""(seconds it took, delay in seconds, looks) of one job."""


@dataclass
class Job:
    """A running job, and what the watch knows of it."""

    number: int
    at: float
    seconds: float
    salt: random.Random
    queued: float
    task: Watched = field(default_factory=Watched)
    due: float = 0.0
    jitter: float = 0.0

    def progress(self, shape: str, age: float) -> float:
        """What the proxy reports at `age`."""
        share = min(1.0, age / self.seconds)
        if shape == "percent":
            return math.floor(100 * share)
        done = max(0.0, (share - self.queued) / (1 - self.queued)) * 7
        return STEPS[min(6, int(done))]


@dataclass
class Watch:
    """The least that a watch does: keeps the history, asks the cadence, obeys it."""

    learner: Learner
    poll: float = POLL
    running: list[Job] = field(default_factory=list)
    history: list[Finished] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    model: Model | None = None
    learned_at: float = 0.0

    def plan(self, job: Job, now: float) -> None:
        """When to look at `job` next."""
        if self.model is None or now - self.learned_at > RELEARN_SECONDS:
            self.model, self.learned_at = self.learner(self), now
        job.due = max(now, job.at + next_look(self.model, job.task, job.jitter))

    def saw_the_end(self, job: Job, now: float) -> Seen:
        """The last look at `job`; what it teaches moves every look that is still to come."""
        age, last, looks = now - job.at, job.task.last, job.task.looks + 1
        self.running.remove(job)
        self.history.append(Finished(age, now, age - last, looks))
        self.order.append(job.number)
        self.model = None
        for other in self.running:
            self.plan(other, now)
        return job.seconds, age - job.seconds, looks


def learned(watch: Watch) -> Model:
    """The model as the server makes it."""
    ages = [job.task.last for job in watch.running]
    return learn(watch.history[-MEMORY:], ages, poll_seconds=watch.poll)


def replay(
    times: Sequence[float],
    seed: int,
    *,
    at_once: int = 3,
    progress: str = "",
    poll: float = POLL,
    apart: float = 1.0,
    learner: Learner = learned,
) -> list[Seen]:
    """What each job took, waited and cost, in the order of their submits: `at_once` run, and each end begins another.

    `apart`: a job is submitted up to so many seconds after the end that made room for it.
    """
    rng, watch, now = random.Random(seed), Watch(learner, poll), 0.0
    results: dict[int, Seen] = {}
    coming = list(enumerate(times))[::-1]
    while coming or watch.running:
        while coming and len(watch.running) < at_once:
            k, seconds = coming.pop()
            salt = random.Random(f"{seed}/{k}")
            job = Job(k, now + apart * rng.random(), seconds, salt, rng.uniform(0.1, 0.35), jitter=salt.random())
            watch.running.append(job)
            watch.plan(job, now)
        job = min(watch.running, key=lambda j: j.due)
        now = job.due
        seen, age = job.task, now - job.at
        if age >= job.seconds:
            results[job.number] = watch.saw_the_end(job, now)
            continue
        percent = job.progress(progress, age) if progress else 0.0
        sights = (*seen.sights, (age, percent)) if percent else seen.sights
        job.task, job.jitter = Watched(age, seen.looks + 1, sights), job.salt.random()
        watch.plan(job, now)
    return [results[k] for k in range(len(times))]


def fixed(seconds: float, poll: float = POLL) -> tuple[float, int]:
    """Delay and looks of the fixed loop."""
    looks = math.ceil(seconds / poll)
    return looks * poll - seconds, looks


@dataclass(frozen=True)
class Row:
    """Means over jobs, and the 95th percentile of the delay."""

    delay: float
    late: float
    looks: float


def row(jobs: Sequence[tuple[float, float]]) -> Row:
    """What (delay, looks) of some jobs come to."""
    delays, count = sorted(delay for delay, _ in jobs), len(jobs)
    return Row(sum(delays) / count, delays[int(0.95 * count)], sum(looks for _, looks in jobs) / count)


def cadence_row(jobs: Sequence[Seen]) -> Row:
    """The cadence's row."""
    return row([(delay, looks) for _, delay, looks in jobs])


def fixed_row(jobs: Sequence[Seen], poll: float = POLL) -> Row:
    """The fixed loop's row, on the same jobs."""
    return row([fixed(seconds, poll) for seconds, _, _ in jobs])
