"""Submits that go wrong, as a caller meets them: refused, unconfirmed, or accepted all the same.

The server runs in this process, behind a real client, against a simulated proxy over real HTTP. Each fault is seen
to have fired, and the proxy's ledger says what was paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
import pytest
from calls import imagine
from conftest import LOAD_SECONDS, Caller
from structlog.testing import capture_logs

from mj_mcp.app import DEFAULT_TIMINGS, Timings
from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


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
async def test_a_refusal_has_its_code_and_is_no_task(
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


async def test_after_a_refused_key_submits_pause_while_polls_go_on(sim: Simulator, connect: Connect) -> None:
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


@pytest.mark.slow
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


async def test_a_closed_port_is_tried_again_and_reported_as_unreachable_and_free(
    sim: Simulator, connect: Connect
) -> None:
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
