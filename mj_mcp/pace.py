"""The pace of looks: what has been learned of job times by kind, and the account of looks.

Owns the joint between the pure cadence and the tasks: it remembers finished jobs, keeps each kind's model fresh, and
says how long to wait for the next look at a task. Knows no clock and no connection; ages are seconds since the submit.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from mj_mcp.cadence import (
    MIN_GAP,
    Model,
    Watched,
    expected_remaining,
    fair_gap,
    is_late,
    learn,
    next_look,
)
from mj_mcp.jobtimes import MEMORY, PRIORS, Finished
from mj_mcp.tasks import Kind, Sighting, Status, Task

RELEARN_SECONDS = 15.0
"""Open jobs that grow older teach too; a model older than this is made anew before it is used."""

RELEARN_AT_ONCE_SECONDS = 1.0
"""Nor is a model made more often than this, however many tasks finish: making one takes twenty milliseconds."""

REPLAN_SECONDS = 5.0
"""A look that lies further ahead is planned anew so often: what other jobs have taught meanwhile moves it."""

AGES_ASKED = 15
"""So many open jobs, spread evenly over the ages of all, say as much of today's speed as a thousand would."""

LOOKS_PER_SECOND = 50.0
"""The ceiling over all open tasks of this process, shared evenly."""

FAILED_LOOK_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
"""A look that failed is repeated after a second, then later and later: a hiccup ends soon, an outage is spared."""

UNATTENDED_FACTOR = 3.0
"""A job that is late, and that nobody waits for, is looked at so many times less often."""

STALLED_SHARE = 0.1
STALLED_AT_MOST = 300.0
"""A stalled task is looked at after a tenth of its age more, at most every five minutes."""

IDLE_SECONDS = 600.0
LATE_IDLE_SECONDS = 180.0
"""Nothing has changed for so long: stalled. Sooner, when hardly any job of its kind has ever taken that long."""

GIVE_UP_SECONDS = 24 * 3600.0
"""A stalled task is not looked at by itself any more; a caller who asks still gets a look."""

SIGHTS_KEPT = 12


@dataclass(slots=True)
class Following:
    """What one watcher knows beside the task itself: ages are of the job, `looked_at` is of the event loop's clock."""

    looked_at: float
    watched: Watched = field(default_factory=Watched)
    failures: int = 0
    attended: bool = False

    def saw(self, age: float, sighting: Sighting) -> None:
        """A good look, at this age."""
        sights = self.watched.sights
        if sighting.progress:
            sights = (*sights[:1], *sights[1:][-SIGHTS_KEPT:], (age, float(sighting.progress)))
        self.failures = 0
        self.watched = Watched(age, self.watched.looks + 1, sights, sighting.eta_seconds)

    def missed(self, retry_after: float | None) -> None:
        """A look that showed nothing. It counts, but what was last seen open stays what it was."""
        self.failures += 1
        seen = self.watched
        self.watched = Watched(seen.last, seen.looks + 1, seen.sights, None, retry_after)


class Pace:
    """What one process has learned of one account's jobs."""

    def __init__(self, poll_seconds: float) -> None:
        """`poll_seconds` is the pace that the proxy asks for: all in all, no more looks than that are made."""
        self._poll_seconds = poll_seconds
        self._history: dict[Kind, list[Finished]] = defaultdict(list)
        self._models: dict[Kind, tuple[float, Model]] = {}
        self._news: set[Kind] = set()
        self._open: dict[str, tuple[Kind, float]] = {}

    def learn_from(self, tasks: Iterable[Task]) -> None:
        """Finished tasks, in any order; those whose end was not watched closely teach nothing."""
        for task in tasks:
            if task.submitted_at is None or task.finished_at is None or task.looks is None or task.blind is None:
                continue
            seconds = task.finished_at - task.submitted_at
            kind = _kind(task)
            if seconds > 0 and task.blind <= self._blind_at_most(kind, seconds):
                history = self._history[kind]
                history.append(Finished(seconds, task.finished_at, min(task.blind, seconds), task.looks))
                history.sort(key=lambda job: job.at)
                del history[:-MEMORY]
                self._news.add(kind)

    def _blind_at_most(self, kind: Kind, seconds: float) -> float:
        """How long nobody may have looked before the end was seen at this age.

        An end that the first look found by the usual time counts however blind it was: to drop those would make the
        quick jobs, and the looks that they saved, unheard of.
        """
        times = sorted(job.seconds for job in self._history[kind])
        usual = times[len(times) // 2] if times else PRIORS[kind].median
        return seconds if seconds <= usual else max(seconds / 2, self._poll_seconds * 2)

    def is_open(self, task: Task, age: float) -> None:
        """A task was seen open at this age: that it takes so long says something of all others."""
        self._open[task.submission_id] = (_kind(task), age)

    def is_over(self, task: Task) -> None:
        """A task is not watched any more."""
        self._open.pop(task.submission_id, None)

    def seconds_to_look(self, task: Task, following: Following, age: float, now: float) -> float:
        """Seconds from the last look to the next one. `now` is of any clock that all calls share."""
        watched, gap = following.watched, fair_gap(len(self._open), LOOKS_PER_SECOND)
        if following.failures:
            backoff = min(FAILED_LOOK_SECONDS * 2.0 ** min(following.failures - 1, 16), MAX_BACKOFF_SECONDS)
            return max(backoff, watched.retry_after or 0.0, gap)
        if task.status is Status.STALLED:
            return max(self._poll_seconds, min(STALLED_SHARE * age, STALLED_AT_MOST), gap)
        model = self._model(_kind(task), now)
        due = next_look(model, watched, _jitter(task, watched.looks), min_gap=gap) - watched.last
        if not following.attended and is_late(model, age):
            due = max(due, self._poll_seconds * UNATTENDED_FACTOR)
        return max(due, MIN_GAP)

    def remaining(self, task: Task, age: float, now: float) -> float | None:
        """Seconds until a job of this kind and age is usually done; None when it is later than any known."""
        if task.upstream_eta is not None:
            return task.upstream_eta
        return expected_remaining(self._model(_kind(task), now), max(age, 0.0))

    def patience(self, task: Task, age: float, now: float) -> float:
        """How many seconds a task of that age may stay unchanged before it is called stalled."""
        return LATE_IDLE_SECONDS if is_late(self._model(_kind(task), now), age) else IDLE_SECONDS

    def _model(self, kind: Kind, now: float) -> Model:
        made, model = self._models.get(kind, (0.0, None))
        fresh_for = RELEARN_AT_ONCE_SECONDS if kind in self._news else RELEARN_SECONDS
        if model is None or now - made > fresh_for:
            ages = sorted(age for other, age in self._open.values() if other is kind)
            asked = ages[:: math.ceil(len(ages) / AGES_ASKED) or 1]
            model = learn(self._history[kind], asked, prior=PRIORS[kind], poll_seconds=self._poll_seconds)
            self._models[kind] = (now, model)
            self._news.discard(kind)
        return model


def _kind(task: Task) -> Kind:
    return task.kind or Kind.IMAGINE


def _jitter(task: Task, looks: int) -> float:
    """In [0, 1), the same whenever it is asked for the same look: planning again redraws nothing."""
    digest = hashlib.blake2b(f"{task.submission_id}:{looks}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
