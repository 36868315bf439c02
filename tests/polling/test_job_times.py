"""What is learned of job times, from which jobs, and how it moves the polls of those that are open."""

from __future__ import annotations

import math
import random

import pytest

from mj_mcp.polling.job_times import ENOUGH, JOBS_REMEMBERED, JobTimes
from mj_mcp.polling.schedule import EndedJob, Polls

P = 5.0


def taught(usual: float, count: int = JOBS_REMEMBERED, sigma: float = 0.3) -> JobTimes:
    times, rng = JobTimes(P, 40.0), random.Random(1)
    for number in range(count):
        seconds = usual * math.exp(sigma * rng.gauss(0, 1))
        seen = 2.5 * math.floor(seconds / 2.5)
        times.learn(100.0 * number, EndedJob(seen, seen + 2.5))
    return times


def next_polls(times: JobTimes, name: str, until: float) -> list[float]:
    """The ages of the polls of a job that stays open."""
    polls, ages = Polls(), list[float]()
    while not ages or ages[-1] < until:
        ages.append(times.next_poll(name, polls))
        polls.begun = polls.begun or times.is_first(name, ages[-1])
        polls.last, polls.made = ages[-1], polls.made + 1
    return ages


def test_with_few_jobs_polls_are_the_fixed_loops() -> None:
    few = next_polls(taught(60, ENOUGH - 1), "new", 40)
    assert few == [5, 10, 15, 20, 25, 30, 35, 40]
    assert next_polls(taught(60, ENOUGH), "new", 40)[0] > 15


def test_what_jobs_took_is_what_the_next_is_said_to_take() -> None:
    for usual in (15.0, 60.0, 150.0):
        times = taught(usual)
        assert times.remaining(0.0) == pytest.approx(usual, rel=0.15)
        later = times.remaining(usual)
        assert later is not None
        assert later < 0.5 * usual
        assert times.remaining(10 * usual) is None


def test_before_anything_is_known_a_job_takes_what_such_jobs_usually_take() -> None:
    assert JobTimes(P, 40.0).remaining(10.0) == 30.0
    assert JobTimes(P, 40.0).remaining(50.0) is None


def test_only_the_last_claims_are_remembered_in_whatever_order_they_end() -> None:
    forwards, backwards = JobTimes(P, 40.0), JobTimes(P, 40.0)
    claims = [(100.0 * number, EndedJob(number, number + 2.0)) for number in range(10, 10 + 2 * JOBS_REMEMBERED)]
    for claimed_at, job in claims:
        forwards.learn(claimed_at, job)
    for claimed_at, job in reversed(claims):
        backwards.learn(claimed_at, job)
    assert forwards.remaining(0.0) == backwards.remaining(0.0)
    assert forwards.first_poll == backwards.first_poll > 30.0


def test_a_job_whose_end_was_not_watched_closely_teaches_nothing() -> None:
    times = taught(60)
    before = times.remaining(0.0)
    for number in range(JOBS_REMEMBERED):
        times.learn(10_000.0 + number, EndedJob(100.0, 600.0))
    assert times.remaining(0.0) == before


def test_the_quick_jobs_of_a_cohort_teach_nothing_before_the_slow_ones_have_ended() -> None:
    times = taught(60)
    before = times.remaining(0.0)
    for number in range(30):
        times.begin(f"job {number}", 10_000.0 + number)
    for number in range(1, 30):
        times.drop(f"job {number}")
        times.learn(10_000.0 + number, EndedJob(40.0, 42.0))
    assert times.remaining(0.0) == before
    times.drop("job 0")
    times.learn(10_000.0, EndedJob(98.0, 100.0))
    after = times.remaining(0.0)
    assert after is not None
    assert before is not None
    assert after < before


def test_a_job_that_is_stuck_holds_the_others_up_for_some_time_only() -> None:
    times = taught(60)
    times.begin("stuck", 10_000.0)
    for number in range(JOBS_REMEMBERED):
        times.learn(10_001.0 + 20 * number, EndedJob(20.0, 22.0))
    assert times.remaining(0.0) == pytest.approx(21.0)


def test_an_end_that_does_not_count_yet_brings_first_polls_forward_at_once() -> None:
    times = taught(90)
    for number in range(12):
        times.begin(f"job {number}", 10_000.0)
    before = times.first_poll
    times.drop("job 5")
    times.learn(10_000.0, EndedJob(12.5, 15.0))
    assert times.first_poll == 15.0 < before
    assert next_polls(times, "job 0", 30)[:2] == [15.0, 20.0]


def test_jobs_that_end_by_p_bring_one_early_poll_for_all_and_leave_the_others_where_they_are() -> None:
    times = taught(60)
    usual = next_polls(times, "new", 70)
    for number in range(12):
        times.begin(f"job {number}", 10_000.0)
    times.drop("job 5")
    times.learn(10_000.0, EndedJob(0.0, P))
    assert times.early_poll
    assert next_polls(times, "new", 70) == [P, *usual]
    for number in range(12):
        times.drop(f"job {number}")
    times.learn(10_000.0, EndedJob(0.0, P))  # counts now, and is remembered for as long as the others
    assert next_polls(times, "new", 70)[0] == P
    for number in range(JOBS_REMEMBERED):
        times.learn(20_000.0 + number, EndedJob(60.0, 62.0))
    assert not times.early_poll


def test_of_many_open_at_once_some_are_polled_from_p_on() -> None:
    times = taught(60)
    for number in range(31):
        times.begin(f"job {number}", 10_000.0)
    first = [next_polls(times, f"job {number}", 20)[0] for number in range(31)]
    assert sum(age == P for age in first) == 6
    scout = f"job {first.index(P)}"
    assert next_polls(times, scout, 20) == [5, 10, 15, 20]
    times.drop(scout)
    assert next_polls(times, scout, 20)[0] > 15


def test_up_to_seven_at_once_none_is_polled_before_its_time() -> None:
    times = taught(60)
    for number in range(7):
        times.begin(f"job {number}", 10_000.0)
    assert all(next_polls(times, f"job {number}", 20)[0] > 15 for number in range(7))


def test_an_early_poll_that_a_caller_has_brought_is_not_made_again() -> None:
    times = taught(60)
    times.learn(10_000.0, EndedJob(0.0, P))
    assert times.next_poll("new", Polls(last=6.0)) == times.first_poll > 15


# --- what the proxy says


def test_reported_progress_leads_to_the_end() -> None:
    polls = Polls(last=20.0, made=2, begun=True)
    for age, percent in ((10.0, 20.0), (20.0, 40.0), (20.5, 40.0)):  # 2 % a second: it ends at 50
        polls.report(age, percent, None)
    assert polls.end(20.0) == pytest.approx(50.0)
    times = taught(30)
    assert times.next_poll("new", polls) == 25.0, "no gap is longer than P"
    polls.last = 48.0
    assert times.next_poll("new", polls) == pytest.approx(50.2)


def test_progress_that_is_overdue_is_polled_soon_then_less_often() -> None:
    polls, times = Polls(made=2, begun=True), taught(30)
    for age, percent in ((10.0, 20.0), (20.0, 40.0)):
        polls.report(age, percent, None)
    gaps = []
    for polls.last in (50.5, 60.0, 80.0, 200.0):
        gaps.append(times.next_poll("new", polls) - polls.last)
    assert gaps == [pytest.approx(gap) for gap in (0.7, 1.2, 3.2, 5.0)]


def test_an_eta_is_followed_within_p_and_zero_says_nothing() -> None:
    times, polls = taught(25, sigma=0.1), Polls(last=20.0, made=1, begun=True)
    silent = times.next_poll("new", polls)
    ages = []
    for eta in (1.5, 9000.0, 0.0):
        polls.report(20.0, None, eta)
        ages.append(times.next_poll("new", polls))
    assert ages == [pytest.approx(21.7), 25.0, silent]
    assert 21.0 < silent < 24.0
