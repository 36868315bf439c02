"""Mixtures of normals: what must hold for any intervals."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mj_mcp import mixture
from mj_mcp.mixture import NO_END, Seen, fit

numbers = st.floats(-6, 9)
intervals = st.tuples(numbers, st.floats(0.001, 8), st.floats(0.01, 1)).map(lambda t: (t[0], t[0] + t[1], t[2]))
opens = st.tuples(numbers, st.just(NO_END), st.just(1.0))


def seen(values: list[float], blind: float = 0.1, rng: random.Random | None = None) -> list[Seen]:
    """Each of the values, somewhere in an interval that wide."""
    places = [rng.random() if rng else 0.5 for _ in values]
    return [(x - place * blind, x + (1 - place) * blind, 1.0) for x, place in zip(values, places, strict=True)]


def chance_below(parts: list[mixture.Part], x: float) -> float:
    return sum(share * 0.5 * math.erfc((centre - x) / spread / math.sqrt(2)) for share, centre, spread in parts)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(intervals, max_size=30), st.lists(opens, max_size=5))
def test_any_intervals_give_a_mixture(ended: list[Seen], still_open: list[Seen]) -> None:
    parts, cost = fit([*ended, *still_open], 3.5, 0.4)
    assert sum(share for share, _, _ in parts) == pytest.approx(1)
    assert all(share > 0 and spread > 0.05 and -20 < centre < NO_END for share, centre, spread in parts)
    assert 2 <= cost <= 8


def test_without_numbers_it_is_what_was_believed() -> None:
    ((share, centre, spread),), cost = fit([], 3.5, 0.4)
    assert (share, centre, spread, cost) == pytest.approx((1, 3.5, 0.4, 2))


@pytest.mark.parametrize("blind", [0.02, 0.5, 1.5])
def test_the_spread_is_that_of_the_numbers_not_of_the_intervals(blind: float) -> None:
    rng = random.Random(7)
    values = [rng.gauss(3.4, 0.35) for _ in range(80)]
    parts, _ = fit(seen(values, blind, rng), 3.5, 0.4)
    for x in (2.9, 3.4, 3.9):
        assert chance_below(parts, x) == pytest.approx(0.5 * math.erfc((3.4 - x) / 0.35 / math.sqrt(2)), abs=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_two_groups_have_a_gap_between_them(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.gauss(rng.choice([3.4, 4.8]), 0.15) for _ in range(60)]
    parts, cost = fit(seen(values, 0.2, rng), 3.5, 0.4)
    assert chance_below(parts, 4.4) - chance_below(parts, 3.9) < 0.06
    assert cost > 4.5, "two parts have five numbers"


def test_one_group_is_not_taken_for_two() -> None:
    rng = random.Random(3)
    _, cost = fit(seen([rng.gauss(3.4, 0.35) for _ in range(80)], 0.2, rng), 3.5, 0.4)
    assert cost < 3


def test_a_few_that_ended_at_an_unknown_time_are_put_where_the_others_say() -> None:
    rng = random.Random(5)
    usual = [rng.gauss(3.8, 0.25) for _ in range(40)]
    early = [(-6.0, 0.7, 1.0)] * 4  # ended by two seconds: seen at the early look
    blind = [(-6.0, 2.9, 1.0)] * 4  # ended by eighteen: no look before that
    parts, _ = fit([*seen(usual, 0.1, rng), *early, *blind], 3.5, 0.4)
    assert chance_below(parts, 1.0) == pytest.approx(8 / 48, abs=0.05)
    assert chance_below(parts, 2.9) - chance_below(parts, 1.0) < 0.04


def test_those_that_are_still_open_lengthen_the_tail() -> None:
    rng = random.Random(6)
    ended = seen([rng.gauss(3.4, 0.3) for _ in range(30)], 0.1, rng)
    without, _ = fit(ended, 3.5, 0.4)
    waiting, _ = fit([*ended, *[(4.2, NO_END, 1.0)] * 5], 3.5, 0.4)
    assert 1 - chance_below(waiting, 4.2) > 1 - chance_below(without, 4.2) + 0.05


def test_a_narrow_interval_is_as_wide_as_it_is() -> None:
    chance, mean, square = mixture._within(3.35, 3.45, 1.0, 3.4, 0.4)
    assert (mean, square - mean**2) == pytest.approx((3.4, 0.1**2 / 12))
    assert chance == pytest.approx(math.erf(0.125 / math.sqrt(2)), rel=0.02)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(-4, 4), st.floats(0.001, 6), st.floats(-1, 1), st.floats(0.1, 2))
def test_the_moments_within_an_interval_are_those_that_plain_sums_give(
    low: float, width: float, centre: float, spread: float
) -> None:
    steps = 2000
    xs = [low + width * (k + 0.5) / steps for k in range(steps)]
    heights = [math.exp(-0.5 * ((x - centre) / spread) ** 2) / spread / math.sqrt(2 * math.pi) for x in xs]
    total = sum(heights) * width / steps
    chance, mean, square = mixture._within(low, low + width, 1.0, centre, spread)
    # In an interval of half a spread chance counts as even, which errs by z^2 / 96 of the chance, z spreads from the
    # centre, and by z / 48 spreads of the mean.
    assert chance == pytest.approx(total, rel=0.06, abs=5e-4)
    if total > 1e-6:
        first, second = (sum(h * x**power for h, x in zip(heights, xs, strict=True)) / sum(heights) for power in (1, 2))
        assert mean == pytest.approx(first, abs=0.1 * spread)
        assert square - mean**2 == pytest.approx(second - first**2, abs=0.06 * spread**2)
