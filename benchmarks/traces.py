"""Laws of job times, and the traces that are drawn from them: how jobs come, and how long each takes.

`TUNED` are those that the constants of the schedule were chosen with; `HELD_OUT` are others, with laws of their own:
they show what a proxy that nobody thought of would see.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

PUBLISHED = (29.764, 30.528, 34.493, 36.0, 40.681, 43.374, 105.0, 138.458)
"""Seconds from submitTime to finishTime in published answers for an imagine, each once. Sources: docs.dmxapi.cn,
"query task" (40.681); ohmygpt-docs.apifox.cn/api-107358562 (36.0); gpt-best.apifox.cn/doc-3530863, from the
open-source proxy's docs (138.458, of which 36.9 queued); READMEs and API pages on GitHub, by submitTime:
1726667730879 (34.493), 1730621826053 (29.764), 1741531578038 (30.528), 1748339029401 (43.374, relaxed),
1710903739 (105). The trace draws from these eight, each smeared by 15 %: too few for a shape, but real in place."""

COLD = 20
"""So many jobs are drawn before the schedule has learned anything."""

AFTER_JUMP = 40
"""So many jobs after a change are "just after a jump"."""


class Law(Protocol):
    """How long a job takes, as chance decides."""

    def draw(self, rng: random.Random) -> float:
        """One job's time, in seconds."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of log-normals: (weight, median, sigma)."""

    parts: tuple[tuple[float, float, float], ...]

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        _, median, sigma = rng.choices(self.parts, [weight for weight, _, _ in self.parts])[0]
        return median * math.exp(sigma * rng.gauss(0, 1))


@dataclass(frozen=True)
class Weibull:
    """Times of this scale and shape after a time in which no job can be done."""

    start: float
    scale: float
    shape: float

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        return self.start + rng.weibullvariate(self.scale, self.shape)


@dataclass(frozen=True)
class Uniform:
    """Any time between two, alike."""

    low: float
    high: float

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True)
class Slower:
    """The same law, so many times as slow."""

    law: Law
    factor: float

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        return self.law.draw(rng) * self.factor


def lognormal(median: float, sigma: float) -> Mixture:
    """One speed."""
    return Mixture(((1.0, median, sigma),))


@dataclass(frozen=True)
class Trace:
    """How jobs come. `waves`: their seconds, wave by wave.

    With `at_once`, so many run and each end makes room for the next; without it, a wave is claimed at once, when the
    one before has ended. `judged` names the rows of the targets that the jobs of a phase are held against.
    """

    name: str
    waves: Callable[[random.Random], list[list[float]]]
    judged: Callable[[int], str]
    at_once: int = 0
    progress: str = ""
    asked_together: bool = False
    """Whether all were asked for at the beginning, and waited in our own queue until there was room."""


def steady(name: str, at_once: int, *laws: Law, every: int = 40, row: str = "steady", progress: str = "") -> Trace:
    """120 jobs, so many at once; each of several laws holds for `every` jobs."""

    def waves(rng: random.Random) -> list[list[float]]:
        return [[laws[min(len(laws) - 1, k // every)].draw(rng) for k in range(120)]]

    def judged(k: int) -> str:
        jumped = 1 < len(laws) < 4 and every <= k < every * (len(laws) - 1) + AFTER_JUMP
        if k < COLD and row != "fail":
            return "cold"
        return row if not 1 < len(laws) < 4 else "jump" if jumped else "any"

    return Trace(name, waves, judged, at_once, progress)


def cohorts(name: str, size: int, laws: Sequence[Law], row: str = "cohort") -> Trace:
    """So many at once, each cohort with its own law; the first is cold, and one with a new law is after a jump."""
    learned = math.ceil(COLD / size)

    def waves(rng: random.Random) -> list[list[float]]:
        return [[law.draw(rng) for _ in range(size)] for law in laws]

    def judged(k: int) -> str:
        wave = k // size
        if wave < learned:
            return row if row == "fail" else "cold"
        changed = [w for w in range(learned, wave + 1) if laws[w] != laws[w - 1] and (wave - w) * size < AFTER_JUMP]
        return "jump" if changed and row == "cohort" else row

    return Trace(name, waves, judged)


def worked_off(name: str, sizes: Sequence[int], workers: int, law: Law) -> Trace:
    """Cohorts of these sizes at a proxy that works on a few jobs at once: the others queue there."""

    def waves(rng: random.Random) -> list[list[float]]:
        found = []
        for size in sizes:
            free, ends = [0.0] * workers, []
            for _ in range(size):
                ends.append(heapq.heappop(free) + law.draw(rng))
                heapq.heappush(free, ends[-1])
            found.append(ends)
        return found

    return Trace(name, waves, lambda k: "cold" if k < COLD else "any")


def queued(name: str, law: Law) -> Trace:
    """180 asked for at once, of which ten may be open: most wait for minutes in our own queue."""
    return Trace(name, lambda rng: [[law.draw(rng) for _ in range(180)]], _warm, at_once=10, asked_together=True)


def _warm(k: int) -> str:
    return "cold" if k < COLD else "cohort"


STEADY, STEADY_90 = lognormal(30, 0.35), lognormal(90, 0.3)
TWO = Mixture(((0.7, 35, 0.25), (0.3, 110, 0.3)))
TAIL = Mixture(((0.85, 40, 0.3), (0.15, 120, 0.9)))
ONE_IN_TEN = Mixture(((0.9, 45, 0.3), (0.1, 1.0, 0.4)))
ONE_IN_FOUR = Mixture(((0.75, 45, 0.3), (0.25, 1.5, 0.4)))
ONE_IN_SEVEN = Mixture(((0.86, 30, 0.3), (0.14, 2.0, 0.3)))
REAL = Mixture(tuple((1 / 8, seconds, 0.15) for seconds in PUBLISHED))


def jumping(law: Law, factor: float) -> list[Law]:
    """Three cohorts of one speed, two of another, and one of the first again."""
    return [law] * 3 + [Slower(law, factor)] * 2 + [law]


TUNED = (
    steady("steady 30 s, one at a time", 1, STEADY),
    steady("steady 30 s, three at once", 3, STEADY),
    steady("steady 90 s, ten at once", 10, STEADY_90),
    steady("two speeds", 3, TWO, row="any"),
    steady("heavy tail", 3, TAIL, row="any"),
    steady("published figures", 3, REAL),
    steady("very quick, 3 s", 3, lognormal(3, 0.35), row="any"),
    steady("quick, 10 s", 4, lognormal(10, 0.3), row="any"),
    steady("slow, 180 s", 4, lognormal(180, 0.3), row="any"),
    steady("jump x 1.6 and back", 3, STEADY, Slower(STEADY, 1.6), STEADY),
    steady("jump x 1.6 and back, one at a time", 1, STEADY, Slower(STEADY, 1.6), STEADY),
    steady("drift, 20 % each 20 jobs", 3, *(lognormal(30 * 1.2**k, 0.3) for k in range(7)), every=20, row="cohort"),
    queued("queue of minutes", STEADY),
    cohorts("10 at once, jump x 1.6 and back", 10, [STEADY] * 10 + [Slower(STEADY, 1.6)] * 6 + [STEADY] * 6),
    cohorts("30 at once, jump x 1.6 and back", 30, jumping(STEADY, 1.6)),
    cohorts("60 at once, jump x 1.6 and back", 60, jumping(STEADY, 1.6)),
    cohorts("200 at once, jump x 1.6 and back", 200, jumping(STEADY, 1.6)),
    cohorts("60 at once, 90 s, jump x 1.6 and back", 60, jumping(STEADY_90, 1.6)),
    worked_off("60 at once, the proxy works on 3", (60, 60, 60), 3, STEADY),
    worked_off("the same, then single jobs", (60, *[1] * 8, 60, *[1] * 5, 10, 3, 3, 3), 3, STEADY),
    steady("one in ten fails at once", 3, ONE_IN_TEN, row="fail"),
    steady("one in four fails at once", 3, ONE_IN_FOUR, row="fail"),
    cohorts("60 at once, one in ten fails at once", 60, [ONE_IN_TEN] * 4, row="fail"),
    cohorts("60 at once, one in four fails at once", 60, [ONE_IN_FOUR] * 4, row="fail"),
    steady("steady 30 s, progress in %", 3, STEADY, row="progress", progress="percent"),
    steady("two speeds, progress in steps", 3, TWO, row="progress", progress="steps"),
    steady("published, progress in steps", 3, REAL, row="progress", progress="steps"),
)

HELD_OUT = (
    steady("Weibull, none before 20 s", 4, Weibull(20, 25, 1.5)),
    steady("uniform 25-75 s", 2, Uniform(25, 75)),
    steady("steady 50 s, seven at once", 7, lognormal(50, 0.4)),
    steady("three speeds", 4, Mixture(((0.4, 18, 0.2), (0.4, 55, 0.2), (0.2, 160, 0.25))), row="any"),
    steady("two near speeds", 3, Mixture(((0.5, 40, 0.15), (0.5, 75, 0.15)))),
    steady("waits of minutes", 6, Mixture(((0.8, 150, 0.4), (0.2, 400, 0.4))), row="any"),
    steady("twice as quick at job 60", 2, lognormal(70, 0.3), lognormal(35, 0.3), every=60),
    steady("slow drift, 6 % each 10 jobs", 3, *(lognormal(60 * 0.94**k, 0.25) for k in range(12)), every=10),
    queued("queue of minutes, Weibull", Weibull(15, 30, 1.3)),
    cohorts("15 at once, Weibull", 15, [Weibull(15, 30, 1.3)] * 8),
    cohorts("40 at once, two near speeds", 40, [Mixture(((0.5, 40, 0.15), (0.5, 75, 0.15)))] * 5),
    cohorts("60 at once, uniform, twice as quick and back", 60, jumping(Uniform(25, 75), 0.5)),
    cohorts("60 at once, three times as slow and back", 60, jumping(lognormal(25, 0.4), 3.0)),
    cohorts("100 at once, heavy tail", 100, [TAIL] * 4),
    cohorts("150 at once, Weibull, jump x 1.5 and back", 150, jumping(Weibull(20, 25, 1.5), 1.5)),
    worked_off("40 at once, the proxy works on 12", (40,) * 6, 12, lognormal(40, 0.3)),
    steady("one in four fails at 3 s", 3, Mixture(((0.75, 60, 0.35), (0.25, 3.0, 0.3))), row="fail"),
    cohorts("30 at once, one in seven fails at once", 30, [ONE_IN_SEVEN] * 6, row="fail"),
    cohorts("60 at once, at last one in ten fails", 60, [STEADY] * 4 + [ONE_IN_TEN] * 2, row="fail"),
    steady("steady 50 s, progress in %", 5, lognormal(50, 0.4), row="progress", progress="percent"),
)
