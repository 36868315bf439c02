"""The open jobs: when they are polled where no schedule helps, what a poll changes, and what counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mj_mcp.polling.open_jobs import OpenJob, OpenJobs, PollTimings
from mj_mcp.proxy import Trouble, Unknown
from mj_mcp.tasks import Image, Kind, Observation, Status, Task

P = 5.0
OPEN = Task(
    submission_id="sub_1",
    task_id="1",
    kind=Kind.IMAGINE,
    status=Status.QUEUED,
    submitted_at=0,
    claimed_at=300,
    updated_at=300,
)
GOING_ON = Observation(status=Status.PROCESSING)
DONE = Observation(
    status=Status.SUCCEEDED,
    upstream_status="TASK_STATUS_SUCCEED",
    images=(Image(1, "https://example.com/1.png"),),
)
FAILING = Trouble("upstream_error", "HTTP 502")


def finished(number: int, seconds: float, **fields: float | None) -> Task:
    """A row of an earlier process. It had waited in our own queue for five minutes."""
    asked = 1000.0 * number
    task = replace(
        OPEN,
        submission_id=f"sub_{number}",
        status=Status.SUCCEEDED,
        submitted_at=asked,
        claimed_at=asked + 300.0,
        finished_at=asked + 300.0 + seconds,
        unseen_seconds=2.0,
        polls=4,
    )
    return replace(task, **fields)  # type: ignore[arg-type]


def taught(seconds: float, **fields: float | None) -> OpenJobs:
    jobs = OpenJobs(P, PollTimings())
    jobs.learn_from(finished(number, seconds + number % 5, **fields) for number in range(40))
    return jobs


def poll(jobs: OpenJobs, job: OpenJob, age: float, seen: Observation | Trouble | Unknown, task: Task = OPEN) -> Task:
    """One poll at that age, as the poller makes it; the task as it is then."""
    jobs.count(task, job, age)
    job.asked = False
    change = jobs.apply(task, job, seen, age=age, now=300.0 + age)
    return change(task) if change else task


def test_time_in_our_own_queue_is_no_job_time() -> None:
    jobs = taught(30)
    assert jobs.remaining(OPEN, 0.0) == pytest.approx(31.0, abs=1.5)
    assert jobs.next_poll(OPEN, jobs.begin(OPEN, 0.0, known=True)) < 30


@pytest.mark.parametrize("missing", ["claimed_at", "unseen_seconds", "finished_at"])
def test_rows_that_do_not_tell_the_job_time_teach_nothing(missing: str) -> None:
    assert taught(90, **{missing: None}).remaining(OPEN, 0.0) == 40.0


def test_each_kind_is_learned_by_itself() -> None:
    jobs, upscale = taught(150), replace(OPEN, kind=Kind.UPSCALE)
    assert jobs.remaining(upscale, 0.0) == 25.0
    jobs.learn_from(replace(finished(number, 8), kind=Kind.UPSCALE) for number in range(40))
    assert jobs.remaining(upscale, 0.0) == pytest.approx(7.0)
    assert jobs.remaining(OPEN, 0.0) == pytest.approx(151, abs=2)


# --- polls that failed


def test_polls_that_fail_are_repeated_soon_then_later_and_as_the_proxy_says() -> None:
    jobs = taught(60)
    job = jobs.begin(OPEN, 0.0, known=True)
    poll(jobs, job, 40.0, GOING_ON)  # the fixed loop would have polled eight times: there is room
    age, gaps = 40.0, []
    for _ in range(4):
        poll(jobs, job, age, FAILING)
        gaps.append(jobs.next_poll(OPEN, job) - age)
        age += gaps[-1]
    assert gaps == [1.0, 2.0, 4.0, 8.0]
    for _ in range(12):
        poll(jobs, job, age, FAILING)
        age = jobs.next_poll(OPEN, job)
    assert age - job.polls.last == PollTimings().failed_at_most
    poll(jobs, job, age, replace(FAILING, retry_after=300.0))
    assert jobs.next_poll(OPEN, job) == age + 300.0
    poll(jobs, job, age + 300.0, GOING_ON)
    assert job.failures == 0
    assert jobs.next_poll(OPEN, job) <= age + 300.0 + P


def test_polls_that_fail_are_in_the_budget_too() -> None:
    jobs = OpenJobs(P, PollTimings())
    job = jobs.begin(OPEN, 0.0, known=True)
    poll(jobs, job, 5.0, FAILING)
    assert jobs.next_poll(OPEN, job) == 10.0


def test_a_task_that_the_proxy_does_not_know_is_stalled_after_some_polls_and_forgiven_by_one() -> None:
    jobs, task = taught(30), OPEN
    job = jobs.begin(task, 0.0, known=True)
    for number in range(9):
        task = poll(jobs, job, 20.0 + number, GOING_ON if number == 4 else Unknown(), task)
    assert task.status is Status.PROCESSING
    task = poll(jobs, job, 30.0, Unknown(), task)
    assert (task.status, task.warnings) == (Status.STALLED, ("unknown",))


# --- stalled


def test_a_task_of_which_nothing_changes_is_stalled_and_polled_ever_less_often() -> None:
    jobs = OpenJobs(P, PollTimings())
    job = jobs.begin(OPEN, 0.0, known=True)
    task = poll(jobs, job, 5.0, GOING_ON)
    task = poll(jobs, job, 605.0, GOING_ON, task)
    assert task.status is Status.PROCESSING
    task = poll(jobs, job, 606.0, GOING_ON, task)
    assert task.status is Status.STALLED
    gaps = []
    for age in (610.0, 2000.0, 3600.0, 86_400.0):
        poll(jobs, job, age, GOING_ON, task)
        gaps.append(jobs.next_poll(task, job) - age)
    assert gaps == [61.0, 200.0, 300.0, 300.0]


# --- what callers ask for


def test_a_caller_brings_a_poll_at_most_once_a_second_and_it_does_not_count() -> None:
    jobs = taught(60)
    job = jobs.begin(OPEN, 0.0, known=True)
    usual = jobs.next_poll(OPEN, job)
    for age in (3.0, 4.0, 5.0):
        job.asked = True
        assert jobs.next_poll(OPEN, job) <= age
        poll(jobs, job, age, GOING_ON)
        job.asked = True
        assert jobs.next_poll(OPEN, job) == age + 1.0
    job.asked = False
    assert jobs.next_poll(OPEN, job) == usual
    assert (job.made, job.polls.made) == (3, 0)
    poll(jobs, job, usual, GOING_ON)
    assert job.polls.made == 1


def test_a_poll_that_is_due_anyway_counts_though_a_caller_asks_for_it() -> None:
    jobs = OpenJobs(P, PollTimings())
    job = jobs.begin(OPEN, 0.0, known=True)
    job.asked = True
    poll(jobs, job, 5.0, GOING_ON)
    assert job.polls.made == 1


# --- taken over


def test_a_task_that_is_taken_over_is_polled_at_once_and_then_every_p() -> None:
    jobs = taught(60)
    job = jobs.begin(OPEN, 17.0, known=False)
    assert jobs.next_poll(OPEN, job) == -math.inf
    poll(jobs, job, 17.0, GOING_ON)
    ages = [17.0]
    for _ in range(3):
        ages.append(jobs.next_poll(OPEN, job))
        poll(jobs, job, ages[-1], GOING_ON)
    assert ages == [17.0, 22.0, 27.0, 32.0]


def test_an_end_that_was_missed_while_nobody_polled_teaches_nothing() -> None:
    jobs, other = taught(60), taught(60)
    for number in range(40):
        task = replace(OPEN, submission_id=f"sub_{number}", claimed_at=1e6 + number)
        job = jobs.begin(task, 500.0, known=False)
        ended = poll(jobs, job, 500.0, DONE, task)
        assert (ended.status, ended.unseen_seconds) == (Status.SUCCEEDED, None)
    assert jobs.remaining(OPEN, 0.0) == other.remaining(OPEN, 0.0)


def test_an_adopted_task_is_polled_every_p() -> None:
    jobs = taught(60)
    adopted = replace(OPEN, claimed_at=None, submitted_at=None)
    job = jobs.begin(adopted, 0.0, known=True)
    assert [jobs.next_poll(adopted, job)] == [P]
    poll(jobs, job, P, GOING_ON, adopted)
    assert jobs.next_poll(adopted, job) == 2 * P


# --- the end


def test_the_end_tells_how_often_and_how_closely_it_was_watched() -> None:
    jobs = taught(30)
    job = jobs.begin(OPEN, 0.0, known=True)
    task = poll(jobs, job, 20.0, GOING_ON)
    task = poll(jobs, job, 22.5, GOING_ON, task)
    task = poll(jobs, job, 24.5, DONE, task)
    assert (task.status, task.finished_at, task.polls, task.unseen_seconds) == (Status.SUCCEEDED, 324.5, 3, 2.0)


def test_a_success_without_pictures_is_polled_every_p_until_it_is_believed() -> None:
    jobs = taught(30)
    bare = replace(DONE, images=(), warnings=("no picture",))
    job = jobs.begin(OPEN, 0.0, known=True)
    task, age = poll(jobs, job, 20.0, bare), 20.0
    gaps = []
    while task.is_open:
        assert (task.status, task.warnings, task.finished_at) == (Status.PROCESSING, (), None)
        gaps.append(jobs.next_poll(task, job) - age)
        age += gaps[-1]
        task = poll(jobs, job, age, bare, task)
    assert gaps == [P] * 4
    assert (task.status, task.images, task.warnings) == (Status.SUCCEEDED, (), ("no picture",))
    assert task.unseen_seconds is None, "it ended some time before"


def test_pictures_that_are_listed_late_end_the_wait_for_them() -> None:
    jobs = taught(30)
    job = jobs.begin(OPEN, 0.0, known=True)
    task = poll(jobs, job, 20.0, replace(DONE, images=()))
    task = poll(jobs, job, 25.0, DONE, task)
    assert (task.status, task.images, task.unseen_seconds) == (Status.SUCCEEDED, DONE.images, None)
