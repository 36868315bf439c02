"""The pace: what the watch learns from finished tasks, and how long it waits for the next look."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import Caller
from lives import rows

from mj_mcp.cadence import Model, learn
from mj_mcp.pace import (
    FAILED_LOOK_SECONDS,
    IDLE_SECONDS,
    LATE_IDLE_SECONDS,
    LOOKS_PER_SECOND,
    MAX_BACKOFF_SECONDS,
    Following,
    Pace,
)
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Kind, Sighting, Status, Task

OPEN = Task(submission_id="sub_1", task_id="1", kind=Kind.IMAGINE, status=Status.QUEUED, submitted_at=0, updated_at=0)


def finished(number: int, seconds: float, *, kind: Kind = Kind.IMAGINE, blind: float = 2.0) -> Task:
    began = 1000.0 * number
    return replace(
        OPEN,
        submission_id=f"sub_{number}",
        kind=kind,
        status=Status.SUCCEEDED,
        submitted_at=began,
        finished_at=began + seconds,
        blind=blind,
        looks=int(seconds // 5) + 1,
    )


def taught(seconds: float, count: int = 40) -> Pace:
    pace = Pace(5.0)
    pace.learn_from(finished(number, seconds + number % 5) for number in range(count))
    return pace


def test_what_jobs_took_is_what_the_next_is_said_to_take() -> None:
    for usual in (15.0, 60.0, 150.0):
        remaining = taught(usual).remaining(OPEN, 0.0, 0.0)
        assert remaining == pytest.approx(usual + 1, rel=0.15)


def test_what_the_proxy_says_goes_before_what_was_learned() -> None:
    assert taught(60).remaining(replace(OPEN, upstream_eta=12.0), 0.0, 0.0) == 12.0


def test_each_kind_is_learned_by_itself() -> None:
    pace = taught(150)
    upscale = replace(OPEN, kind=Kind.UPSCALE)
    before = pace.remaining(upscale, 0.0, 0.0)
    assert before == Pace(5.0).remaining(upscale, 0.0, 0.0)
    pace.learn_from(finished(number, 8, kind=Kind.UPSCALE) for number in range(40))
    after = pace.remaining(upscale, 0.0, 2.0)
    assert before is not None
    assert after is not None
    assert after < before


@pytest.mark.parametrize("change", [{"looks": None}, {"blind": None}, {"blind": 500.0}, {"submitted_at": None}])
def test_a_task_whose_end_was_not_watched_closely_teaches_nothing(change: dict[str, None]) -> None:
    pace = Pace(5.0)
    pace.learn_from(replace(finished(number, 600), **change) for number in range(40))  # type: ignore[arg-type]
    assert pace.remaining(OPEN, 0.0, 0.0) == Pace(5.0).remaining(OPEN, 0.0, 0.0)


def test_an_end_that_the_first_look_found_teaches_however_blind_it_was() -> None:
    pace = taught(60)
    before = pace.remaining(OPEN, 0.0, 0.0)
    pace.learn_from(replace(finished(100 + number, 40, blind=40), looks=1) for number in range(40))
    after = pace.remaining(OPEN, 0.0, 60.0)
    assert before is not None
    assert after is not None
    assert after < 0.8 * before


def test_the_looks_that_quick_ends_saved_are_spent_on_the_others() -> None:
    def gap_after(looks: int) -> float:
        pace = taught(60)
        pace.learn_from(replace(finished(100 + number, 50, blind=50), looks=looks) for number in range(10))
        following = Following(looked_at=0.0)
        following.saw(60.0, Sighting(status=Status.PROCESSING))
        return pace.seconds_to_look(OPEN, following, 60.0, 0.0)

    assert gap_after(looks=1) < gap_after(looks=10)


def test_an_eta_and_reported_progress_move_the_next_look() -> None:
    def gap_after(*sightings: tuple[float, Sighting]) -> float:
        following = Following(looked_at=0.0)
        for age, sighting in sightings:
            following.saw(age, sighting)
        return taught(60).seconds_to_look(OPEN, following, sightings[-1][0], 0.0)

    silent = gap_after((20.0, Sighting(status=Status.PROCESSING)), (30.0, Sighting(status=Status.PROCESSING)))
    assert silent > 5
    assert gap_after((30.0, Sighting(status=Status.PROCESSING, eta_seconds=2.0))) == pytest.approx(2.2, rel=0.1)
    halves = [(age, Sighting(status=Status.PROCESSING, progress=percent)) for age, percent in ((20.0, 49), (30.0, 95))]
    assert gap_after(*halves) < silent / 2


def test_all_open_tasks_together_stay_below_the_ceiling_whatever_their_state() -> None:
    pace, count = taught(30), 1000
    for number in range(count):
        pace.is_open(replace(OPEN, submission_id=f"sub_open_{number}"), 30.0)
    well, failing = Following(looked_at=0.0, attended=True), Following(looked_at=0.0, attended=True)
    well.saw(30.0, Sighting(status=Status.PROCESSING))
    failing.missed(None)
    stalled = replace(OPEN, status=Status.STALLED)
    gaps = [pace.seconds_to_look(task, f, 30.0, 0.0) for task, f in ((OPEN, well), (OPEN, failing), (stalled, well))]
    assert all(count / gap <= LOOKS_PER_SECOND for gap in gaps)


def test_no_look_is_spent_while_a_job_cannot_be_done_yet_and_many_around_its_usual_end() -> None:
    pace = taught(100)
    following = Following(looked_at=0.0)
    ages: list[float] = []
    while not ages or ages[-1] < 130:
        age = following.watched.last + pace.seconds_to_look(OPEN, following, following.watched.last, 0.0)
        following.saw(age, Sighting(status=Status.PROCESSING))
        ages.append(age)
    assert sum(90 < age < 115 for age in ages) > sum(20 < age < 45 for age in ages)


def test_looks_that_fail_come_soon_then_later_and_obey_the_proxy() -> None:
    pace, following = Pace(5.0), Following(looked_at=0.0)
    gaps = []
    for _ in range(12):
        following.missed(None)
        gaps.append(pace.seconds_to_look(OPEN, following, 30.0, 0.0))
    assert gaps[0] == FAILED_LOOK_SECONDS
    assert gaps == sorted(gaps)
    assert gaps[-1] == MAX_BACKOFF_SECONDS
    following.missed(300.0)
    assert pace.seconds_to_look(OPEN, following, 30.0, 0.0) == 300.0
    following.saw(31.0, Sighting(status=Status.PROCESSING))
    assert pace.seconds_to_look(OPEN, following, 31.0, 0.0) < 60


def test_a_job_that_nobody_waits_for_is_looked_at_less_once_it_is_late() -> None:
    pace = taught(30)
    late, in_time = 100.0, 20.0
    followings = {attended: Following(looked_at=0.0, attended=attended) for attended in (True, False)}
    for age, alike in ((in_time, True), (late, False)):
        for following in followings.values():
            following.saw(age, Sighting(status=Status.PROCESSING))
        gaps = {a: pace.seconds_to_look(OPEN, f, age, 0.0) for a, f in followings.items()}
        assert (gaps[True] == gaps[False]) is alike
        assert gaps[True] <= gaps[False]


def test_patience_ends_sooner_for_a_job_far_beyond_its_own_kind() -> None:
    pace = taught(30)
    assert pace.patience(OPEN, 40.0, 0.0) == IDLE_SECONDS
    assert pace.patience(OPEN, 2000.0, 0.0) == LATE_IDLE_SECONDS


def test_open_jobs_teach_that_today_everything_is_slow() -> None:
    alone, among = taught(30), taught(30)
    for number in range(8):
        among.is_open(replace(OPEN, submission_id=f"sub_open_{number}"), 70.0)
    fast, slow = alone.remaining(OPEN, 0.0, 0.0), among.remaining(OPEN, 0.0, 0.0)
    assert fast is not None
    assert slow is not None
    assert slow > 1.2 * fast
    for number in range(8):
        among.is_over(replace(OPEN, submission_id=f"sub_open_{number}"))
    assert among.remaining(OPEN, 0.0, 60.0) == fast, "made anew once it is old"


def test_a_thousand_late_jobs_teach_what_a_hundred_teach() -> None:
    def among(count: int) -> float | None:
        pace = taught(30)
        for number in range(count):
            pace.is_open(replace(OPEN, submission_id=f"sub_open_{number}"), 300.0 + 300.0 * number / count)
        return pace.remaining(OPEN, 10.0, 0.0)

    assert among(1000) == pytest.approx(among(100), rel=0.05)


def test_however_many_tasks_finish_at_once_the_model_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counted(*args: Any, **kwargs: Any) -> Model:
        nonlocal made
        made += 1
        return learn(*args, **kwargs)

    monkeypatch.setattr("mj_mcp.pace.learn", counted)
    pace = taught(30)
    for number in range(200):
        pace.learn_from([finished(number, 30)])
        pace.remaining(OPEN, 10.0, number / 200)
    assert made == 1
    pace.remaining(OPEN, 10.0, 1.1)
    assert made == 2


@pytest.mark.anyio
async def test_a_later_process_has_learned_what_an_earlier_one_saw(
    sim: Simulator, connect: Callable[..., AbstractAsyncContextManager[Caller]]
) -> None:
    cold = Pace(0.5).remaining(OPEN, 0.0, 0.0)
    assert cold is not None
    async with connect(sim) as caller:
        for number in range(6):
            task = await caller.task("generate_image", prompt=f"mug {number}", wait_seconds=0)
            sim.finish(task["task_id"])
            await caller.task("get_task", task_id=task["task_id"], wait_seconds=20, include_image=False)
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        with anyio.fail_after(20):  # the journal is read beside the first calls
            while task["eta_seconds"] >= cold / 2:
                await anyio.sleep(0.05)
                task = await caller.task("get_task", task_id=task["task_id"], include_image=False, wait_seconds=0)


@pytest.mark.anyio
async def test_a_task_that_has_stood_still_for_a_day_is_left_alone_until_somebody_asks(
    sim: Simulator,
    connect: Callable[..., AbstractAsyncContextManager[Caller]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("mj_mcp.pace.IDLE_SECONDS", 0.0)
    monkeypatch.setattr("mj_mcp.watch.GIVE_UP_SECONDS", 0.0)
    monkeypatch.setattr("mj_mcp.watch.IDLE_SWEEP_SECONDS", 0.05)
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        task_id = task["task_id"]
        with anyio.fail_after(20):
            while rows(tmp_path)[0]["given_up_at"] is None:
                (seen,) = (await caller.task("list_tasks"))["tasks"]
        assert seen["status"] == "stalled"
        # Nobody holds it, and neither this server nor the next one looks at it by itself.
        looks = len(sim.looks(task_id))
    async with connect(sim) as caller:
        other = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        await sim.until(lambda: len(sim.looks(other["task_id"])) > 0)
        assert len(sim.looks(task_id)) == looks
        assert rows(tmp_path)[0]["holder"] is None
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=20, include_image=False)
        assert done["status"] == "succeeded"
        assert len(sim.looks(task_id)) > looks


def test_a_stalled_task_is_looked_at_ever_less_often() -> None:
    pace, stalled = Pace(5.0), replace(OPEN, status=Status.STALLED)
    gaps = [pace.seconds_to_look(stalled, Following(0.0), age, age) for age in (10.0, 600.0, 3600.0, 86_400.0)]
    assert gaps == [5.0, 60.0, 300.0, 300.0]
