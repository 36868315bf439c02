"""Laws of job times, and the traces that are drawn from them.

`FAMILIES` are those that the targets name. `HELD_OUT` are others, with seeds of their own: no constant of the cadence
was chosen by them, so they show what a proxy that nobody thought of would see.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

JOBS = 120

PUBLISHED = (29.764, 30.528, 34.493, 36.0, 40.681, 43.374, 105.0, 138.458)
"""Seconds from submitTime to finishTime in published answers for an imagine, each once. Sources: docs.dmxapi.cn,
"query task" (40.681); ohmygpt-docs.apifox.cn/api-107358562 (36.0); gpt-best.apifox.cn/doc-3530863, from the
open-source proxy's docs (138.458, of which 36.9 queued); READMEs and API pages on GitHub, by submitTime:
1726667730879 (34.493), 1730621826053 (29.764), 1741531578038 (30.528), 1748339029401 (43.374, relaxed),
1710903739 (105). The trace draws from these eight, each smeared by 15 %: too few for a shape, but real in place."""


class Law(Protocol):
    """How long a job takes, as chance decides."""

    def draw(self, rng: random.Random) -> float:
        """One job's time, in seconds."""

    def cdf(self, seconds: float) -> float:
        """Share of jobs done by then."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of log-normals: (weight, median, sigma)."""

    parts: tuple[tuple[float, float, float], ...]

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        _, median, sigma = rng.choices(self.parts, [weight for weight, _, _ in self.parts])[0]
        return median * math.exp(sigma * rng.gauss(0, 1))

    def cdf(self, seconds: float) -> float:
        """Share of jobs done by then."""
        if seconds <= 0:
            return 0.0
        return sum(w * 0.5 * math.erfc(-math.log(seconds / m) / s / math.sqrt(2)) for w, m, s in self.parts)


@dataclass(frozen=True)
class Weibull:
    """Times of this scale and shape after a time in which no job can be done."""

    start: float
    scale: float
    shape: float

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        return self.start + rng.weibullvariate(self.scale, self.shape)

    def cdf(self, seconds: float) -> float:
        """Share of jobs done by then."""
        return 1 - math.exp(-(((seconds - self.start) / self.scale) ** self.shape)) if seconds > self.start else 0.0


@dataclass(frozen=True)
class Uniform:
    """Any time between two, alike."""

    low: float
    high: float

    def draw(self, rng: random.Random) -> float:
        """One job's time."""
        return rng.uniform(self.low, self.high)

    def cdf(self, seconds: float) -> float:
        """Share of jobs done by then."""
        return min(1.0, max(0.0, (seconds - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Trace:
    """How job times come: the law of the k-th job, how many run at once, and what progress the proxy reports."""

    name: str
    laws: tuple[Law, ...]
    change_at: int = JOBS
    at_once: int = 3
    progress: str = ""

    def law(self, k: int) -> Law:
        """The law of job `k`; the next begins at each change."""
        return self.laws[min(len(self.laws) - 1, k // self.change_at)]

    def times(self, seed: int) -> list[float]:
        """The seconds of each job."""
        rng = random.Random(f"{self.name}/{seed}")
        return [self.law(k).draw(rng) for k in range(JOBS)]


def lognormal(median: float, sigma: float) -> Mixture:
    """One speed."""
    return Mixture(((1.0, median, sigma),))


_STEADY, _SLOWER = lognormal(30, 0.35), lognormal(48, 0.35)
_TWO = Mixture(((0.7, 35, 0.25), (0.3, 110, 0.3)))
_TAIL = Mixture(((0.85, 40, 0.3), (0.15, 120, 0.9)))
_FAILING = Mixture(((0.9, 45, 0.3), (0.1, 1.0, 0.4)))
_PUBLISHED = Mixture(tuple((1 / 8, seconds, 0.15) for seconds in PUBLISHED))

FAMILIES = (
    Trace("steady 30 s", (_STEADY,)),
    Trace("steady 30 s, one at a time", (_STEADY,), at_once=1),
    Trace("steady 90 s, ten at once", (lognormal(90, 0.3),), at_once=10),
    Trace("two speeds", (_TWO,)),
    Trace("heavy tail", (_TAIL,)),
    Trace("jump x1.6 and back", (_STEADY, _SLOWER, _STEADY), change_at=40),
    Trace("jump x1.6, one at a time", (_STEADY, _SLOWER, _STEADY), change_at=40, at_once=1),
    Trace("drift, 20 % each 20 jobs", tuple(lognormal(30 * 1.2**k, 0.3) for k in range(7)), change_at=20),
    Trace("very quick", (lognormal(3, 0.35),)),
    Trace("one in ten fails at once", (_FAILING,)),
    Trace("published figures", (_PUBLISHED,)),
    Trace("steady 30 s, progress in %", (_STEADY,), progress="percent"),
    Trace("two speeds, progress in steps", (_TWO,), progress="steps"),
    Trace("published, progress in steps", (_PUBLISHED,), progress="steps"),
)

HELD_OUT = (
    Trace("Weibull, none before 20 s", (Weibull(20, 25, 1.5),), at_once=4),
    Trace("uniform 25-75 s", (Uniform(25, 75),), at_once=2),
    Trace("three speeds", (Mixture(((0.4, 18, 0.2), (0.4, 55, 0.2), (0.2, 160, 0.25))),), at_once=4),
    Trace("two near speeds", (Mixture(((0.5, 40, 0.15), (0.5, 75, 0.15))),)),
    Trace("waits of minutes", (Mixture(((0.8, 150, 0.4), (0.2, 400, 0.4))),), at_once=6),
    Trace("one in four fails at 3 s", (Mixture(((0.75, 60, 0.35), (0.25, 3.0, 0.3))),)),
    Trace("twice as quick at job 60", (lognormal(70, 0.3), lognormal(35, 0.3)), change_at=60, at_once=2),
    Trace("slow drift, 6 % each 10 jobs", tuple(lognormal(60 * 0.94**k, 0.25) for k in range(12)), change_at=10),
)
