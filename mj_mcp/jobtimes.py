"""How long jobs take: the distribution of a job's time, learned from recent jobs, as pure functions.

Owns the fit. Knows nothing of looks: `cadence.py` makes a schedule of what is learned here.

- Recent jobs of the kind count, recent ones more, in log-age. Kernels are pulled to the mean so that their sum keeps
  the observed spread (West 1993): at full width that is a log-normal fit, at narrow widths it follows two speeds or
  quick failures. The width is the one that predicts left-out jobs best.
- "Today everything is slow" is one common factor, a hidden level that mostly stays and sometimes jumps; a forward
  pass gives its distribution now. Open jobs count as "took longer than their age". What is predicted is the mixture
  over levels, so doubt after a jump widens the looks instead of betting on the old or the new speed.
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
# How often a job ends at once, or far too late, before this proxy's own jobs have said otherwise.
QUICK_ONCE_IN, LATE_ONCE_IN = 30.0, 50.0

_STEP = 0.025
_LOW = math.log(0.3)
AGES = [math.exp(_LOW + _STEP * i) for i in range(401)]  # log-even, 0.3 s to 1 h 50
CELLS = len(AGES)
_LEVELS = [0.1 * k for k in range(-12, 13)]  # log of today's factor: 0.3 to 3.3, whole cells of the grid
_LEVEL_SPREAD = 0.45
_WIDTHS = (1.0, 0.6, 0.4, 0.25, 0.15)
HARDLY = 0.005  # chance that is as good as none
_ENOUGH = 8  # jobs for a choice of widths


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
    # The spread between neighbours does not see a change of level, so it serves to find the changes.
    steps = sorted(abs(b - a) for a, b in pairwise(logs))
    near = steps[len(steps) // 2] / 0.954 if steps else 0.0
    near = (len(steps) * near + 4 * prior.spread) / (len(steps) + 4)
    rough = _bell(_mean(logs, weights, prior), near)
    levels = _levels(logs, rough)[0]
    shape = _shape([x - level for x, level in zip(logs, levels, strict=True)], weights, prior)
    today = _today(_levels(logs, shape)[1], shape, open_ages)
    mixed = [0.0] * CELLS
    for level, chance in zip(_LEVELS, today, strict=True):
        if chance > HARDLY:
            shift = round(level / _STEP)
            for i in range(max(0, shift), min(CELLS, CELLS + shift)):
                mixed[i] += chance * shape[i - shift]
    known = sum(weights)
    quick, late, early = 1 / (QUICK_ONCE_IN + known), 1 / (LATE_ONCE_IN + known), _cell(math.log(3 * EARLY_AGE))
    wide = _bell(_mean(logs, weights, prior) + 0.4, 1.0)
    usual, broad = (1 - quick - late) / sum(mixed), late / sum(wide)
    return [
        usual * m + broad * w + (quick / early if i < early else 0.0)
        for i, (m, w) in enumerate(zip(mixed, wide, strict=True))
    ]


def _shape(logs: Sequence[float], weights: Sequence[float], prior: Prior) -> list[float]:
    """Density of log-age at the usual level: kernels of the width that predicts left-out jobs best."""
    total, mean = sum(weights), _mean(logs, weights, prior)
    square = sum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    spread = math.sqrt((square + 3 * prior.spread**2) / (total + 3))
    fit = _bell(mean, spread)
    # The log-normal fit is left only for a clear gain: 1.5 nats.
    scores = {
        w: _left_out(logs[-45:], mean, spread, w) - (1.5 if w < 1 else 0) for w in _WIDTHS if len(logs) >= _ENOUGH
    }
    width = max(scores, key=lambda w: scores[w], default=1.0)
    if width == 1.0:
        return fit
    density, narrow = [2 * f for f in fit], width * spread
    for x, w in zip(logs, weights, strict=True):
        centre = mean + math.sqrt(1 - width * width) * (x - mean)
        for i in range(_cell(centre - 3.5 * narrow), _cell(centre + 3.5 * narrow) + 1):
            density[i] += w * _normal(_LOW + _STEP * i, centre, narrow)
    return [d / (total + 2) for d in density]


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


def _levels(logs: Sequence[float], shape: Sequence[float]) -> tuple[list[float], list[float]]:
    """Each job's level in hindsight, and the chances of `_LEVELS` for the next job (forward and backward pass)."""
    fresh = _normed([_normal(level, 0.0, _LEVEL_SPREAD) for level in _LEVELS])
    # The constant lets one odd job pass without moving the level.
    fits = [[shape[_cell(x - level)] + 0.02 for level in _LEVELS] for x in logs]
    now, passed = fresh, []
    for fit in fits:
        now = _normed([((1 - JUMP) * p + JUMP * f) * e for p, f, e in zip(now, fresh, fit, strict=True)])
        passed.append(now)
    means, back = [0.0] * len(logs), [1.0] * len(_LEVELS)
    for k in reversed(range(len(logs))):
        means[k] = sum(
            level * p
            for level, p in zip(_LEVELS, _normed([p * b for p, b in zip(passed[k], back, strict=True)]), strict=True)
        )
        ahead = [e * b for e, b in zip(fits[k], back, strict=True)]
        jumped = JUMP * sum(f * a for f, a in zip(fresh, ahead, strict=True))
        back = _normed([(1 - JUMP) * a + jumped for a in ahead])
    return means, [(1 - JUMP) * p + JUMP * f for p, f in zip(now, fresh, strict=True)]


def _today(levels: Sequence[float], shape: Sequence[float], open_ages: Sequence[float]) -> list[float]:
    """The chances of `_LEVELS`, once every open job has said that it took longer than its age."""
    alive = _survival(shape)
    chances = list(levels)
    for age in open_ages:
        x = math.log(max(AGES[0], age))
        chances = [p * (alive[_cell(x - level)] + 0.01) for p, level in zip(chances, _LEVELS, strict=True)]
    return _normed(chances)


def _normal(x: float, centre: float, spread: float) -> float:
    z = (x - centre) / spread
    return math.exp(-0.5 * z * z) / (spread * math.sqrt(2 * math.pi))


def _bell(centre: float, spread: float) -> list[float]:
    return [_normal(_LOW + _STEP * i, centre, spread) for i in range(CELLS)]


def _mean(logs: Sequence[float], weights: Sequence[float], prior: Prior) -> float:
    return (sum(w * x for w, x in zip(weights, logs, strict=True)) + math.log(prior.median)) / (sum(weights) + 1)


def _cell(log_age: float) -> int:
    return min(CELLS - 1, max(0, round((log_age - _LOW) / _STEP)))


def _normed(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]


def _survival(density: Sequence[float]) -> list[float]:
    return [max(0.0, 1 - done) for done in accumulate(_normed(density))]


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """`ys` between the points `xs`, by straight lines; its ends beyond them."""
    i = bisect_right(xs, x)
    if i in {0, len(xs)}:
        return ys[min(i, len(xs) - 1)]
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
