"""How long jobs take: the distribution of a job's time, learned from recent jobs, as pure functions.

Owns what is learned. Knows nothing of looks: `cadence.py` makes a schedule of what is learned here.

- A look tells no time, only that a job has ended since the look before: what is known of a job is an interval of
  log-age, and an open job is one without an upper end. Log-normal mixtures are fitted to those (`mixture.py`), recent
  jobs weighing more: one speed, two speeds, quick failures and stragglers all have their shape after a few dozen jobs.
- Two explanations are held against each other. Either jobs come evenly from one distribution, however odd its shape;
  or there is one common factor, "today everything is slow": a hidden level that mostly stays and sometimes jumps, whose
  distribution now a forward pass gives. To take the draws of a two-speed proxy for changes of level would blur what is
  known of them, and to take a change for a tail would learn it late; so each is weighed by how well it explains the
  jobs, less what its freedom costs (Akaike). Open jobs count as "took longer than their age" in both.
- What is predicted is the mixture over explanations and levels, so doubt after a jump widens the looks instead of
  betting on the old or the new speed.
- A small weight stays on "quick" and on "very late": neither a failure at once nor a straggler waits long.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from mj_mcp.mixture import NO_END, Seen, fit, middle

EARLY_AGE = 2.0  # Where the early look lies: a submit that fails at once has failed by then.
MEMORY = 80  # Jobs remembered: enough for a fit, few enough to build a model in about twenty milliseconds.
HALF_LIFE = 60.0  # Jobs after which a job's weight has halved.
JUMP = 0.02  # Chance that the speed changes between two jobs: about once in fifty.
# Before this proxy's own jobs have said otherwise: how often a job ends far too late, or, with a proxy that has quick
# ends at all (one in two has), at once.
LATE_ONCE_IN, QUICK_ONCE_IN = 50.0, 15.0

_STEP = 0.025
_LOW = math.log(0.3)
AGES = [math.exp(_LOW + _STEP * i) for i in range(401)]  # log-even, 0.3 s to 1 h 50
CELLS = len(AGES)
_HIGH = _LOW + _STEP * (CELLS - 1)
_LEVEL_STEP = 4
_LEVELS = range(-48, 49, _LEVEL_STEP)  # today's factor in cells: 0.3 to 3.3
_LEVEL_SPREAD = 0.45
HARDLY = 0.005  # chance that is as good as none
_ODD = 1e-4  # chance of a job that nothing explains


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a kind before it has a history: median in seconds, and spread of the logarithm."""

    median: float
    spread: float = 0.4


PRIORS = {"imagine": Prior(40.0), "variation": Prior(40.0), "reroll": Prior(40.0), "upscale": Prior(25.0, 0.6)}
"""By kind. Resellers publish 10-40 s (turbo), 30-100 s (fast), 90-300 s (relax): docs.rixapi.com/en/guides/midjourney.
Eight published answers for imagine have a median of 38 s: see benchmarks/cadence.py."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that ended. `seconds`: its age when that was seen. `at`: when, for the order only.

    `blind`: seconds since the look before, which still saw it open; 0 where the proxy tells the exact time. `looks`:
    how many were made, where that is known.
    """

    seconds: float
    at: float
    blind: float = 0.0
    looks: int = 0


_Span = tuple[float, float]
"""The log-ages between which a job ended."""


def still_open(history: Sequence[Finished], open_ages: Sequence[float], prior: Prior) -> list[float]:
    """The chance that the next job is still open at each of `AGES`.

    Learned from the finished jobs of its kind, the ages at which others were seen open, and what was believed before.
    """
    recent = sorted(history, key=lambda job: job.at)[-MEMORY:]
    return _survival(_density(recent, open_ages, prior))


def _density(recent: Sequence[Finished], open_ages: Sequence[float], prior: Prior) -> list[float]:
    """Chance per cell of `AGES` that the next job ends there."""
    spans = [_span(job) for job in recent]
    weights = [0.5 ** (rank / HALF_LIFE) for rank in range(len(spans))][::-1]
    mean = _mean(spans, weights, prior)
    # One that is open says that some take longer than all that have ended, not how much longer.
    longest = max((high for _, high in spans), default=_LOW)
    seen_open = [min(math.log(age), longest) for age in open_ages if age > AGES[0]] if spans else []

    steady, cost = _shape(spans, weights, seen_open, mean, prior)
    evenly = sum(math.log(chance) for (chance,) in _fits(steady, spans, (0,))) - cost
    evenly += _seen_open(_survival(steady), open_ages, 0)

    shifts = _shifts(spans, mean, prior)
    calm = [(low - shift, high - shift) for (low, high), shift in zip(spans, shifts, strict=True)]
    changing, cost = _shape(calm, weights, (), mean, prior)
    levels, unevenly = _levels(_fits(changing, spans, _LEVELS))
    today, seen = _today(levels, changing, open_ages)

    doubt = 1 / (1 + math.exp(min(50.0, max(-50.0, evenly - unevenly + cost - seen))))
    mixed = [(1 - doubt) * chance for chance in steady]
    for level, chance in zip(_LEVELS, today, strict=True):
        if doubt * chance > HARDLY:
            for i in range(max(0, level), min(CELLS, CELLS + level)):
                mixed[i] += doubt * chance * changing[i - level]
    quick, late, early = _quick(len(spans)), 1 / (LATE_ONCE_IN + sum(weights)), _cell(math.log(3 * EARLY_AGE))
    wide = _bell(mean + 0.4, 1.0)
    usual, broad = (1 - quick - late) / sum(mixed), late / sum(wide)
    return [
        usual * m + broad * w + (quick / early if i < early else 0.0)
        for i, (m, w) in enumerate(zip(mixed, wide, strict=True))
    ]


def _span(job: Finished) -> _Span:
    high = min(_HIGH, math.log(max(AGES[1], job.seconds)))
    before = job.seconds - job.blind
    return (min(math.log(before), high - _STEP) if before > AGES[0] else _LOW - 6), high


def _mean(spans: Sequence[_Span], weights: Sequence[float], prior: Prior) -> float:
    middles = sum(weight * middle(*span) for weight, span in zip(weights, spans, strict=True))
    return (middles + math.log(prior.median)) / (sum(weights) + 1)


def _quick(jobs: int) -> float:
    """The chance that the next job ends at once, after so many that did not.

    Each that did not makes it less likely that this proxy's jobs ever do, and then, that this one does: the chance
    falls with the square of their number. To go on paying for an early look at every job would cost a tenth of the
    delay.
    """
    ever = QUICK_ONCE_IN / (2 * QUICK_ONCE_IN + jobs)
    return ever / (QUICK_ONCE_IN + 1 + jobs)


def _shape(
    spans: Sequence[_Span], weights: Sequence[float], seen_open: Sequence[float], mean: float, prior: Prior
) -> tuple[list[float], float]:
    """Density of log-age at one level in each cell, and what its freedom costs in nats."""
    seen: list[Seen] = [(low, high, weight) for (low, high), weight in zip(spans, weights, strict=True)]
    seen += [(age, NO_END, 1.0) for age in seen_open]
    parts, cost = fit(seen, mean, prior.spread)
    density = [0.0] * CELLS
    for share, centre, spread in parts:
        if share > HARDLY:
            density = [d + share * b for d, b in zip(density, _bell(centre, spread), strict=True)]
    return density, cost


def _shifts(spans: Sequence[_Span], mean: float, prior: Prior) -> list[float]:
    """The level of each job's time, in hindsight (forward and backward pass), as a difference of log-age."""
    # The spread between neighbours does not see a change of level, so it serves to find the changes.
    steps = sorted(abs(middle(*b) - middle(*a)) for a, b in pairwise(spans))
    near = steps[len(steps) // 2] / 0.954 if steps else 0.0
    near = (len(steps) * near + 4 * prior.spread) / (len(steps) + 4)
    fits = _fits(_bell(mean, near), spans, _LEVELS)
    now, passed = _FRESH, []
    for chances in fits:
        now = _normed([p * c for p, c in zip(_moved(now), chances, strict=True)])
        passed.append(now)
    shifts, back = [0.0] * len(spans), [1.0] * len(_LEVELS)
    for k in reversed(range(len(spans))):
        known = _normed([p * b for p, b in zip(passed[k], back, strict=True)])
        shifts[k] = _STEP * sum(level * p for level, p in zip(_LEVELS, known, strict=True))
        ahead = [c * b for c, b in zip(fits[k], back, strict=True)]
        jumped = JUMP * sum(f * a for f, a in zip(_FRESH, ahead, strict=True))
        back = _normed([(1 - JUMP) * a + jumped for a in ahead])
    return shifts


def _levels(fits: Sequence[Sequence[float]]) -> tuple[list[float], float]:
    """The chances of `_LEVELS` for the next job, and the log-likelihood of the jobs so far (forward pass)."""
    now, score = _FRESH, 0.0
    for chances in fits:
        now = [p * c for p, c in zip(_moved(now), chances, strict=True)]
        score += math.log(sum(now))
        now = _normed(now)
    return _moved(now), score


def _moved(levels: Sequence[float]) -> list[float]:
    return [(1 - JUMP) * p + JUMP * f for p, f in zip(levels, _FRESH, strict=True)]


def _fits(density: Sequence[float], spans: Sequence[_Span], levels: Sequence[int]) -> list[list[float]]:
    """The chance of each job to end where it did, at each level; a little more lets one odd job pass."""
    reach = _LEVELS[-1]
    done = [0.0] * reach + list(accumulate(density, initial=0.0))
    done += [done[-1]] * reach
    fits = []
    for low, high in spans:
        last = _cell(high) + 1
        first = min(_cell(low), last - 1)
        fits.append([_STEP * (done[reach + last - level] - done[reach + first - level]) + _ODD for level in levels])
    return fits


def _today(levels: Sequence[float], shape: Sequence[float], open_ages: Sequence[float]) -> tuple[list[float], float]:
    """The chances of `_LEVELS` once open jobs took longer than their ages, and the log-likelihood of that."""
    alive = _survival(shape)
    seen = [_seen_open(alive, open_ages, level) for level in _LEVELS]
    top = max(seen)
    chances = [p * math.exp(s - top) for p, s in zip(levels, seen, strict=True)]
    return _normed(chances), top + math.log(sum(chances))


def _seen_open(alive: Sequence[float], open_ages: Sequence[float], level: int) -> float:
    """Log-likelihood that jobs are open at these ages."""
    cells = [min(CELLS - 1, max(0, _cell(math.log(max(AGES[0], age))) - level)) for age in open_ages]
    return sum(math.log(alive[cell] + 0.01) for cell in cells)


def _bell(centre: float, spread: float) -> list[float]:
    height, scale = 1 / (spread * math.sqrt(2 * math.pi)), -0.5 / (spread * spread)
    return [height * math.exp(scale * (_LOW + _STEP * i - centre) ** 2) for i in range(CELLS)]


def _normed(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]


_FRESH = _normed([math.exp(-0.5 * (_STEP * level / _LEVEL_SPREAD) ** 2) for level in _LEVELS])


def _cell(log_age: float) -> int:
    return min(CELLS - 1, max(0, round((log_age - _LOW) / _STEP)))


def _survival(density: Sequence[float]) -> list[float]:
    return [max(0.0, 1 - done) for done in accumulate(_normed(density))]


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """`ys` between the points `xs`, by straight lines; its ends beyond them."""
    i = bisect_right(xs, x)
    if i in {0, len(xs)}:
        return ys[min(i, len(xs) - 1)]
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
