"""Polls that go wrong, as a caller meets them, and odd answers to them.

The server runs in this process, behind a real client, against a simulated proxy over real HTTP. Each fault is seen
to have fired, and the proxy's ledger says what was paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from calls import HASTY, foreign, imagine
from conftest import Caller, error_of

from mj_mcp.app import Timings
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.mark.parametrize(
    "fault", [faults.empty(), faults.wrong_json(b"null"), faults.wrong_json(b"{}"), faults.status(204)]
)
async def test_a_few_empty_answers_are_borne(fault: Fault, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", fault, times=3)
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (done["status"], done["warnings"]) == ("succeeded", [])
    assert sim.fired == {fault.name: 3}


@pytest.mark.parametrize("answer", ["empty", "null", "{}", "204", "404"])
async def test_a_task_that_the_proxy_forgot_is_stalled_and_not_failed(
    answer: Any, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        sim.unknown_answer = answer
        sim.inject("fetch", faults.forget())
        await sim.until(lambda: len(sim.polls(task_id)) >= 5)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert (task["status"], task["failure"]) == ("stalled", None)
        assert task["warnings"] == ["the proxy does not know this task; it may have forgotten it"]
        assert [call["tool"] for call in task["next"]] == ["get_task"]
        assert [task["task_id"] for task in (await caller.task("list_tasks", status="stalled"))["tasks"]] == [task_id]
    assert sim.fired == {"forget": 1}
    assert len(sim.submits()) == 1


async def test_a_stalled_task_is_taken_up_again_by_asking(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", faults.empty(), times=5)
        await sim.until(lambda: sim.fired["empty"] == 5)
        assert (await caller.task("get_task", task_id=task_id, wait_seconds=0))["status"] == "stalled"
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (done["status"], len(done["images"])) == ("succeeded", 4)


async def test_a_job_that_never_moves_is_stalled_and_says_so(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, timings=Timings(polling=PollTimings(idle=0.6))) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", faults.stuck())
        result = await caller.call("get_task", task_id=task_id, wait_seconds=2)
        task = result.structured_content or {}
        assert not result.is_error
        assert (task["status"], task.get("failure")) == ("stalled", None)
        assert "nothing has moved" in task["warnings"][0]
        assert f"nothing has moved since {task['updated_at']}" in str(result.content[0])
    assert sim.fired == {"stuck": 1}


BLIND: list[tuple[str, Fault, str]] = [
    ("500", faults.status(500), "upstream_error"),
    ("502, a page", faults.html(502), "upstream_error"),
    ("503", faults.status(503), "upstream_error"),
    ("302", faults.status(302, headers={"Location": "/login"}), "upstream_error"),
    ("a page", faults.html(200), "upstream_error"),
    ("404, a page", faults.html(404), "upstream_error"),
    ("half a body", faults.half_body(), "upstream_error"),
    ("reset", faults.reset_after_accept(), "upstream_error"),
    ("closed", faults.close_after_accept(), "upstream_error"),
    ("a list", faults.wrong_json(b"[]"), "upstream_error"),
    ("no JSON", faults.wrong_json(b'{"task": {'), "upstream_error"),
    ("NaN", faults.wrong_json(b"NaN"), "upstream_error"),
    ("deep", faults.wrong_json(faults.deep()), "upstream_error"),
    ("JSON without a task", faults.wrong_json(b'{"hello": "world"}'), "upstream_error"),
    ("a body without end", faults.wrong_json(b" " * (2 << 20)), "upstream_error"),
    ("401", faults.status(401), "unauthorized"),
    ("402", faults.status(402), "unauthorized"),
    ("403, a page", faults.html(403), "unauthorized"),
    ("429", faults.status(429), "busy"),
]


@pytest.mark.parametrize(("fault", "code"), [row[1:] for row in BLIND], ids=[row[0] for row in BLIND])
async def test_polls_that_keep_failing_are_reported_while_the_task_stays_open(
    fault: Fault, code: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", fault, times=1000)
        await sim.until(lambda: sim.fired[fault.name] >= 4)
        error = await caller.error("get_task", task_id=task_id, wait_seconds=0)
        assert error["code"] == code
        assert "stays open" in error["message"]
        assert "<" not in error["message"]
        (task,) = (await caller.task("list_tasks"))["tasks"]
        assert (task["task_id"], task["status"], task["failure"]) == (task_id, "queued", None)
        sim.clear_faults()
        polls = len(sim.polls(task_id))
        await sim.until(lambda: len(sim.polls(task_id)) >= polls + 2)  # the answer of the first is known by the second
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (done["status"], done["warnings"]) == ("succeeded", [])
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_one_failed_poll_is_borne_but_one_refused_key_is_reported(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", faults.status(502))
        sim.finish(task_id)
        assert (await caller.task("get_task", task_id=task_id, wait_seconds=10))["status"] == "succeeded"
        other = await imagine(caller, "a jug")
        sim.inject("fetch", faults.status(401), times=1000)
        assert (await caller.error("get_task", task_id=other, wait_seconds=0))["code"] == "unauthorized"
        # However long the caller would wait: only a person can help.
        with anyio.fail_after(10):
            assert (await caller.error("get_task", task_id=other, wait_seconds=600))["code"] == "unauthorized"
        assert sim.fired["status_502"] == 1


async def test_a_proxy_that_goes_away_while_a_job_runs_is_unreachable_until_it_is_back(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, timings=HASTY) as caller:
        task_id = await imagine(caller)
        await sim.stop_listening(abort=True)
        for _ in range(30):
            result = await caller.call("get_task", task_id=task_id, wait_seconds=0.5)
            if result.is_error:
                break
        assert error_of(result)["code"] == "upstream_unreachable"
        sim.finish(task_id)
        await sim.start_listening()
        assert (await caller.task("get_task", task_id=task_id, wait_seconds=10))["status"] == "succeeded"


async def test_the_call_that_bought_says_that_it_cannot_see(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        sim.inject("fetch", faults.status(502), times=1000)
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=2)
        assert task["status"] == "queued"
        assert any("polls of the proxy failed: HTTP 502" in warning for warning in task["warnings"])
        assert sim.fired["status_502"] >= 1


@pytest.mark.parametrize("word", ["TASK_STATUS_SUCCEEDED", "SUCCESS", "TASK_STATUS_COMPLETED"])
async def test_a_job_that_ends_under_another_name_ends(word: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.finish(task_id)
        sim.inject("fetch", faults.status_text(word))
        done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (done["status"], len(done["images"])) == ("succeeded", 4)
    assert sim.fired == {"status_text": 1}


async def test_a_canceled_job_is_a_failed_one(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", faults.status_text("TASK_STATUS_CANCELED"))
        task = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (task["status"], task["failure"]) == ("failed", {"code": "canceled", "message": "canceled"})
        assert task["next"] == []
    assert sim.fired == {"status_text": 1}


async def test_a_failed_job_is_an_error_of_its_purchase_and_an_answer_to_a_question(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller, anyio.create_task_group() as group:

        async def fail() -> None:
            await sim.until(lambda: bool(sim.ledger))
            sim.fail(sim.ledger[0].task_id, reason="too dark")

        group.start_soon(fail)
        bought = await caller.call("generate_image", prompt="a mug", wait_seconds=10)
        assert bought.is_error
        result = await caller.call("get_task", task_id=sim.ledger[0].task_id, wait_seconds=0)
        assert not result.is_error
        assert error_of(bought)["code"] == "generation_failed"
        assert "too dark" in error_of(bought)["message"]
        assert result.structured_content is not None
        assert result.structured_content["failure"] == {"code": "generation_failed", "message": "too dark"}
        assert "too dark" in str(result.content[0])


@pytest.mark.parametrize("word", ["TASK_STATUS_DREAMING", "", None])
async def test_an_unknown_status_means_still_open(word: str | None, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.inject("fetch", faults.status_text(word))
        task = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert (task["status"], task["upstream_status"]) == ("processing", word or None)
        sim.finish(task_id)
        assert (await caller.task("get_task", task_id=task_id, wait_seconds=10))["status"] == "succeeded"
    assert sim.fired == {"status_text": 1}


async def test_a_status_that_goes_back_takes_nothing_back(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.process(task_id, progress=60)
        seen = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert (seen["status"], seen["progress"]) == ("processing", 60)
        sim.inject("fetch", faults.backwards())
        before = len(sim.polls())
        task = await caller.task("get_task", task_id=task_id, wait_seconds=1.5)
        assert len(sim.polls()) > before
        assert sim.fired == {"backwards": 1}
        moving = {"eta_seconds": None, "next": None, "message": None}
        assert task | moving == seen | moving


@pytest.mark.parametrize("fault", [faults.images_null(), faults.images_missing()], ids=["null", "missing"])
async def test_a_success_without_pictures_is_polled_until_they_are_listed(
    fault: Fault, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.finish(task_id)
        sim.inject("fetch", fault, times=2)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=15)
        assert (task["status"], len(task["images"]), task["warnings"]) == ("succeeded", 4, [])
    assert sim.fired == {fault.name: 2}


async def test_an_adopted_success_without_pictures_is_polled_again(sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    sim.finish(task_id)
    async with connect(sim) as caller:
        sim.inject("fetch", faults.images_null(), times=2)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=20)
        assert (task["status"], len(task["images"]), task["warnings"]) == ("succeeded", 4, [])
    assert sim.fired == {"images_null": 2}


@pytest.mark.parametrize("pictures", [1, 2, 4])
async def test_there_are_as_many_pictures_as_the_proxy_lists(pictures: int, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        sim.finish(task_id, images=pictures)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert [image["index"] for image in task["images"]] == list(range(1, pictures + 1))
