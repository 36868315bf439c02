"""The simulator's faults: each does what its name says, once, and is charged exactly when it was accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from simulators import PNG, Agent, Clock

from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = pytest.mark.anyio


Outcome = Callable[[httpx.Response], bool] | type[httpx.TransportError]
SPOILED_SUBMITS: dict[str, tuple[Fault, Outcome, bool]] = {
    "a late answer": (faults.delay(0.01), lambda a: a.json()["code"] == 1, True),
    "a late job": (faults.delay(0.01, before_accept=True), lambda a: a.json()["code"] == 1, True),
    "silence after": (faults.hang(), httpx.ReadTimeout, True),
    "silence before": (faults.hang(after_accept=False), httpx.ReadTimeout, False),
    "reset before": (faults.reset_before_accept(), httpx.ReadError, False),
    "reset after": (faults.reset_after_accept(), httpx.ReadError, True),
    "close before": (faults.close_before_accept(), httpx.RemoteProtocolError, False),
    "close after": (faults.close_after_accept(), httpx.RemoteProtocolError, True),
    "half an answer": (faults.half_body(), httpx.RemoteProtocolError, True),
    "a dripping answer": (faults.drip_body(0.0001), lambda a: a.json()["code"] == 1, True),
    "502 before": (faults.status(502, b"bad gateway"), lambda a: a.text == "bad gateway", False),
    "502 after": (faults.status(502, accept=True), lambda a: a.status_code == 502, True),
    "307": (
        faults.status(307, headers={"Location": "http://x/"}),
        lambda a: a.headers["location"] == "http://x/",
        False,
    ),
    "204": (faults.status(204, accept=True), lambda a: a.content == b"", True),
    "retry-after": (faults.retry_after("soon"), lambda a: a.headers["retry-after"] == "soon", False),
    "a page": (faults.html(503), lambda a: a.status_code == 503 and "<html>" in a.text, False),
    "null": (faults.wrong_json(b"null", accept=True), lambda a: a.json() is None, True),
    "NaN": (faults.wrong_json(b'{"code": NaN}'), lambda a: a.text == '{"code": NaN}', False),
    "deep": (faults.wrong_json(faults.deep()), lambda a: len(a.content) == 200_000, False),
    "code 23": (faults.code(23), lambda a: a.json() == {"code": 23, "description": "so says the script"}, False),
    "code 30": (faults.code(30, http_status=429), lambda a: (a.status_code, a.json()["code"]) == (429, 30), False),
    "code 22": (
        faults.code(22, properties={"numberOfQueues": 3}, accept=True),
        lambda a: (
            (a.json()["code"], a.json()["properties"], len(a.json()["result"])) == (22, {"numberOfQueues": 3}, 16)
        ),
        True,
    ),
    "code 21": (faults.code(21, result="7"), lambda a: a.json()["result"] == "7", False),
    "a number": (faults.result_as("int"), lambda a: isinstance(a.json()["result"], int), True),
    "a list": (faults.result_as("list"), lambda a: len(a.json()["result"][0]) == 16, True),
    "no result": (faults.result_as("missing"), lambda a: a.json().keys() == {"code", "description"}, True),
    "a null result": (faults.result_as(None), lambda a: a.json()["result"] is None, True),
}


@pytest.mark.parametrize("case", SPOILED_SUBMITS)
async def test_a_spoiled_submit_is_charged_exactly_when_it_was_accepted(agent: Agent, case: str) -> None:
    sim = agent.sim
    fault, outcome, charged = SPOILED_SUBMITS[case]
    sim.inject("imagine", fault)
    async with httpx.AsyncClient(timeout=0.1 if fault.way == "hang" else 5) as http:
        agent = Agent(sim, http)
        if isinstance(outcome, type):
            with pytest.raises(outcome):
                await agent.post("imagine", {"prompt": "mug"})
        else:
            assert outcome(await agent.post("imagine", {"prompt": "mug"}))
        assert sim.fired == {fault.name: 1}
        assert len(sim.ledger) == int(charged)
        await agent.imagine("the next one is well")
    assert len(sim.ledger) == 1 + int(charged)


SPOILED_FETCHES: dict[str, tuple[Fault, Callable[[httpx.Response], bool]]] = {
    "empty": (faults.empty(), lambda a: (a.status_code, a.content) == (200, b"")),
    "forget": (faults.forget(), lambda a: (a.status_code, a.content) == (200, b"")),
    "backwards": (
        faults.backwards(),
        lambda a: (a.json()["task"]["status"], a.json()["images"]) == ("TASK_STATUS_PROCESSING", []),
    ),
    "status_text": (faults.status_text("ODD"), lambda a: a.json()["task"]["status"] == "ODD"),
    "images_null": (faults.images_null(), lambda a: a.json()["images"] is a.json()["videos"] is None),
    "images_missing": (faults.images_missing(), lambda a: a.json().keys() == {"extra", "task"}),
    "stuck": (faults.stuck(), lambda a: a.json()["task"]["status"] == "TASK_STATUS_SUCCEED"),
    "status_500": (faults.status(500), lambda a: a.status_code == 500),
}


@pytest.mark.parametrize("name", SPOILED_FETCHES)
async def test_a_spoiled_fetch_is_spoiled_once(agent: Agent, name: str) -> None:
    fault, outcome = SPOILED_FETCHES[name]
    task_id = await agent.grid()
    agent.sim.inject("fetch", fault)
    assert outcome(await agent.fetch(task_id))
    assert agent.sim.fired == {name: 1}
    assert bool((await agent.fetch(task_id)).content) is (name != "forget")


async def test_a_stuck_task_never_moves_again(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=100, now=clock) as sim:
        agent = Agent(sim, http)
        stuck, well = await agent.imagine("one"), await agent.imagine("two")
        clock.time += 50
        sim.inject("fetch", faults.stuck(stuck))
        await agent.fetch(well)
        clock.time += 10_000
        assert [(await agent.standing(task_id))[0] for task_id in (stuck, well)] == ["PROCESSING", "SUCCEED"]


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("fetch", faults.backwards()),
        ("fetch", faults.forget("unheard-of")),
        ("fetch", faults.stuck("unheard-of")),
        ("submit", faults.result_as("int")),
        ("submit", faults.code(22, accept=True)),
    ],
)
async def test_a_fault_that_finds_nothing_to_spoil_is_not_counted(agent: Agent, where: str, fault: Fault) -> None:
    task_id = await agent.imagine()
    agent.sim.inject(where, fault)
    if where == "fetch":
        assert await agent.standing(task_id) == ("QUEUED", 0, 0)
    else:
        assert (await agent.post("imagine", {})).json()["code"] == 4
    assert (agent.sim.fired, agent.sim.faults_left()) == ({}, 0)


async def test_half_an_empty_answer_is_no_fault(agent: Agent) -> None:
    agent.sim.inject("fetch", faults.half_body())
    assert (await agent.fetch("unheard-of")).content == b""
    assert agent.sim.fired == {}


async def test_a_picture_may_be_spoiled_too(agent: Agent) -> None:
    link = (await agent.links(await agent.grid()))[0]
    agent.sim.inject("picture", faults.half_body())
    with pytest.raises(httpx.RemoteProtocolError):
        await agent.http.get(link)
    assert (await agent.http.get(link)).content.startswith(PNG)
    assert agent.sim.fired == {"half_body": 1}


async def test_faults_are_met_in_order_the_narrowest_first(agent: Agent) -> None:
    agent.sim.inject("submit", faults.status(500))
    agent.sim.inject("imagine", faults.status(501), times=2)
    agent.sim.inject("imagine", faults.status(502))
    seen = [(await agent.post("imagine", {"prompt": "mug"})).status_code for _ in range(5)]
    assert seen == [501, 501, 502, 500, 200]
    with pytest.raises(ValueError, match="no request is of kind 'nowhere'"):
        agent.sim.inject("nowhere", faults.empty())


async def test_random_faults_repeat_with_their_seed(http: httpx.AsyncClient) -> None:
    async def run(seed: int) -> list[int]:
        async with Simulator(job_seconds=None) as sim:
            agent = Agent(sim, http)
            sim.seed_faults(seed, 0.5, "submit", [faults.status(500), faults.status(502, accept=True)])
            seen = [(await agent.post("imagine", {"prompt": "mug"})).status_code for _ in range(30)]
            assert [sim.fired["status_500"], sim.fired["status_502"]] == [seen.count(500), seen.count(502)]
            assert len(sim.ledger) == 30 - seen.count(500)
            sim.clear_faults()
            assert (await agent.post("imagine", {"prompt": "mug"})).status_code == 200
            return seen

    first, again, other = await run(1), await run(1), await run(2)
    assert first == again != other
    assert set(first) == {200, 500, 502}


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [("empty", 200, b""), ("null", 200, b"null"), ("{}", 200, b"{}"), ("204", 204, b""), ("404", 404, None)],
)
async def test_an_unknown_task_is_answered_as_the_relatives_do(
    agent: Agent, answer: Any, status: int, body: bytes | None
) -> None:
    agent.sim.unknown_answer = answer
    got = await agent.fetch("unheard-of")
    assert got.status_code == status
    assert body is None or got.content == body


async def test_a_restart_forgets_the_tasks_and_keeps_the_ledger(agent: Agent) -> None:
    task_id = await agent.grid()
    link = (await agent.links(task_id))[0]
    agent.sim.restart_forgetting()
    assert (await agent.fetch(task_id)).content == b""
    assert (await agent.http.get(link)).status_code == 404
    assert (await agent.post("simple-change", {"content": f"{task_id} R"})).json()["code"] == 3
    assert len(agent.sim.ledger) == 1


async def test_while_it_does_not_listen_connections_are_refused_and_then_work_on_the_same_port(agent: Agent) -> None:
    port = agent.sim.port
    task_id = await agent.imagine()
    await agent.sim.stop_listening()
    with pytest.raises(httpx.ConnectError):
        await agent.fetch(task_id)
    await agent.sim.start_listening()
    assert await agent.standing(task_id) == ("QUEUED", 0, 0)
    assert agent.sim.port == port


@pytest.mark.parametrize("abort", [False, True])
async def test_a_busy_connection_is_answered_or_reset_when_listening_stops(agent: Agent, abort: bool) -> None:
    agent.sim.inject("submit", faults.delay(0.1))
    busy = asyncio.create_task(agent.imagine())
    await agent.sim.until(lambda: len(agent.sim.ledger) == 1)
    await agent.sim.stop_listening(abort=abort)
    if abort:
        with pytest.raises(httpx.ReadError):
            await busy
    else:
        assert await busy == agent.sim.ledger[0].task_id
