"""When to look next: a learned cadence, as pure functions over frozen values.

Owns the distribution of a job's time and the looks that follow from it. Knows no clock, no event loop, no task and
no journal: ages are seconds since the submit, and the watch passes in what it has seen.

A look at age `s` that finds a job done since `u` is `s - u` seconds late. With the distribution F of job times
known, the looks that minimise `delay + price * looks` satisfy, after a look at `t` that saw the job open,

    V(t) = min over s of  integral_t^s (s - u) dF(u)  +  price * (1 - F(t))  +  V(s)

(Barlow, Hunter & Proschan, "Optimum checking procedures", 1963). For small gaps the solution has a rate of looks
proportional to the square root of the hazard: none while a job cannot be done yet, dense around the usual finish,
sparse in the tail. Near the first and the last jobs gaps are not small, so the equation itself is solved, on a grid
whose points lie by the square-root rule. For a fixed `s` the cost is linear in F(t), so the minimum is the lower
envelope of lines and the whole schedule costs O(points), about half a millisecond.

- The price of a look is not a setting: bisection finds the one whose expected looks equal what a fixed loop of
  `poll_seconds` makes on the same distribution, corrected by the account of looks kept over the jobs so far.
- F is learned in `jobtimes.py`.
- A guard stands behind the expectation: where a task has run ahead of the fixed loop by more than its credit and the
  looks saved so far, it goes on at the fixed loop's pace, so that no trace can run up a bill.
- The proxy's "queued" and "processing" are not used: some proxies never leave "queued" before the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mj_mcp.jobtimes import AGES, CELLS, EARLY_AGE, HARDLY, PRIORS, Finished, Prior, interpolate, still_open

MIN_GAP = 0.5  # Seconds between two looks at one task, at least.
# Where quick ends have become too unlikely to pay for an early look at every job, this share still gets one: nothing
# else would notice that the proxy has begun to fail at once (a failure seen late looks like a job of the usual time).
EARLY_SHARE = 0.1
# The account is steered to a reserve of this many jobs' looks, in about this many jobs: it lasts for a bad hour.
RESERVE, PAYBACK = 1.2, 10.0
# Looks by which one task may run ahead of the fixed loop while the account is even. Less would spoil the plan whenever
# the account is in the red; half of it does before the plan is worth much.
CREDIT = 14.0
STRANGE = 15  # Below this many jobs the first wait and gaps in the tail are no longer than the fixed loop's.
WAIT_AT_MOST = 120.0  # A Retry-After is obeyed up to here: proxies send absurd ones too.

# Points of the grid of looks: so many, and some for each look of the fixed loop, up to the last. A grid a third as fine
# finds the price of a look within a factor of `_NEARLY`.
_POINTS, _FOR_EACH, _AT_MOST = 400, 10.0, 700
_NEARLY = 1.08
_TAIL = 0.8  # chance to be open below which the tail begins
_TRUSTED = 5.0  # seconds
_NEAR, _LAST_STEP = 3.0, 85.0  # seconds to a reported finish worth waiting in one go; per cent of the last step
_FEW, _MANY = 2.5, 4.0  # looks of the fixed loop at a job: too few to plan with, enough to spend one early


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of an open task. `last`: its age at the last look (0 before the first), `looks` how many so far.

    `sights`: (age, percent) of the looks that reported progress above 0, oldest first. `eta` and `retry_after`:
    seconds, as the last look gave them, counted from that look.
    """

    last: float = 0.0
    looks: int = 0
    sights: tuple[tuple[float, float], ...] = ()
    eta: float | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """The learned distribution (`alive[i]` is the chance to be open at `ages[i]`) and the looks that follow from it.

    `plan[i]` is the age of the look after one at `ages[i]`. Where not `learned`, the fixed loop itself is the plan.
    """

    ages: tuple[float, ...]
    alive: tuple[float, ...]
    plan: tuple[float, ...]
    learned: bool
    early_share: float
    allowance: float
    longest: float
    poll_seconds: float


def learn(
    history: Sequence[Finished],
    open_ages: Sequence[float] = (),
    *,
    prior: Prior = PRIORS["imagine"],
    poll_seconds: float = 5.0,
) -> Model:
    """The model for the next looks, from the finished jobs of a kind and the ages at which others were seen open.

    Takes about twenty milliseconds: rebuild it when a task has finished, not at every look.
    """
    alive = still_open(history, open_ages, prior)
    return plan_for(alive, len(history), poll_seconds, saved(alive, history, poll_seconds))


def saved(alive: Sequence[float], history: Sequence[Finished], poll_seconds: float) -> float:
    """The account: looks that a loop of `poll_seconds` is expected to have made on these jobs, less those made."""
    return sum(_fixed_looks(alive, job, poll_seconds) - job.looks for job in history if job.looks)


def _fixed_looks(alive: Sequence[float], job: Finished, poll_seconds: float) -> float:
    """Looks of the fixed loop until it sees the end: one for each mark that finds the job open, and the last."""
    first = job.seconds - job.blind
    before, after = interpolate(AGES, alive, first) if first > 0 else 1.0, interpolate(AGES, alive, job.seconds)
    last = math.ceil(job.seconds / poll_seconds)
    sure = min(math.floor(first / poll_seconds), last - 1)
    marks = [poll_seconds * k for k in range(sure + 1, last)]
    ended = before - after
    if ended < HARDLY:  # it says nothing of when, so evenly
        return 1 + sure + sum((job.seconds - mark) / job.blind for mark in marks)
    return 1 + sure + sum((interpolate(AGES, alive, mark) - after) / ended for mark in marks)


def plan_for(
    alive: Sequence[float], jobs: int, poll_seconds: float, in_hand: float, *, early_share: float = EARLY_SHARE
) -> Model:
    """The looks for a distribution (the chance to be open at each of `AGES`) that was learned from so many jobs."""
    fixed = 1.0 + sum(interpolate(AGES, alive, poll_seconds * k) for k in range(1, int(AGES[-1] / poll_seconds)))
    # Below about four looks a job there is nothing to spend on a look that will hardly ever find anything.
    share = early_share if fixed > _MANY and jobs >= STRANGE else 0.0
    steer = (in_hand - RESERVE * (fixed - 1)) / PAYBACK
    budget = 1 + (fixed - 1) * min(1.25, max(0.5, 1 + (steer - share) / (fixed - 1 + 1e-9)))
    count = min(_AT_MOST, _POINTS + int(_FOR_EACH * fixed))
    price = _price(budget, _grid(alive, count // 3), 0.003, 100.0, 9)
    points, open_at = grid = _grid(alive, count)
    price = _price(budget, grid, price / _NEARLY, price * _NEARLY, 4)
    plan = tuple(points[k] for k in _schedule(points, open_at, price))
    learned = fixed >= _FEW  # below, nearly all are done at the fixed loop's first look: nothing to save
    credit, longest = (CREDIT / 2, poll_seconds) if jobs < STRANGE else (CREDIT, math.inf)
    allowance = max(0.0, credit + in_hand)
    return Model(tuple(points), tuple(open_at), plan, learned, share, allowance, longest, poll_seconds)


def next_look(model: Model, task: Watched, jitter: float, *, min_gap: float = MIN_GAP) -> float:
    """The age at which to look next; in the past, it means now.

    `jitter` in [0, 1) keeps tasks apart; draw it once per look (from the task's id and `looks`), so that asking again
    with a newer model moves the look only as far as the model moved. `min_gap` may raise `MIN_GAP`: see `fair_gap`.
    """
    if not model.learned:
        planned = model.poll_seconds * math.floor(task.last / model.poll_seconds + 1.1)  # clocks may be a little early
    elif not task.looks and jitter < model.early_share:
        planned = EARLY_AGE * (0.9 + 0.2 * jitter)
    else:
        planned = interpolate(model.ages, model.plan, task.last) if task.last < model.ages[-1] else task.last * 1.1
        planned = task.last + (_reported(task, planned) - task.last) * (0.96 + 0.08 * jitter)
        if not task.looks or interpolate(model.ages, model.alive, task.last) < _TAIL:
            planned = min(planned, task.last + model.longest)
    ahead = min(model.poll_seconds * (task.looks + 1 - model.allowance), task.last + model.poll_seconds)
    return max(planned, ahead, task.last + max(min(task.retry_after or 0.0, WAIT_AT_MOST), min_gap, MIN_GAP))


def _reported(task: Watched, planned: float) -> float:
    """The next look, given what the proxy itself says; `planned` where it says nothing of use."""
    finish = 0.0
    if task.eta:
        finish = task.last + task.eta
    elif task.sights:
        (start, low), (seen, high) = task.sights[0], task.sights[-1]
        if len(task.sights) == 1:  # the job may have waited in a queue first, so this guess is late, if anything
            return min(planned, (seen + seen * 100 / high) / 2)
        if high == task.sights[-2][1] >= _LAST_STEP:  # it reports in steps, and this is the last
            return min(planned, task.last + max(1.2, 0.018 * task.last))
        if high > low:
            finish = seen + (100 - high) * (seen - start) / (high - low)
    left = finish - task.last
    if left <= 0:  # unknown, or overdue
        return min(planned, task.last + max(1.0, -left)) if finish else planned
    # Half way while far, for a better estimate costs less than a wrong one; just behind the finish when near. Some
    # proxies report nonsense, so a report never puts a look off for longer than `_TRUSTED`, or than the plan would.
    return min(task.last + (left / 2 if left > _NEAR else left + 0.2), max(planned, task.last + _TRUSTED))


def expected_remaining(model: Model, age: float) -> float | None:
    """Seconds until half of the jobs that are still open at `age` are done; None beyond all that is known."""
    open_now = interpolate(model.ages, model.alive, age)
    if open_now <= HARDLY:
        return None
    k = next(k for k, chance in enumerate(model.alive) if chance <= open_now / 2)
    high, low = model.alive[k - 1], model.alive[k]
    done = model.ages[k - 1] + (model.ages[k] - model.ages[k - 1]) * (high - open_now / 2) / (high - low)
    return max(0.0, done - age)


def is_late(model: Model, age: float) -> bool:
    """Whether hardly any job (1 in 200, and half as long again) has taken this long: stalled, more likely than slow."""
    return interpolate(model.ages, model.alive, age / 1.5) < HARDLY


def fair_gap(open_tasks: int, looks_per_second: float) -> float:
    """The least gap of each task so that all together stay below `looks_per_second`."""
    return max(MIN_GAP, open_tasks / looks_per_second)


def _grid(alive: Sequence[float], count: int) -> tuple[list[float], list[float]]:
    """Ages, and the chance to be open there, laid by the square-root rule with a little evenness in log-age."""
    marks = [0.0]
    for (a, b), (x, y) in zip(pairwise(alive), pairwise(AGES), strict=True):
        marks.append(marks[-1] + math.sqrt(max(0.0, a - b) * (y - x)))
    marks = [0.85 * mark / marks[-1] + 0.15 * i / (CELLS - 1) for i, mark in enumerate(marks)]
    points = [0.0, *(interpolate(marks, AGES, k / (count - 1)) for k in range(1, count))]
    return points, [1.0, *(interpolate(AGES, alive, point) for point in points[1:-1]), 0.0]


def _price(budget: float, grid: tuple[Sequence[float], Sequence[float]], low: float, high: float, rounds: int) -> float:
    """The cheapest price of a look, of those between, whose schedule stays within `budget`."""
    for _ in range(rounds):
        price = math.sqrt(low * high)
        low, high = (price, high) if _looks(_schedule(*grid, price), grid[1]) > budget else (low, price)
    return high


def _looks(follow: Sequence[int], alive: Sequence[float]) -> float:
    """How many looks a schedule is expected to make."""
    at, looks = 0, 0.0
    while follow[at] > at:
        looks, at = looks + alive[at], follow[at]
    return looks


def _schedule(points: Sequence[float], alive: Sequence[float], price: float) -> list[int]:
    """The equation above, solved backwards: for each point the point of the look after it.

    The line of a next look at `s` is `s * F(s) - M(s) + V(s) - s * F(t)`, M being the first moment of F up to `s`.
    Lines come in with falling `s` and are asked with falling F(t), so the best one only moves forward.
    """
    count = len(points)
    moment = [0.0]
    for (x, y), (a, b) in zip(pairwise(points), pairwise(alive), strict=True):
        moment.append(moment[-1] + (a - b) * (x + y) / 2)
    value, follow = [0.0] * count, [count - 1] * count
    lines: list[tuple[float, float, int]] = []
    best, add = 0, count - 1
    for i in range(count - 2, -1, -1):
        while points[add] - points[i] >= MIN_GAP:
            line = (points[add], points[add] * (1 - alive[add]) - moment[add] + value[add], add)
            while len(lines) > best + 1:
                (s1, c1, _), (s2, c2, _) = lines[-2:]
                if (c1 - line[1]) * (s1 - s2) < (c1 - c2) * (s1 - line[0]):
                    break
                lines.pop()  # never the lowest any more
            lines.append(line)
            add -= 1
        done, here = 1 - alive[i], price * alive[i] + moment[i]
        value[i] = here
        if lines:
            while (
                best + 1 < len(lines)
                and lines[best + 1][1] - lines[best + 1][0] * done <= lines[best][1] - lines[best][0] * done
            ):
                best += 1
            value[i], follow[i] = here + lines[best][1] - lines[best][0] * done, lines[best][2]
    return follow
