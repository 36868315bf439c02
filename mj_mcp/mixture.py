"""A mixture of normals fitted to numbers of which only an interval is known, as a pure function.

Owns the fit: expectation and maximisation in turn (EM: Dempster, Laird & Rubin 1977; for intervals, McLachlan & Jones
1988), with one, two and three parts, which then weigh by Akaike's criterion. Knows nothing of what the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Seen = tuple[float, float, float]
"""(low, high, weight): a number lies between these, and counts as so many. Where there is no upper end: `NO_END`."""

Part = tuple[float, float, float]
"""(share, centre, spread) of a normal."""

NO_END = 60.0  # far above any number, yet a number

# Where parts begin, as shares of the numbers in their order: halves, few high ones, few low ones; thirds, both, ...
_CUTS: tuple[tuple[tuple[float, ...], ...], ...] = (
    ((),),
    ((0.5,), (0.85,), (0.15,)),
    ((0.33, 0.67), (0.1, 0.8), (0.6, 0.9)),
)
_ENOUGH = 8  # numbers for more than one part
_TRIED, _ROUNDS = 2, 12  # rounds from each beginning, and then from the best of them
_SETTLED = 0.03  # nats that a round must gain for another one
_HELD = 3.0  # Believed of a part beforehand, as of so many numbers: its spread, which is
_SPREAD = 0.3  # where there are several,
_PULL = 0.03  # that it lies where all do,
_SHARE = 0.7  # and that it is there at all.
_NARROW = 0.5  # spreads: within an interval no wider, chance is even
_ROOT_2, _HEIGHT = math.sqrt(2), 1 / math.sqrt(2 * math.pi)


def fit(seen: Sequence[Seen], centre: float, spread: float) -> tuple[list[Part], float]:
    """The parts of the mixture that explains these numbers, and what their freedom costs in nats (Akaike).

    `centre` and `spread` are what is believed of all numbers together.
    """
    found: list[tuple[float, list[Part]]] = []
    for cuts in _CUTS if sum(high < NO_END for _, high, _ in seen) >= _ENOUGH else _CUTS[:1]:
        held = _Belief(centre, _SPREAD if cuts[0] else spread)
        begun = [_improved(seen, _begin(seen, cut, held), held, _TRIED) for cut in cuts]
        likelihood, parts = _improved(seen, max(begun)[1], held, _ROUNDS)
        found.append((likelihood - _freedom(parts), parts))
        if found[-1][0] < found[0][0]:
            break  # more parts than these will explain no more
    weights = [math.exp(score - max(found)[0]) for score, _ in found]
    mixed = [(weight / sum(weights), parts) for weight, (_, parts) in zip(weights, found, strict=True)]
    return (
        [(weight * share, place, wide) for weight, parts in mixed for share, place, wide in parts],
        sum(weight * _freedom(parts) for weight, parts in mixed),
    )


def middle(low: float, high: float) -> float:
    """Where in an interval a number is put before anything is known; one without a lower end is not far below."""
    return (max(low, high - 1.5) + high) / 2


def _freedom(parts: Sequence[Part]) -> int:
    return 3 * len(parts) - 1


@dataclass(frozen=True, slots=True)
class _Belief:
    centre: float
    spread: float

    def part(self, own: Sequence[float], everybody: float, parts: int) -> Part:
        """The likeliest, given how many numbers are its own, their sum and their sum of squares."""
        count, first, second = own
        centre = (first + _PULL * self.centre) / (count + _PULL)
        square = second - centre * (2 * first - centre * count)
        spread = math.sqrt((max(0.0, square) + _HELD * self.spread**2) / (count + _HELD))
        return (count + _SHARE) / (everybody + parts * _SHARE), centre, spread


def _begin(seen: Sequence[Seen], cuts: Sequence[float], held: _Belief) -> list[Part]:
    middles = sorted((middle(low, high), weight) for low, high, weight in seen if high < NO_END)
    total, passed = sum(weight for _, weight in middles), 0.0
    sums = [[0.0, 0.0, 0.0] for _ in range(len(cuts) + 1)]
    for number, weight in middles:
        own = sums[sum(passed + weight / 2 > cut * total for cut in cuts)]
        passed += weight
        for power in range(3):
            own[power] += weight * number**power
    return [held.part(own, total, len(sums)) for own in sums]


def _improved(seen: Sequence[Seen], parts: list[Part], held: _Belief, rounds: int) -> tuple[float, list[Part]]:
    """After so many rounds at most, and the log-likelihood that the last one found."""
    before, score = -math.inf, -math.inf
    for _ in range(rounds):
        before, score = score, 0.0
        sums = [[0.0, 0.0, 0.0] for _ in parts]
        for low, high, weight in seen:
            found = [_within(low, high, *part) for part in parts]
            chance = 1e-9
            for inside, _, _ in found:
                chance += inside
            score += weight * math.log(chance)
            share = weight / chance
            for (inside, first, second), own in zip(found, sums, strict=True):
                count = share * inside
                own[0] += count
                own[1] += count * first
                own[2] += count * second
        everybody = sum(own[0] for own in sums)
        parts = [held.part(own, everybody, len(parts)) for own in sums]
        if score - before < _SETTLED:
            break
    return score, parts


def _within(low: float, high: float, share: float, centre: float, spread: float) -> tuple[float, float, float]:
    """The chance of a number of this part to lie between, and the means of it and of its square where it does."""
    a, b = (low - centre) / spread, (high - centre) / spread
    if b - a <= _NARROW:
        number = (low + high) / 2
        mean = (a + b) / 2
        chance = share * (b - a) * _HEIGHT * math.exp(-0.5 * mean * mean)
        return chance, number, number * number + (high - low) ** 2 / 12
    chance = 0.5 * (math.erf(b / _ROOT_2) - math.erf(a / _ROOT_2))
    if chance > 1e-9:
        at_a, at_b = _HEIGHT * math.exp(-0.5 * a * a), _HEIGHT * math.exp(-0.5 * b * b)
        mean, square = (at_a - at_b) / chance, 1 + (a * at_a - b * at_b) / chance
    else:  # so far away that it lies at the nearer end
        chance, mean = 1e-9, a if a > 0 else b
        square = mean * mean
    return share * chance, centre + spread * mean, centre * centre + spread * (2 * centre * mean + spread * square)
