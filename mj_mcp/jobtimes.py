"""How long jobs take: the distribution of a job's time, learned from recent jobs, as pure functions.

Owns the fit. Knows nothing of looks: `cadence.py` makes a schedule of what is learned here.

- Recent jobs of the kind count, recent ones more, in log-age. Kernels are pulled to the mean so that their sum keeps
  the observed spread (West 1993): at full width that is a log-normal fit, at narrow widths it follows two speeds or
  quick failures. The width is the one that predicts left-out jobs best.
- Two explanations are held against each other. Either jobs come evenly from one distribution, however odd its shape;
  or there is one common factor, "today everything is slow": a hidden level that mostly stays and sometimes jumps, whose
  distribution now a forward pass gives. To take the draws of a two-speed proxy for changes of level would blur what is
  known of them, and to take a change for a tail would learn it late; so each is weighed by how well it predicted the
  jobs, each job left out of its own prediction (Bayes factor). Open jobs count as "took longer than their age" in both.
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

EARLY_AGE = 2.0  # Where the early look lies: a submit that fails at once has failed by then.
MEMORY = 80  # Jobs remembered: enough for a fit, few enough to build a model in about ten milliseconds.
HALF_LIFE = 60.0  # Jobs after which a job's weight has halved.
JUMP = 0.02  # Chance that the speed changes between two jobs: about once in fifty.
# Before this proxy's own jobs have said otherwise: how often a job ends far too late, or, with a proxy that has quick
# ends at all (one in two has), at once.
LATE_ONCE_IN, QUICK_ONCE_IN = 50.0, 15.0

_STEP = 0.025
_LOW = math.log(0.3)
AGES = [math.exp(_LOW + _STEP * i) for i in range(401)]  # log-even, 0.3 s to 1 h 50
CELLS = len(AGES)
_LEVEL_STEP = 4
_LEVELS = range(-48, 49, _LEVEL_STEP)  # today's factor in cells: 0.3 to 3.3
_LEVEL_SPREAD = 0.45
_WIDTHS = (1.0, 0.6, 0.4, 0.25, 0.15)
HARDLY = 0.005  # chance that is as good as none
_ENOUGH = 8  # jobs for a choice of widths
CLEAR = 1.5  # Nats by which narrower kernels must predict better than the log-normal fit.
_ODD = 0.02


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

    `blind`: seconds since the look before, which still saw it open; 0 where the proxy tells the exact time.
    """

    seconds: float
    at: float
    blind: float = 0.0


def still_open(history: Sequence[Finished], open_ages: Sequence[float], prior: Prior) -> list[float]:
    """The chance that the next job is still open at each of `AGES`.

    Learned from the finished jobs of its kind, the ages at which others were seen open, and what was believed before.
    """
    recent = sorted(history, key=lambda job: job.at)[-MEMORY:]
    return _survival(_density(recent, open_ages, prior))


def _density(recent: Sequence[Finished], open_ages: Sequence[float], prior: Prior) -> list[float]:
    """Chance per cell of `AGES` that the next job ends there."""
    logs = [math.log(min(AGES[-1], max(AGES[0], job.seconds - job.blind / 2))) for job in recent]
    weights = [0.5 ** (rank / HALF_LIFE) for rank in range(len(logs))][::-1]
    steady = _shape(logs, weights, prior)
    evenly = _fit(steady, logs) + _seen_open(_survival(steady.density), open_ages, 0)
    changing = _shape(_without_levels(logs, weights, prior), weights, prior)
    levels, unevenly = _levels(_fits(changing, logs))
    today, seen = _today(levels, changing.density, open_ages)
    doubt = 1 / (1 + math.exp(min(50.0, max(-50.0, evenly - unevenly - seen))))
    mixed = [(1 - doubt) * chance for chance in steady.density]
    for level, chance in zip(_LEVELS, today, strict=True):
        if doubt * chance > HARDLY:
            for i in range(max(0, level), min(CELLS, CELLS + level)):
                mixed[i] += doubt * chance * changing.density[i - level]
    quick, late, early = _quick(len(logs)), 1 / (LATE_ONCE_IN + sum(weights)), _cell(math.log(3 * EARLY_AGE))
    wide = _bell(_mean(logs, weights, prior) + 0.4, 1.0)
    usual, broad = (1 - quick - late) / sum(mixed), late / sum(wide)
    return [
        usual * m + broad * w + (quick / early if i < early else 0.0)
        for i, (m, w) in enumerate(zip(mixed, wide, strict=True))
    ]


def _quick(jobs: int) -> float:
    """The chance that the next job ends at once, after so many that did not.

    Each that did not makes it less likely that this proxy's jobs ever do, and then, that this one does: the chance
    falls with the square of their number. To go on paying for an early look at every job would cost a tenth of the
    delay.
    """
    ever = QUICK_ONCE_IN / (2 * QUICK_ONCE_IN + jobs)
    return ever / (QUICK_ONCE_IN + 1 + jobs)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Density per unit of log-age in each cell, and what each job added to it: its share of `kernel` around a cell."""

    density: list[float]
    kernel: list[float]
    shares: list[tuple[float, int]]

    def own(self, job: int, cell: int) -> float:
        """What this job itself adds to the density there: it must not bear witness for itself."""
        share, centre = self.shares[job]
        away = abs(cell - centre)
        return share * self.kernel[away] if away < len(self.kernel) else 0.0


def _shape(logs: Sequence[float], weights: Sequence[float], prior: Prior) -> _Shape:
    """Density of log-age at one level: kernels of the width that predicts left-out jobs best."""
    total, mean = sum(weights), _mean(logs, weights, prior)
    square = sum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    spread = math.sqrt((square + 3 * prior.spread**2) / (total + 3))
    fit = _bell(mean, spread)
    # The log-normal fit is left only for a clear gain.
    scores = {
        w: _left_out(logs[-45:], mean, spread, w) - (CLEAR if w < 1 else 0) for w in _WIDTHS if len(logs) >= _ENOUGH
    }
    width = max(scores, key=lambda w: scores[w], default=1.0)
    if width == 1.0:
        return _Shape(fit, [], [(0.0, 0)] * len(logs))
    narrow = max(_STEP, width * spread)
    kernel = [_normal(_STEP * away, 0.0, narrow) for away in range(math.ceil(3.5 * narrow / _STEP))]
    around, reach = kernel[:0:-1] + kernel, len(kernel) - 1
    pull = math.sqrt(1 - width * width)
    density = [2 / (total + 2) * f for f in fit]
    shares = [(w / (total + 2), _cell(mean + pull * (x - mean))) for x, w in zip(logs, weights, strict=True)]
    for share, centre in shares:
        first = max(0, centre - reach)
        for i, height in enumerate(around[first - centre + reach : CELLS - centre + reach], first):
            density[i] += share * height
    return _Shape(density, kernel, shares)


def _left_out(logs: Sequence[float], mean: float, spread: float, width: float) -> float:
    """Log-likelihood of each job under the kernels of the others."""
    pull, narrow = math.sqrt(1 - width * width), width * spread
    centres = [mean + pull * (x - mean) for x in logs]
    scale, others = -0.5 / (narrow * narrow), narrow * math.sqrt(2 * math.pi) * (len(logs) - 1)
    score = 0.0
    for x, own in zip(logs, centres, strict=True):
        near = sum([math.exp(scale * (x - c) ** 2) for c in centres]) - math.exp(scale * (x - own) ** 2)
        score += math.log(0.97 * near / others + 0.03 * _normal(x, mean, spread) + 1e-9)
    return score


def _without_levels(logs: Sequence[float], weights: Sequence[float], prior: Prior) -> list[float]:
    """Log-ages less the level of their time, in hindsight (forward and backward pass)."""
    # The spread between neighbours does not see a change of level, so it serves to find the changes.
    steps = sorted(abs(b - a) for a, b in pairwise(logs))
    near = steps[len(steps) // 2] / 0.954 if steps else 0.0
    near = (len(steps) * near + 4 * prior.spread) / (len(steps) + 4)
    fits = _fits(_Shape(_bell(_mean(logs, weights, prior), near), [], [(0.0, 0)] * len(logs)), logs)
    now, passed = _FRESH, []
    for fit in fits:
        now = _normed([p * e for p, e in zip(_moved(now), fit, strict=True)])
        passed.append(now)
    calm, back = list(logs), [1.0] * len(_LEVELS)
    for k in reversed(range(len(logs))):
        chances = _normed([p * b for p, b in zip(passed[k], back, strict=True)])
        calm[k] -= _STEP * sum(level * p for level, p in zip(_LEVELS, chances, strict=True))
        ahead = [e * b for e, b in zip(fits[k], back, strict=True)]
        jumped = JUMP * sum(f * a for f, a in zip(_FRESH, ahead, strict=True))
        back = _normed([(1 - JUMP) * a + jumped for a in ahead])
    return calm


def _levels(fits: Sequence[Sequence[float]]) -> tuple[list[float], float]:
    """The chances of `_LEVELS` for the next job, and the log-likelihood of the jobs so far (forward pass)."""
    now, score = _FRESH, 0.0
    for fit in fits:
        now = [p * e for p, e in zip(_moved(now), fit, strict=True)]
        score += math.log(sum(now))
        now = _normed(now)
    return _moved(now), score


def _moved(levels: Sequence[float]) -> list[float]:
    return [(1 - JUMP) * p + JUMP * f for p, f in zip(levels, _FRESH, strict=True)]


def _fits(shape: _Shape, logs: Sequence[float]) -> list[list[float]]:
    """How well each job fits each of `_LEVELS`; the constant lets one odd job pass without moving the level."""
    padding = [0.0] * _LEVELS[-1]
    padded, fits = padding + shape.density + padding, []
    for k, x in enumerate(logs):
        cell = _cell(x)
        found = padded[cell : cell + 2 * _LEVELS[-1] + 1 : _LEVEL_STEP][::-1]
        if shape.kernel:
            found = [max(0.0, f - shape.own(k, cell - level)) for f, level in zip(found, _LEVELS, strict=True)]
        fits.append([f + _ODD for f in found])
    return fits


def _fit(shape: _Shape, logs: Sequence[float]) -> float:
    """Log-likelihood of the jobs where there is one level only."""
    cells = [_cell(x) for x in logs]
    return sum(math.log(max(0.0, shape.density[c] - shape.own(k, c)) + _ODD) for k, c in enumerate(cells))


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


def _normal(x: float, centre: float, spread: float) -> float:
    z = (x - centre) / spread
    return math.exp(-0.5 * z * z) / (spread * math.sqrt(2 * math.pi))


def _bell(centre: float, spread: float) -> list[float]:
    return [_normal(_LOW + _STEP * i, centre, spread) for i in range(CELLS)]


def _normed(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]


_FRESH = _normed([math.exp(-0.5 * (_STEP * level / _LEVEL_SPREAD) ** 2) for level in _LEVELS])


def _mean(logs: Sequence[float], weights: Sequence[float], prior: Prior) -> float:
    return (sum(w * x for w, x in zip(weights, logs, strict=True)) + math.log(prior.median)) / (sum(weights) + 1)


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
