"""The least delay that is possible at the fixed loop's looks, and the least for what can be known.

`least` is a bound: a dynamic programme over look times for one who is told the law of every job, and when it changes.
`told` is no bound but a player: it knows every law of a trace and how often they change, but not the moment. It sees
what a watch sees and infers the law in force by Bayes' rule, by when each job was seen open and ended; from the chances
it makes the same schedule as the cadence does, with no look spent on exploring and none held back.

Where the law never changes, told and least know the same, and differ by what no plan can avoid on a finite trace: it
does not know how many looks these jobs will cost the fixed loop, so it keeps some in reserve, and spreads its looks by
jitter. Where the law changes, the rest of the gap is the price of not knowing the moment: the first jobs after a change
are over, or late, before anything can have shown it. What the cadence adds above `told` is what it has yet to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from replay import POLL, Watch
from traces import Law, Trace

from mj_mcp import cadence, jobtimes
from mj_mcp.cadence import Model


def told(trace: Trace) -> Callable[[Watch], Model]:
    """A learner that knows the laws of a trace, and how often they change, but not when."""
    curves = [[1 - law.cdf(age) for age in jobtimes.AGES] for law in trace.laws]

    def learner(watch: Watch) -> Model:
        chances = in_force(trace, watch)
        alive = [sum(p * a for p, a in zip(chances, column, strict=True)) for column in zip(*curves, strict=True)]
        in_hand = cadence.saved(alive, watch.history, POLL)
        model = cadence.plan_for(alive, len(watch.history), POLL, in_hand, early_share=0.0)
        return replace(model, allowance=math.inf, longest=math.inf)

    return learner


def in_force(trace: Trace, watch: Watch) -> list[float]:
    """The chance of each law to be that of the next job: a forward pass over all jobs, in order of submits."""
    chances = [1.0] + [0.0] * (len(trace.laws) - 1)
    if len(trace.laws) == 1:
        return chances
    ended = dict(zip(watch.order, watch.history, strict=True))
    running = {job.number: job.task.last for job in watch.running}
    for number in range(len(ended) + len(running)):
        if number in ended:
            job = ended[number]
            seen = [law.cdf(job.seconds) - law.cdf(job.seconds - job.blind) for law in trace.laws]
        else:
            seen = [1 - law.cdf(running[number]) for law in trace.laws]
        chances = [p * (s + 1e-9) for p, s in zip(chances, seen, strict=True)]
        moving = [p / trace.change_at for p in chances[:-1]] + [0.0]
        chances = [p - gone + come for p, gone, come in zip(chances, moving, [0.0, *moving], strict=False)]
        total = sum(chances)
        chances = [p / total for p in chances]
    return chances


def least(laws: Sequence[tuple[float, Law]]) -> tuple[float, float]:
    """Looks of the fixed loop, and the least mean delay at as many, for one who knows each law (and its share)."""
    grids = [(share, _cells(law)) for share, law in laws]
    looks = sum(share * sum(1 - law.cdf(POLL * k) for k in range(2000)) for share, law in laws)
    low, high = 1e-3, 100.0
    points = []
    for _ in range(22):
        price = math.sqrt(low * high)
        parts = [(share, _programme(*grid, price)) for share, grid in grids]
        made, delay = (sum(share * part[k] for share, part in parts) for k in (0, 1))
        points.append((made, delay))
        low, high = (price, high) if made > looks else (low, price)
    (n1, d1), (n2, d2) = min(p for p in points if p[0] >= looks), max(p for p in points if p[0] <= looks)
    return looks, d1 if n1 == n2 else d1 + (d2 - d1) * (looks - n1) / (n2 - n1)


def _cells(law: Law) -> tuple[list[float], list[float]]:
    """A grid fine where jobs end, and the share done."""
    ages, step = [0.0], 0.02
    while law.cdf(ages[-1]) < 1 - 1e-5:
        rate = (law.cdf(ages[-1] + 0.05) - law.cdf(ages[-1])) / 0.05 / max(1e-5, 1 - law.cdf(ages[-1]))
        ages.append(ages[-1] + min(1.0, max(step, 0.03 / math.sqrt(rate + 1e-3))))
    return ages, [law.cdf(age) for age in ages[:-1]] + [1.0]


def _programme(ages: Sequence[float], done: Sequence[float], price: float) -> tuple[float, float]:
    """Expected looks and delay of the best look times at this price of a look: plain backward recursion."""
    count, moment = len(ages), [0.0]
    for i in range(1, count):
        moment.append(moment[-1] + (done[i] - done[i - 1]) * (ages[i] + ages[i - 1]) / 2)
    value, follow = [0.0] * count, [count - 1] * count
    for i in range(count - 2, -1, -1):
        best = math.inf
        for j in range(follow[i + 1], i, -1):  # the best next look never comes earlier for a later one
            cost = ages[j] * (done[j] - done[i]) - moment[j] + moment[i] + value[j]
            if cost < best:
                best, follow[i] = cost, j
        value[i] = best + price * (1 - done[i])
    looks = delay = 0.0
    at = 0
    while at < count - 1:
        ahead = follow[at]
        looks += 1 - done[at]
        delay += ages[ahead] * (done[ahead] - done[at]) - moment[ahead] + moment[at]
        at = ahead
    return looks, delay
