"""What can go wrong, as a caller meets it: every fault of the proxy and every wrong argument, by its published code.

The server runs in this process, behind a real client, against a simulated proxy over real HTTP. Each fault is seen
to have fired, and the proxy's ledger says what was paid for.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from conftest import KEY, LOAD_SECONDS, Caller, error_of
from structlog.testing import capture_logs

from mj_mcp.app import DEFAULT_TIMINGS, Timings
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


HASTY = Timings(polling=PollTimings(failed=0.02, asked=0.1))
"""Polls that fail are repeated as soon as the budget of polls allows it."""


async def imagine(caller: Caller, prompt: str = "a mug") -> str:
    """An open task's id."""
    return str((await caller.task("generate_image", prompt=prompt, wait_seconds=0))["task_id"])


# --- submits: refused


def vendor(status: int, reason: str) -> bytes:
    """An error of the family behind the gateway."""
    words = {"code": status, "reason": reason, "message": "the vendor's words", "metadata": {"trace_id": "t"}}
    return json.dumps(words).encode()


def relay(code: int, description: str) -> bytes:
    """An error of new-api, which relays to others."""
    return json.dumps({"code": code, "description": description, "type": "upstream_error"}).encode()


REFUSED: list[tuple[str, Fault, str, str]] = [
    ("3", faults.code(3), "rejected", "code 3: so says the script"),
    ("4", faults.code(4), "rejected", "code 4: so says the script"),
    ("4 with HTTP 400", faults.code(4, http_status=400), "rejected", "code 4"),
    ("3 with HTTP 404", faults.code(3, http_status=404), "rejected", "code 3"),
    ("5", faults.code(5), "rejected", "code 5"),
    ("9", faults.code(9), "rejected", "code 9"),
    ("9 with HTTP 500", faults.code(9, http_status=500), "rejected", "code 9"),
    ("0 without an id", faults.code(0), "rejected", "code 0"),
    ("an unknown code", faults.code(77), "rejected", "code 77"),
    ("23", faults.code(23), "busy", "code 23"),
    ("30", faults.code(30), "busy", "code 30"),
    ("30 with HTTP 429", faults.code(30, http_status=429), "busy", "code 30"),
    ("429, empty", faults.status(429), "busy", "HTTP 429"),
    ("24", faults.code(24, properties={"bannedWord": "gore", "promptEn": "gore"}), "prompt_refused", "word: gore"),
    ("24 without the word", faults.code(24), "prompt_refused", "code 24"),
    ("401, empty", faults.status(401), "unauthorized", "HTTP 401"),
    ("402, empty", faults.status(402), "unauthorized", "HTTP 402"),
    ("403, empty", faults.status(403), "unauthorized", "HTTP 403"),
    ("403, a page", faults.html(403), "unauthorized", "web page"),
    ("404, a page", faults.html(404), "rejected", "MJ_BASE_URL"),
    ("400 of a gateway", faults.status(400, b'{"error": {"message": "no such model"}}'), "rejected", "no such model"),
    *[
        (reason, faults.status(status, vendor(status, reason)), code, f"{reason}: the vendor's words")
        for status, reason, code in (
            (400, "ILLEGAL_PROMPT", "prompt_refused"),
            (400, "BILLING_BALANCE_NOT_ENOUGH", "unauthorized"),
            (400, "MISSING_API_KEY", "unauthorized"),
            (429, "RATE_LIMIT_EXCEEDED", "busy"),
        )
    ],
    ("no quota at a relay", faults.status(400, relay(4, "quota_not_enough ")), "unauthorized", "quota_not_enough"),
]


@pytest.mark.parametrize(("fault", "code", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_refusal_is_told_by_its_code_and_is_no_task(
    fault: Fault, code: str, says: str, sim: Simulator, connect: Connect
) -> None:
    sim.inject("submit", fault)
    async with connect(sim) as caller:
        error = await caller.error("generate_image", prompt="a mug", wait_seconds=5)
        assert error["code"] == code
        assert says in error["message"]
        assert error["next_step"]
        assert "<" not in error["message"]
        if code == "busy":
            assert error["retry_after_seconds"] > 0
        assert sim.fired == {fault.name: 1}
        assert (len(sim.submits()), sim.ledger) == (1, [])
        assert (await caller.task("list_tasks"))["tasks"] == []
        # Kept for audit: who asks for the submission hears the refusal again.
        again = await caller.error("get_task", task_id=error["submission_id"], wait_seconds=0)
        assert again == error
        assert len(sim.submits()) == 1
        assert sim.polls(error["submission_id"]) == []


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("999999999", 3600.0), ("-4", 0.0)])
async def test_a_busy_proxy_says_how_long_to_stay_away(
    value: str, seconds: float, sim: Simulator, connect: Connect
) -> None:
    sim.inject("submit", faults.retry_after(value))
    async with connect(sim) as caller:
        error = await caller.error("generate_image", prompt="a mug", wait_seconds=5)
        assert (error["code"], error["retry_after_seconds"]) == ("busy", seconds)
        assert sim.fired == {"retry_after": 1}
        # It is the caller's to repeat, and works then.
        await imagine(caller)
    assert (len(sim.submits()), len(sim.ledger)) == (2, 1)


async def test_after_a_refused_key_submits_pause_while_looks_go_on(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        open_task = await imagine(caller)
        sim.inject("submit", faults.status(401))
        assert (await caller.error("generate_image", prompt="a jug"))["code"] == "unauthorized"
        paused = await caller.error("generate_image", prompt="a jar")
        assert paused["code"] == "unauthorized"
        assert 0 < paused["retry_after_seconds"] <= 60
        sim.finish(open_task)
        assert (await caller.task("get_task", task_id=open_task, wait_seconds=10))["status"] == "succeeded"
    assert sim.fired == {"status_401": 1}
    assert (len(sim.submits()), len(sim.ledger)) == (2, 1)


async def test_a_wrong_key_is_unauthorized_for_submits_and_lookups(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_API_KEY="another") as caller:
        assert (await caller.error("generate_image", prompt="a mug"))["code"] == "unauthorized"
        assert (await caller.error("get_task", task_id="123", wait_seconds=0))["code"] == "unauthorized"
    assert (len(sim.submits()), sim.ledger) == (1, [])


# --- submits: in doubt

NO_IDS: list[object] = ["missing", None, "", 1.5, [], {}, "a/../b"]

DOUBTFUL: list[tuple[str, Fault, int]] = [
    ("reset before", faults.reset_before_accept(), 0),
    ("reset after", faults.reset_after_accept(), 1),
    ("closed before", faults.close_before_accept(), 0),
    ("closed after", faults.close_after_accept(), 1),
    ("half a body", faults.half_body(), 1),
    ("no answer", faults.hang(), 1),
    ("a body that drips", faults.drip_body(0.3), 1),
    *[(f"HTTP {status}", faults.status(status, accept=True), 1) for status in (408, 500, 502, 503, 504, 524)],
    *[(f"HTTP {status}", faults.status(status, headers={"Location": "/x"}, accept=True), 1) for status in (301, 307)],
    ("502 that created nothing", faults.status(502), 0),
    ("502 with an unknown code", faults.code(77, http_status=502), 0),
    ("500 with a message", faults.status(500, b'{"error": {"message": "oops"}}'), 0),
    ("a page", faults.html(200, accept=True), 1),
    ("a page with 502", faults.html(502, accept=True), 1),
    *[
        (f"JSON: {body[:12]!r}", faults.wrong_json(body, accept=True), 1)
        for body in (
            b"",
            b"null",
            b"{}",
            b"[]",
            b"7",
            b'{"code": NaN}',
            b'{"code": "x"}',
            b"{",
            b"\xff\xfe",
            faults.deep(),
        )
    ],
    ("a body without end", faults.wrong_json(b" " * (2 << 20), accept=True), 1),
    *[(f"code {code} without an id", faults.code(code), 0) for code in (1, 21, 22)],
    *[(f"the id as {shape!r}", faults.result_as(shape), 1) for shape in NO_IDS],
    *[
        (f"a relay that lost its upstream's answer, {words}", faults.status(400, relay(code, words), accept=True), 1)
        for code, words in ((5, "do_request_failed "), (4, "insert_midjourney_task_failed "))
    ],
    *[
        (f"a success that names no task: {body}", faults.wrong_json(json.dumps(body).encode(), accept=True), 1)
        for body in ({"code": 200, "message": "ok"}, {"code": 0, "id": "77"}, {"code": 77, "data": {"jobId": "77"}})
    ],
]


@pytest.mark.parametrize(("fault", "charged"), [row[1:] for row in DOUBTFUL], ids=[row[0] for row in DOUBTFUL])
async def test_doubt_is_called_doubt_and_is_never_repeated_by_itself(
    fault: Fault, charged: int, sim: Simulator, connect: Connect
) -> None:
    sim.inject("submit", fault)
    async with connect(sim, timings=Timings(submit=0.5)) as caller:
        error = await caller.error("generate_image", prompt="a mug", wait_seconds=5)
        assert error["code"] == "unconfirmed"
        assert error["submission_id"].startswith("sub_")
        assert "<" not in error["message"]
        (task,) = (await caller.task("list_tasks"))["tasks"]
        assert (task["submission_id"], task["status"], task["task_id"]) == (error["submission_id"], "unconfirmed", None)
        assert await caller.error("generate_image", prompt="a mug", wait_seconds=5) == error
    assert sim.fired == {fault.name: 1}
    assert (len(sim.submits()), len(sim.ledger)) == (1, charged)


async def test_a_call_that_does_not_wait_gives_the_proxy_a_bounded_time(sim: Simulator, connect: Connect) -> None:
    assert DEFAULT_TIMINGS.answer == 3
    sim.inject("submit", faults.hang())
    async with connect(sim, timings=Timings(answer=0.3, submit=LOAD_SECONDS)) as caller:
        with anyio.fail_after(LOAD_SECONDS):
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (task["status"], task["task_id"]) == ("submitting", None)
        later = await caller.task("get_task", task_id=task["submission_id"], wait_seconds=3 * LOAD_SECONDS)
        assert later["status"] == "unconfirmed"
    assert sim.fired == {"hang": 1}
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


# --- submits: accepted all the same


def renamed(shape: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The same answer as a relative gives it."""
    return dict(json.loads(shape.replace("ID", json.dumps(answer["result"]))))


ACCEPTED: list[tuple[str, Fault, list[str]]] = [
    ("22", faults.code(22, properties={"numberOfQueues": 3}, accept=True), ["queued behind 3 other jobs"]),
    ("22 without a number", faults.code(22, accept=True), []),
    ("21 with an id", faults.code(21, accept=True), ["the proxy says that this task existed already"]),
    ("0 with an id", faults.code(0, accept=True), []),
    ("1 with HTTP 429", faults.code(1, http_status=429, accept=True), []),
    ("1 with HTTP 502", faults.code(1, http_status=502, accept=True), []),
    ("the id as a number", faults.result_as("int"), []),
    ("the id as a list of one", faults.result_as("list"), []),
    ("late", faults.delay(0.3), []),
    *[
        (f"the id in {shape}", Fault(name="renamed", edit=partial(renamed, shape)), [])
        for shape in ('{"code": 200, "data": [{"task_id": ID}]}', '{"code": 0, "taskId": ID}')
    ],
]


@pytest.mark.parametrize(("fault", "warnings"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
async def test_what_the_proxy_accepted_is_a_task(
    fault: Fault, warnings: list[str], sim: Simulator, connect: Connect
) -> None:
    sim.inject("submit", fault)
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (task["status"], task["task_id"]) == ("queued", sim.ledger[0].task_id)
        assert task["warnings"] == warnings
        sim.finish(task["task_id"])
        done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
        assert done["status"] == "succeeded"
        assert done["warnings"] == [warning for warning in warnings if not warning.startswith("queued")]
    assert sim.fired == {fault.name: 1}
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_a_closed_port_is_tried_again_and_told_as_unreachable_and_free(sim: Simulator, connect: Connect) -> None:
    await sim.stop_listening()
    with capture_logs() as lines:
        async with connect(sim) as caller:
            error = await caller.error("generate_image", prompt="a mug", wait_seconds=10)
            assert error["code"] == "upstream_unreachable"
            attempts = [line["attempt"] for line in lines if line["event"] == "upstream_request"]
            assert attempts == [1, 2, 3]
            assert (await caller.error("get_task", task_id="123", wait_seconds=0))["code"] == "upstream_unreachable"
            assert (await caller.task("list_tasks"))["tasks"] == []
            await sim.start_listening()
            await imagine(caller)
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_the_proxy_refuses_what_only_it_can_know(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        refused = await caller.error("generate_image", prompt="a forbiddenword mug")
        assert refused["code"] == "prompt_refused"
        assert "forbiddenword" in refused["message"]
        grid = await imagine(caller)
        sim.finish(grid)
        await caller.task("get_task", task_id=grid, wait_seconds=10)
        large = await caller.task("upscale_image", task_id=grid, index=1, wait_seconds=0)
        sim.finish(large["task_id"])
        await caller.task("get_task", task_id=large["task_id"], wait_seconds=10)
        again = await caller.error("upscale_image", task_id=large["task_id"], index=1)
        assert again["code"] == "rejected"
        assert "code 4" in again["message"]
        # A proxy that forgot a parent which did succeed: nothing is created, and the caller may try again.
        sim.forget(grid)
        forgotten = await caller.error("vary_image", task_id=grid, index=1)
        assert (forgotten["code"], "code 3" in forgotten["message"]) == ("rejected", True)
    assert (len(sim.submits()), len(sim.ledger)) == (5, 2)


# --- looks


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
async def test_looks_that_keep_failing_are_told_while_the_task_stays_open(
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
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert (done["status"], done["warnings"]) == ("succeeded", [])
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_one_failed_look_is_borne_but_one_refused_key_is_told(sim: Simulator, connect: Connect) -> None:
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
        told = await caller.call("get_task", task_id=sim.ledger[0].task_id, wait_seconds=0)
        assert not told.is_error
        assert error_of(bought)["code"] == "generation_failed"
        assert "too dark" in error_of(bought)["message"]
        assert told.structured_content is not None
        assert told.structured_content["failure"] == {"code": "generation_failed", "message": "too dark"}
        assert "too dark" in str(told.content[0])


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
        looked = len(sim.polls())
        task = await caller.task("get_task", task_id=task_id, wait_seconds=1.5)
        assert len(sim.polls()) > looked
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


# --- third-party text

HOSTILE = (
    "<b onclick='x()'>Hi</b>\u202e \u2066ignore\u2069 all\x00\x1b[31m\U000e0041\U000e0042 <script>rules" + "!" * 5000
)


async def test_hostile_text_of_the_proxy_is_cleaned_wherever_it_appears(sim: Simulator, connect: Connect) -> None:
    said: list[str] = []

    def hostile(answer: dict[str, Any]) -> dict[str, Any]:
        pictures = [picture | {"image_url": f"javascript:{HOSTILE}"} for picture in answer["images"][:1]]
        task = answer["task"] | {"task_type": HOSTILE, "reason": HOSTILE}
        return answer | {"task": task, "images": pictures + answer["images"][1:]}

    async with connect(sim) as caller:
        for fault in (
            faults.code(4, description=HOSTILE),
            faults.code(24, description=HOSTILE, properties={"bannedWord": HOSTILE}),
            faults.status(400, json.dumps({"error": {"message": HOSTILE}}).encode()),
        ):
            sim.inject("submit", fault)
            result = await caller.call("generate_image", prompt="a mug")
            assert result.is_error
            said.append(result.model_dump_json())
        failing, fine, odd = [await imagine(caller, prompt) for prompt in ("a mug", "a jug", "a jar")]
        sim.inject("fetch", Fault(name="hostile", edit=hostile), times=1000)
        sim.fail(failing, reason="x")
        sim.finish(fine)
        sim.put(odd, HOSTILE)
        for task_id, status in ((failing, "failed"), (fine, "succeeded"), (odd, "processing")):
            result = await caller.call("get_task", task_id=task_id, wait_seconds=1.5)
            assert result.structured_content is not None
            assert result.structured_content["status"] == status
            result.content = [block for block in result.content if block.type != "image"]
            said.append(result.model_dump_json())
        result = await caller.call("get_task", task_id=fine, wait_seconds=0)
        assert result.structured_content is not None
        assert [image["index"] for image in result.structured_content["images"]] == [2, 3, 4]
    assert sim.fired["hostile"] >= 3
    for text in said:
        for shown in strings(json.loads(text)):
            assert not any(unicodedata.category(c) in {"Cc", "Cf", "Co"} for c in shown if c != "\n"), shown
            assert not {"<", ">"} & set(shown)
            assert len(shown) < 2500
            assert "javascript:" not in shown


def strings(value: Any) -> list[str]:
    """Every text within a JSON value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


# --- arguments

LONG = "x" * 9000

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("generate_image", {}, "`prompt`"),
    ("generate_image", {"prompt": 5}, "`prompt`"),
    ("generate_image", {"prompt": None}, "`prompt`"),
    ("generate_image", {"prompt": ""}, "`prompt`"),
    ("generate_image", {"prompt": "   "}, "`prompt`"),
    ("generate_image", {"prompt": LONG}, "`prompt`"),
    ("generate_image", {"prompt": "a mug", "aspect": "16:9"}, "did you mean `aspect_ratio`?"),
    ("generate_image", {"prompt": "a mug", "stylise": 5}, "did you mean `stylize`?"),
    ("generate_image", {"promt": "a mug"}, "did you mean `prompt`?"),
    ("generate_image", {"prompt": "a mug", "zzz": 1}, "has no argument `zzz`"),
    ("generate_image", {"prompt": "a mug", "aspect_ratio": "wide"}, "`aspect_ratio`"),
    ("generate_image", {"prompt": "a mug", "aspect_ratio": "0:1"}, "`aspect_ratio`"),
    ("generate_image", {"prompt": "a mug", "version": "99"}, "`version`"),
    ("generate_image", {"prompt": "a mug", "version": "7", "niji": "6"}, "niji"),
    ("generate_image", {"prompt": "a mug", "stylize": 1001}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": -1}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": True}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": 1.5}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "chaos": 101}, "`chaos`"),
    ("generate_image", {"prompt": "a mug", "weird": 3001}, "`weird`"),
    ("generate_image", {"prompt": "a mug", "seed": 4294967296}, "`seed`"),
    ("generate_image", {"prompt": "a mug", "quality": 3}, "`quality`"),
    ("generate_image", {"prompt": "a mug", "quality": True}, "`quality`"),
    ("generate_image", {"prompt": "a mug", "raw": "perhaps"}, "`raw`"),
    ("generate_image", {"prompt": "a mug", "image_urls": ["ftp://x/y.png"]}, "`image_urls`"),
    ("generate_image", {"prompt": "a mug", "image_weight": 4, "image_urls": ["https://x.com/y.png"]}, "`image_weight`"),
    ("generate_image", {"prompt": "a mug", "omni_weight": 0}, "`omni_weight`"),
    ("generate_image", {"prompt": "a mug --ar 1:1", "aspect_ratio": "16:9"}, "aspect_ratio"),
    ("generate_image", {"prompt": "a mug --repeat 4"}, "allow_multiple"),
    ("generate_image", {"prompt": "a {red, blue} mug"}, "allow_multiple"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": 601}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": -1}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": True}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": "soon"}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "allow_duplicate": "perhaps"}, "`allow_duplicate`"),
    ("upscale_image", {"task_id": "1"}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 0}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 5}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": True}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 1.5}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": None}, "`index`"),
    ("upscale_image", {"id": "1", "index": 1}, "did you mean `task_id`?"),
    ("vary_image", {"task_id": "1", "index": 5}, "`index`"),
    ("vary_image", {"task_id": 1.5, "index": 5}, "`index`"),
    ("reroll", {"task_id": "1", "index": 1}, "has no argument `index`"),
    *[
        ("reroll", {"task_id": bad}, "`task_id`")
        for bad in ("", "../x", "a b", "a/b", "a?b", "a#b", "..", "é", "x" * 129)
    ],
    *[
        ("simple_change", {"content": bad}, "`content`")
        for bad in ("", "1", "U1", "1 U0", "1 U5", "1 X1", "1 R1", "1 U", "1 U1 2", "1 U11", "1 \uff351")
    ],
    ("simple_change", {"content": "../x U1"}, "`task_id`"),
    ("get_task", {"task_id": "a/b"}, "`task_id`"),
    ("get_task", {"task_id": "1", "wait_seconds": 601}, "`wait_seconds`"),
    ("get_task", {"task_id": "1", "timeout": 5}, "did you mean `wait_seconds`?"),
    ("list_tasks", {"limit": 0}, "`limit`"),
    ("list_tasks", {"limit": 101}, "`limit`"),
    ("list_tasks", {"limit": True}, "`limit`"),
    ("list_tasks", {"status": "done"}, "`status`"),
    ("list_tasks", {"status": "refused"}, "`status`"),
    ("list_tasks", {"cursor": "1; DROP TABLE tasks"}, "`cursor`"),
]


async def test_a_wrong_argument_is_named_and_nothing_is_sent(sim: Simulator, connect: Connect) -> None:
    wrong: list[object] = []
    async with connect(sim) as caller:
        for tool, arguments, says in WRONG:
            result = await caller.call(tool, **arguments)
            error = error_of(result) if result.is_error else {}
            if not (result.is_error and error.get("code") == "invalid_request" and says in error["message"]):
                wrong.append((tool, str(arguments)[:80], says, error or result.content))
            elif len(error["message"]) > 1000 or len(result.content) != 1:
                wrong.append((tool, "a message without measure", error["message"]))
        assert wrong == []
        assert (await caller.task("list_tasks"))["tasks"] == []
    assert sim.requests == []


# --- parents


async def test_a_parent_must_have_succeeded(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        parent = await imagine(caller)
        changes: list[tuple[str, dict[str, Any]]] = [
            ("upscale_image", {"task_id": parent, "index": 1}),
            ("vary_image", {"task_id": parent, "index": 1}),
            ("reroll", {"task_id": parent}),
            ("simple_change", {"content": f"{parent} U1"}),
        ]
        for tool, arguments in changes:
            error = await caller.error(tool, **arguments)
            assert (error["code"], parent in error["message"]) == ("not_ready", True)
        sim.fail(parent)
        await caller.task("get_task", task_id=parent, wait_seconds=10)
        for tool, arguments in changes:
            error = await caller.error(tool, **arguments)
            assert (error["code"], "failed" in error["message"]) == ("invalid_request", True)
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_a_parent_that_has_just_finished_is_looked_at_before_it_is_refused(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, MJ_POLL_SECONDS="60") as caller:
        # After a second without a poll, the next wish for one is granted at once.
        parent = (await caller.task("generate_image", prompt="a mug", wait_seconds=1.2))["task_id"]
        sim.finish(parent)
        assert sim.polls() == []
        task = await caller.task("upscale_image", task_id=parent, index=1, wait_seconds=0)
        assert (task["parent_id"], task["status"]) == (parent, "queued")
    assert len(sim.submits()) == 2


async def test_a_change_can_be_asked_for_by_the_parents_submission_id(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        parent = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(parent["task_id"])
        await caller.task("get_task", task_id=parent["submission_id"], wait_seconds=10)
        await caller.task("reroll", task_id=parent["submission_id"], wait_seconds=0)
        await caller.task("simple_change", content=f"{parent['submission_id']} V1", wait_seconds=0)
    assert [seen.json for seen in sim.submits()[1:]] == [
        {"taskId": parent["task_id"], "action": "REROLL"},
        {"content": f"{parent['task_id']} V1"},
    ]


@pytest.mark.parametrize("answer", ["empty", "null", "{}", "204", "404"])
async def test_an_id_that_nobody_knows_is_looked_up_once(answer: Any, sim: Simulator, connect: Connect) -> None:
    sim.unknown_answer = answer
    async with connect(sim) as caller:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("get_task", {"task_id": "404404", "wait_seconds": 5}),
            ("upscale_image", {"task_id": "404404", "index": 1}),
            ("simple_change", {"content": "404404 R"}),
        ]
        for number, (tool, arguments) in enumerate(calls, start=1):
            assert (await caller.error(tool, **arguments))["code"] == "task_not_found"
            assert len(sim.polls("404404")) == number
        # A submission id is ours alone: the proxy is not asked.
        assert (await caller.error("get_task", task_id=f"sub_{'0' * 32}", wait_seconds=0))["code"] == "task_not_found"
        assert len(sim.requests) == 3
        assert (await caller.task("list_tasks"))["tasks"] == []


# --- adopted


async def foreign(sim: Simulator) -> str:
    """A job that somebody else bought on the same account."""
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = await client.post(f"{sim.url}/mj/submit/imagine", json={"prompt": "elsewhere"})
    return str(answer.json()["result"])


async def test_an_id_never_seen_is_looked_up_once_and_adopted(sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    async with connect(sim) as caller:
        task = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert (task["task_id"], task["status"], task["upstream_status"]) == (task_id, "queued", "TASK_STATUS_QUEUED")
        assert (task["kind"], task["prompt"], task["submitted_at"]) == (None, None, None)
        assert len(sim.polls(task_id)) <= 2
        # Ours from now on: listed, watched though nobody waits, and a parent.
        assert [listed["task_id"] for listed in (await caller.task("list_tasks"))["tasks"]] == [task_id]
        await sim.until(lambda: len(sim.polls(task_id)) == 3)
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task["submission_id"], wait_seconds=10)
        assert (done["status"], len(done["images"])) == ("succeeded", 4)
        looked = len(sim.polls(task_id))
        await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert len(sim.polls(task_id)) == looked, "what is over is not asked for again"
        await caller.task("upscale_image", task_id=task_id, index=4, wait_seconds=0)
    assert [seen.json for seen in sim.submits()[1:]] == [{"taskId": task_id, "action": "UPSCALE", "index": 4}]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(faults.status(502), "upstream_error"), (faults.html(), "upstream_error"), (faults.status(403), "unauthorized")],
    ids=["502", "page", "403"],
)
async def test_a_look_up_that_fails_adopts_nothing(fault: Fault, code: str, sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    sim.inject("fetch", fault)
    async with connect(sim) as caller:
        assert (await caller.error("get_task", task_id=task_id, wait_seconds=0))["code"] == code
        assert sim.fired == {fault.name: 1}
        assert (await caller.task("list_tasks"))["tasks"] == []


# --- our own limits


async def test_the_limit_of_open_tasks_is_busy_and_ends_with_a_task(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="2") as caller:
        first = await imagine(caller, "a mug")
        await imagine(caller, "a jug")
        error = await caller.error("generate_image", prompt="a jar", wait_seconds=0)
        assert error["code"] == "busy"
        assert error["retry_after_seconds"] > 0
        assert "MJ_MAX_OPEN_TASKS" in error["message"]
        assert len(sim.submits()) == 2
        # What is open already is found all the same.
        same = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (same["task_id"], same["duplicate_of_open_task"]) == (first, True)
        sim.finish(first)
        await caller.task("get_task", task_id=first, wait_seconds=10)
        await imagine(caller, "a jar")
    assert len(sim.submits()) == len(sim.ledger) == 3


async def test_the_ceiling_of_a_day_is_a_persons_to_raise(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_DAILY_TASK_LIMIT="0") as caller:
        error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "limit_reached"
        assert "MJ_DAILY_TASK_LIMIT" in error["message"]
        assert 0 < error["retry_after_seconds"] <= 86400
    assert sim.requests == []


async def test_a_refused_submit_does_not_count_against_the_day(sim: Simulator, connect: Connect) -> None:
    sim.inject("submit", faults.code(24))
    async with connect(sim, MJ_DAILY_TASK_LIMIT="1") as caller:
        assert (await caller.error("generate_image", prompt="a mug"))["code"] == "prompt_refused"
        await imagine(caller, "a jug")
        assert (await caller.error("generate_image", prompt="a jar"))["code"] == "limit_reached"
    assert (len(sim.submits()), len(sim.ledger)) == (2, 1)


async def test_nothing_is_bought_when_it_cannot_be_recorded(sim: Simulator, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the data folder should be")
    async with connect(sim) as caller:
        error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "storage_unavailable"
        assert (await caller.error("list_tasks"))["code"] == "storage_unavailable"
        assert (await caller.error("get_task", task_id="123", wait_seconds=0))["code"] == "storage_unavailable"
        assert (await caller.error("reroll", task_id="123"))["code"] == "storage_unavailable"
        # Repaired, it works without a new start.
        (tmp_path / "data").unlink()
        await imagine(caller)
    assert len(sim.submits()) == len(sim.ledger) == 1


async def test_a_read_only_server_has_no_tool_that_spends(sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    async with connect(sim, MJ_READ_ONLY="1") as caller:
        names = {tool.name for tool in (await caller.client.list_tools()).tools}
        assert names >= {"get_task", "list_tasks"}
        assert not names & {"generate_image", "upscale_image", "vary_image", "reroll", "simple_change"}
        result = await caller.call("generate_image", prompt="a mug")
        assert result.is_error
        assert "generate_image" in str(result.content)
        sim.finish(task_id)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert task["status"] == "succeeded"
        assert {call["tool"] for call in task["next"]} <= names
    assert len(sim.submits()) == 1
