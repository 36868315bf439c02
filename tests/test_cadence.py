"""The cadence: what must hold for any history, any age and any trace."""

import math
import random
from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mj_mcp import cadence
from mj_mcp.cadence import (
    MIN_GAP,
    Model,
    Watched,
    expected_remaining,
    fair_gap,
    is_late,
    learn,
    next_look,
    plan_for,
    saved,
)
from mj_mcp.jobtimes import AGES, EARLY_AGE, PRIORS, Finished, interpolate, still_open

seconds = st.floats(0.2, 4000)
histories = st.lists(seconds, max_size=30).map(lambda times: [Finished(s, k) for k, s in enumerate(times)])
jitters = st.floats(0, 1, exclude_max=True)
thorough = settings(max_examples=40, deadline=None, derandomize=True)


def lognormal(median: float, sigma: float, count: int, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [median * math.exp(sigma * rng.gauss(0, 1)) for _ in range(count)]


def jobs(times: list[float]) -> list[Finished]:
    return [Finished(s, k) for k, s in enumerate(times)]


def learned(history: list[Finished], in_hand: float, open_ages: Sequence[float] = ()) -> Model:
    """What `learn` makes, with so many looks in hand."""
    return plan_for(still_open(history, open_ages, PRIORS["imagine"]), len(history), 5.0, in_hand)


STEADY = learned(jobs(lognormal(30, 0.35, 80)), 5)


def remaining(model: Model, age: float = 0.0) -> float:
    """What remains, where something is known."""
    left = expected_remaining(model, age)
    assert left is not None
    return left


def looks_of(model: Model, until: float, jitter: float = 0.5) -> list[float]:
    """The ages of the looks at a job that stays open until then."""
    ages: list[float] = []
    while not ages or ages[-1] < until:
        ages.append(next_look(model, Watched(ages[-1] if ages else 0.0, len(ages)), jitter))
    return ages


def replay(times: list[float], at_once: int = 1) -> tuple[int, int]:
    """Looks of the cadence and of the fixed loop on the same jobs, one after the other."""
    history: list[Finished] = []
    total = 0
    for k, time_ in enumerate(times):
        model, task = learn(history), Watched()
        while True:
            age = next_look(model, task, (k * 0.37 + task.looks * 0.61) % 1)
            gap, task = age - task.last, Watched(age, task.looks + 1)
            if age >= time_:
                break
        history.append(Finished(task.last, k, gap, task.looks))
        total += task.looks
    return total, sum(math.ceil(t / 5) for t in times)


@thorough
@given(histories, st.lists(seconds, max_size=4), st.floats(-50, 50))
def test_any_history_gives_a_sound_model(history: list[Finished], open_ages: list[float], in_hand: float) -> None:
    model = learned(history, in_hand, open_ages)
    assert list(model.ages) == sorted(model.ages)
    assert list(model.alive) == sorted(model.alive, reverse=True)
    assert model.alive[0] == 1
    assert model.alive[-1] == 0
    assert all(later > age for age, later in zip(model.ages[:-1], model.plan[:-1], strict=True))


@thorough
@given(
    histories,
    st.builds(
        Watched,
        st.floats(0, 9000),
        st.integers(0, 500),
        st.lists(st.tuples(st.floats(0.5, 300), st.floats(1, 100)), max_size=3).map(lambda pairs: tuple(sorted(pairs))),
        st.one_of(st.none(), st.floats(-5, 1e6)),
        st.one_of(st.none(), st.floats(-5, 1e9)),
    ),
    jitters,
)
def test_no_look_comes_sooner_than_the_least_gap_nor_never(
    history: list[Finished], task: Watched, jitter: float
) -> None:
    assert task.last + MIN_GAP <= next_look(learn(history), task, jitter) < math.inf


@pytest.mark.parametrize("unit", [0.5, 2.0, 4.0])
def test_looks_follow_the_speed_of_the_proxy(unit: float) -> None:
    model = learn(jobs([unit * s for s in lognormal(30, 0.3, 60)]))
    assert remaining(model) == pytest.approx(30 * unit, rel=0.15)


def test_nothing_is_asked_while_a_job_cannot_be_done_then_often_then_seldom() -> None:
    ages = looks_of(STEADY, 200, jitter=0.5)
    gaps = [b - a for a, b in pairwise(ages)]
    usual = [gap for age, gap in zip(ages, gaps, strict=False) if 25 < age < 45]
    late = [gap for age, gap in zip(ages, gaps, strict=False) if age > 110]
    assert ages[0] > 12
    assert max(usual) < 3.2
    assert min(late) > 1.5 * max(usual)


def test_expected_looks_are_what_the_fixed_loop_makes() -> None:
    times = lognormal(30, 0.35, 3000, seed=5)
    model = learned(jobs(lognormal(30, 0.35, 80)), cadence.RESERVE * 6)
    ages = looks_of(model, max(times))
    mine = sum(next(k for k, age in enumerate(ages, 1) if age >= t) for t in times)
    assert mine / sum(math.ceil(t / 5) for t in times) == pytest.approx(0.97, abs=0.06)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.5, 400), min_size=1, max_size=40))
def test_on_any_trace_the_looks_stay_within_the_credit_of_the_fixed_loop(times: list[float]) -> None:
    mine, fixed = replay(times)
    assert mine <= fixed + cadence.CREDIT + 1


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_over_a_day_of_jobs_no_more_looks_are_made_than_by_the_fixed_loop(sigma: float) -> None:
    mine, fixed = replay(lognormal(40, sigma, 80, seed=3))
    assert 0.9 * fixed < mine <= fixed


def test_jobs_all_done_at_the_first_fixed_look_are_looked_at_like_the_fixed_loop_does() -> None:
    model = learn(jobs(lognormal(3, 0.2, 40)))
    assert looks_of(model, 14) == pytest.approx([5, 10, 15])
    early = next_look(model, Watched(4.99, 1), 0.5)
    assert early == pytest.approx(10), "a clock that is a little behind makes no look more"


def test_a_jump_of_speed_is_followed_within_five_tasks() -> None:
    times = [*lognormal(30, 0.3, 60), *lognormal(48, 0.2, 5, seed=2)]
    assert remaining(learn(jobs(times))) > 40


def test_one_odd_job_moves_nothing() -> None:
    before = remaining(STEADY, 0)
    after = remaining(learn(jobs([*lognormal(30, 0.35, 80), 300.0])), 0)
    assert after == pytest.approx(before, rel=0.1)


def test_open_jobs_that_run_late_make_the_others_late() -> None:
    history = jobs(lognormal(30, 0.2, 60))
    calm, late = learn(history, [20.0] * 3), learn(history, [60.0] * 3)
    assert remaining(late) > 1.3 * remaining(calm, 0)


def test_two_speeds_leave_a_pause_between_them() -> None:
    rng = random.Random(4)
    model = learn(jobs([rng.choice([30, 120]) * math.exp(0.1 * rng.gauss(0, 1)) for _ in range(80)]))
    ages = looks_of(model, 160)
    between = sum(50 < age < 90 for age in ages)
    assert between < sum(24 < age < 40 for age in ages) / 2


@pytest.mark.parametrize("seed", range(3))
def test_two_speeds_are_not_taken_for_changes_of_speed(seed: int) -> None:
    rng = random.Random(seed)
    times = [usual * math.exp(0.15 * rng.gauss(0, 1)) for usual in rng.sample([30, 90] * 40, 80)]
    for last in (30.0, 90.0):  # whatever came last says nothing of the next
        model = learn(jobs([*times, last, last, last]))
        assert interpolate(model.ages, model.alive, 55) == pytest.approx(0.5, abs=0.12)


def test_a_quick_failure_is_found_by_the_early_look_where_one_is_made() -> None:
    early = [next_look(STEADY, Watched(), jitter / 100) for jitter in range(100)]
    assert sum(age < 2.5 for age in early) == pytest.approx(100 * cadence.EARLY_SHARE, abs=1)


@pytest.mark.parametrize("once_in", [8, 20])
def test_where_jobs_have_failed_at_once_every_job_gets_an_early_look(once_in: int) -> None:
    times = [1.5 if k % once_in == 0 else s for k, s in enumerate(lognormal(45, 0.3, 80))]
    assert next_look(learn(jobs(times)), Watched(), 0.99) < 8


def test_an_end_at_once_is_feared_less_with_each_job_that_has_none() -> None:
    cell = bisect(AGES, 3 * EARLY_AGE) - 2
    fear = [1 - still_open(jobs(lognormal(40, 0.35, count)), [], PRIORS["imagine"])[cell] for count in (0, 20, 80)]
    assert fear[0] == pytest.approx(1 / 32, rel=0.05)
    assert all(later < earlier / 3 for earlier, later in pairwise(fear)), fear
    assert 0.0005 < fear[-1] < 0.002


def test_without_any_history_the_first_look_is_no_later_than_the_fixed_loops() -> None:
    assert next_look(learn([]), Watched(), 0.99) <= 5


def test_reported_progress_leads_to_the_finish() -> None:
    task = Watched(20, 2, ((10, 20), (20, 40)))  # 2 % a second: done at 50
    assert 20 < next_look(STEADY, task, 0.5) < 45
    near = Watched(48.5, 4, ((10, 20), (48.5, 97)))
    assert 49.5 < next_look(STEADY, near, 0.5) < 51


def test_progress_that_stands_still_falls_back_on_what_was_learned() -> None:
    stuck = Watched(30, 4, ((20, 40), (30, 40)))
    assert next_look(STEADY, stuck, 0.5) == next_look(STEADY, Watched(30, 4), 0.5)


def test_progress_that_stands_on_its_last_step_is_watched_closely() -> None:
    last_step = Watched(30, 4, ((20, 62), (28, 93), (30, 93)))
    assert 31 < next_look(STEADY, last_step, 0.5) < 31.5


def test_an_eta_is_followed_and_zero_says_nothing() -> None:
    assert 79 < next_look(STEADY, Watched(80 - 1.5, 3, eta=1.5), 0.5) < 81
    assert next_look(STEADY, Watched(20, 3, eta=0), 0.5) == next_look(STEADY, Watched(20, 3), 0.5)


def test_an_absurd_eta_never_puts_a_look_off_by_more_than_a_few_seconds() -> None:
    planned = next_look(STEADY, Watched(29, 3), 0.5)
    assert next_look(STEADY, Watched(29, 3, eta=9000), 0.5) <= max(planned, 29 + cadence._TRUSTED) + 0.5


def test_retry_after_is_obeyed_unless_absurd() -> None:
    assert next_look(STEADY, Watched(20, 3, retry_after=40), 0.5) >= 60
    assert next_look(STEADY, Watched(20, 3, retry_after=1e9), 0.5) <= 20 + cadence.WAIT_AT_MOST


@given(jitters, jitters)
def test_jitter_keeps_looks_apart_but_not_far(one: float, other: float) -> None:
    task = Watched(20, 3)
    a, b = next_look(STEADY, task, one), next_look(STEADY, task, other)
    assert abs(a - b) <= 0.1 * (max(a, b) - 20)
    assert (a == b) == (one == other) or abs(one - other) < 1e-6


def test_what_remains_is_told_until_nothing_is_known() -> None:
    told = [remaining(STEADY, age) for age in (0, 20, 30, 40)]
    assert told == sorted(told, reverse=True)
    assert expected_remaining(STEADY, 10_000) is None


def test_late_means_beyond_its_own_distribution() -> None:
    slow = learn(jobs(lognormal(200, 0.2, 60)))
    assert [is_late(STEADY, age) for age in (30, 60, 600)] == [False, False, True]
    assert not is_late(slow, 250)


def test_the_account_knows_the_fixed_loop_within_what_was_seen() -> None:
    def looks_saved(seconds: float, blind: float, alive: list[float]) -> float:
        return saved(alive, [Finished(seconds, 0, blind, looks=1)], 5.0)

    evenly = [1 - min(1.0, age / 100) for age in AGES]
    assert looks_saved(12.0, 0.0, evenly) == 2
    assert looks_saved(10.0, 0.0, evenly) == looks_saved(10.0, 5.0, evenly) == 1
    assert looks_saved(12.0, 4.0, evenly) == pytest.approx(1.5, abs=0.01)
    assert looks_saved(0.5, 0.5, evenly) == 0
    late = still_open(jobs(lognormal(30, 0.2, 80)), [], PRIORS["imagine"])
    assert looks_saved(22.0, 22.0, late) > 3, "a job of half a minute that has ended by the first look ended late in it"
    assert looks_saved(9000.0, 7.0, late) == pytest.approx(1797 + 1 + 5 / 7), (
        "where nothing is known, any time is as likely"
    )
    assert saved(late, [Finished(22.0, 0, 22.0)], 5.0) == 0, "looks that nobody counted are in no account"


def test_looks_that_were_overspent_are_paid_back_and_saved_ones_are_spent() -> None:
    history = jobs(lognormal(30, 0.35, 80))
    poor, even, rich = (sum(age < 40 for age in looks_of(learned(history, h), 60)) for h in (-30, 3, 30))
    assert poor < even < rich


def test_a_caller_cannot_lower_the_least_gap() -> None:
    assert next_look(STEADY, Watched(20, 3, eta=0.01), 0.5, min_gap=0) >= 20 + MIN_GAP


def test_the_ceiling_is_shared_fairly() -> None:
    assert fair_gap(1000, 10) == 100
    assert fair_gap(1, 10) == MIN_GAP
    assert next_look(STEADY, Watched(30, 3), 0.5, min_gap=fair_gap(1000, 10)) == 130


@given(st.lists(st.floats(0, 1), min_size=30, max_size=60), st.floats(0.01, 20))
@thorough
def test_the_schedule_is_the_optimum_that_plain_recursion_finds(cuts: list[float], price: float) -> None:
    alive = [1.0, *sorted(cuts, reverse=True), 0.0]
    points = [0.31 * k for k in range(len(alive))]
    value = {len(points) - 1: 0.0}

    def cost(i: int, j: int) -> float:
        late = sum((alive[m] - alive[m + 1]) * (points[j] - (points[m] + points[m + 1]) / 2) for m in range(i, j))
        return float(late + price * alive[i] + value[j])

    for i in reversed(range(len(points) - 1)):
        near = [j for j in value if points[j] - points[i] >= MIN_GAP]
        value[i] = min((cost(i, j) for j in near), default=price * alive[i])
    follow = cadence._schedule(points, alive, price)
    at, paid = 0, 0.0
    while points[-1] - points[at] >= MIN_GAP:
        paid += cost(at, follow[at]) - value[follow[at]]
        at = follow[at]
    assert paid + value[at] == pytest.approx(value[0], rel=1e-6, abs=1e-9)
