"""The simulator's jobs: how long they take, how they end, and what is bought twice."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from simulators import SECRET, Agent, Clock, FlatAgent

from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio


async def test_a_job_moves_with_the_clock_and_tells_its_progress_when_asked_to(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=200, speed=2, report_progress=True, now=clock) as sim:
        agent = Agent(sim, http)
        task_id = await agent.imagine()
        seen = [await agent.standing(task_id)]
        for step in (10, 45, 44.9, 0.1):
            clock.time += step
            seen.append(await agent.standing(task_id))
    assert seen == [
        ("QUEUED", 0, 100),
        ("PROCESSING", 0, 90),
        ("PROCESSING", 50, 45),
        ("PROCESSING", 99, 1),
        ("SUCCEED", 100, 0),
    ]


async def test_progress_stays_silent_unless_asked_for(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=100, now=clock) as sim:
        agent = Agent(sim, http)
        task_id = await agent.imagine()
        clock.time += 50
        assert await agent.standing(task_id) == ("PROCESSING", 0, 0)


async def test_job_times_are_log_normal_around_thirty_seconds_and_repeat_with_the_seed(
    http: httpx.AsyncClient,
) -> None:
    async def times(seed: int) -> list[float]:
        async with Simulator(seed=seed, speed=10) as sim:
            for _ in range(60):
                await Agent(sim, http).imagine()
            return [job.seconds or 0 for job in sim.jobs.values()]

    first, again, other = await times(1), await times(1), await times(2)
    assert first == again != other
    assert 2.5 < statistics.median(first) < 3.5


async def test_a_prompt_may_ask_to_fail(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=0) as sim:
        agent = Agent(sim, http)
        answer = (await agent.fetch(await agent.imagine("fail please"))).json()
    assert (answer["task"]["status"], answer["images"]) == ("TASK_STATUS_FAILED", [])
    assert answer["task"]["reason"]


async def test_without_a_job_time_a_job_moves_only_when_the_test_says_so(agent: Agent) -> None:
    sim = agent.sim
    task_id = await agent.imagine()
    seen = [await agent.standing(task_id)]
    moves: list[Callable[[], None]] = [
        lambda: sim.process(task_id, 40, eta=12),
        lambda: sim.queue(task_id),
        lambda: sim.put(task_id, "TASK_STATUS_CANCELED"),
        lambda: sim.fail(task_id, "bad luck"),
        lambda: sim.finish(task_id, images=0),
    ]
    for move in moves:
        move()
        seen.append(await agent.standing(task_id))
    assert [status for status, _, _ in seen] == ["QUEUED", "PROCESSING", "QUEUED", "CANCELED", "FAILED", "SUCCEED"]
    assert seen[1] == ("PROCESSING", 40, 12)
    assert await agent.links(task_id) == []


async def test_ids_repeat_only_when_asked_to(http: httpx.AsyncClient) -> None:
    async def first(deterministic: bool) -> str:
        async with Simulator(job_seconds=None, deterministic_ids=deterministic) as sim:
            return await Agent(sim, http).imagine()

    assert await first(True) == await first(True)
    assert await first(False) != await first(False)


@pytest.mark.parametrize(("rule", "codes", "charges"), [("charge", [1, 1], 3), ("existing", [1, 21], 2)])
async def test_the_same_upscale_twice_is_charged_twice_or_names_the_old_task(
    http: httpx.AsyncClient, rule: Any, codes: list[int], charges: int
) -> None:
    async with Simulator(job_seconds=None, repeat_upscale=rule) as sim:
        agent = Agent(sim, http)
        body = {"content": f"{await agent.grid()} U1"}
        answers = [(await agent.post("simple-change", body)).json() for _ in range(2)]
        assert [answer["code"] for answer in answers] == codes
        assert (answers[0]["result"] == answers[1]["result"]) is (rule == "existing")
        assert len(sim.ledger) == charges


@pytest.mark.parametrize(("dialect", "code"), [("classic", 21), ("plus", 21), ("newapi", 1)])
async def test_the_flat_proxies_name_the_old_task_too(http: httpx.AsyncClient, dialect: Any, code: int) -> None:
    async with Simulator(dialect=dialect, job_seconds=None, image_edge=64, repeat_upscale="existing") as sim:
        agent = FlatAgent(sim, http, SECRET)
        grid, answers = await agent.grid(), []
        for _ in range(2):
            if dialect == "classic":
                answers.append(await agent.post("simple-change", {"content": f"{grid} U1"}))
            else:
                answers.append(await agent.press(grid, "MJ::JOB::upsample::1"))
        first, second = [answer.json() for answer in answers]
        assert (first["code"], second["code"], second["result"]) == (1, code, first["result"])
        assert len(sim.ledger) == 2
