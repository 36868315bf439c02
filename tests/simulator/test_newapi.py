"""What newapi (QuantumNous) answers in front of a plus, held to its source over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args

import httpx
import pytest
from simulators import BEARER, PNG, SECRET, Clock, FlatAgent

from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio


@pytest.fixture
async def relay(http: httpx.AsyncClient) -> AsyncIterator[FlatAgent]:
    async with Simulator(dialect="newapi", job_seconds=None, image_edge=64) as sim:
        yield FlatAgent(sim, http, BEARER)


def refused(description: str, code: int = 4) -> dict[str, Any]:
    return {"description": f"{description} ", "type": "upstream_error", "code": code}


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (BEARER, True),
        (SECRET, True),
        ({"Authorization": "Bearer sk-test-key"}, True),
        ({"Authorization": "midjourney-proxy"} | SECRET, True),
        ({"Authorization": "Bearer wrong"} | SECRET, False),
        ({}, False),
    ],
)
async def test_both_header_forms_open_and_a_refusal_is_json(
    relay: FlatAgent, header: dict[str, str], known: bool
) -> None:
    relay.header = header
    answer = await relay.fetch("1")
    if known:
        assert (answer.status_code, answer.json()) == (400, refused("task_no_found"))
        return
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (401, "new_api_error", "")
    assert error["message"].startswith("Invalid token (request id: ")
    assert (await relay.post("imagine", {"prompt": "a cat"})).status_code == 401


async def test_the_upstreams_answer_is_handed_on_without_its_type(relay: FlatAgent) -> None:
    answer = await relay.post("imagine", {"prompt": "a cat", "state": "mine"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.json() == {
        "code": 1,
        "description": "提交成功",
        "result": relay.sim.ledger[0].task_id,
        "properties": {"discordInstanceId": "1118138338562560102", "discordChannelId": "1118138338562560102"},
    }


async def test_a_task_begins_without_a_status_and_ends_with_buttons(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(dialect="newapi", job_seconds=100, image_edge=64, now=clock) as sim:
        relay = FlatAgent(sim, http, BEARER)
        await relay.post("imagine", {"prompt": "a cat", "state": "mine"})
        task_id = sim.ledger[0].task_id
        first = await relay.task(task_id)
        clock.time += 100
        last = await relay.task(task_id)
    assert first == {
        "id": task_id,
        "action": "IMAGINE",
        "customId": "",
        "botType": "",
        "prompt": "a cat",
        "promptEn": "",
        "description": "提交成功",
        "state": "",
        "submitTime": 1_800_000_000_000,
        "startTime": 0,
        "finishTime": 0,
        "imageUrl": "",
        "videoUrl": "",
        "videoUrls": None,
        "status": "",
        "progress": "0%",
        "failReason": "",
        "buttons": None,
        "maskBase64": "",
        "properties": None,
    }
    assert last.keys() == first.keys()
    assert (last["status"], last["progress"], last["state"], len(last["buttons"])) == ("SUCCESS", "100%", "mine", 9)
    assert last["imageUrl"] == f"{sim.url}/mj/image/{task_id}"
    assert last["properties"] == {"finalPrompt": "a cat", "finalZhPrompt": ""}


async def test_the_table_is_refreshed_now_and_then(http: httpx.AsyncClient) -> None:
    clock, seen = Clock(), []
    async with Simulator(dialect="newapi", job_seconds=100, refresh_seconds=15, now=clock) as sim:
        relay = FlatAgent(sim, http, BEARER)
        await relay.fetch("1")
        task_id = await relay.imagine()
        for step in (14, 1, 14, 1, 74, 15):
            clock.time += step
            task = await relay.task(task_id)
            seen.append((task["status"], task["progress"]))
    assert seen == [
        ("", "0%"),
        ("IN_PROGRESS", "5%"),
        ("IN_PROGRESS", "5%"),
        ("IN_PROGRESS", "22%"),
        ("SUCCESS", "100%"),
        ("SUCCESS", "100%"),
    ]


async def test_a_failure_is_a_hundred_per_cent(relay: FlatAgent) -> None:
    task_id = await relay.imagine()
    relay.sim.fail(task_id, "Banned prompt detected")
    task = await relay.task(task_id)
    assert (task["status"], task["progress"], task["failReason"]) == ("FAILURE", "100%", "Banned prompt detected")


@pytest.mark.parametrize("local", [False, True])
async def test_pictures_are_relayed_without_a_key_under_an_address_that_may_be_wrong(
    http: httpx.AsyncClient, local: bool
) -> None:
    async with Simulator(dialect="newapi", localhost_links=local, job_seconds=None, image_edge=64) as sim:
        relay = FlatAgent(sim, http, BEARER)
        task_id = await relay.imagine()
        sim.process(task_id, 45)
        preview = (await relay.task(task_id))["imageUrl"]
        origin = "http://localhost:3000" if local else sim.url
        assert preview.startswith(f"{origin}/mj/image/{task_id}?rand=")
        await http.get(f"{sim.url}/mj/image/{task_id}?rand=1")
        sim.finish(task_id)
        assert (await relay.task(task_id))["imageUrl"] == f"{origin}/mj/image/{task_id}"
        assert (await http.get(f"{sim.url}/mj/image/{task_id}")).content.startswith(PNG)
        missing = await http.get(f"{sim.url}/mj/image/1")
        assert (missing.status_code, missing.json()) == (400, {"error": "midjourney_task_not_found"})
        assert sim.fired == {"preview_fetched": 1}


@pytest.mark.parametrize(
    ("endpoint", "body", "description"),
    [
        ("imagine", {}, "prompt_is_required"),
        ("change", {"taskId": "GRID", "action": "REROLL"}, "index_is_required"),
        ("change", {"taskId": "9", "action": "UPSCALE", "index": 1}, "task_not_found"),
        ("action", {"taskId": "9", "customId": "MJ::JOB::upsample::1::x"}, "task_not_found"),
        ("action", {"taskId": "OPEN", "customId": "MJ::JOB::upsample::1::x"}, "task_status_not_success"),
        ("modal", {"taskId": "9"}, "task_not_found"),
    ],
)
async def test_its_own_refusals_have_no_result(
    relay: FlatAgent, endpoint: str, body: dict[str, Any], description: str
) -> None:
    tasks = {"OPEN": await relay.imagine(), "GRID": await relay.grid()}
    body = {name: tasks.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    answer = await relay.post(endpoint, body)
    assert (answer.status_code, answer.json()) == (400, refused(description))
    assert len(relay.sim.ledger) == 2


async def test_the_upstream_s_refusals_are_handed_on(relay: FlatAgent) -> None:
    grid = await relay.grid()
    no_change = await relay.post("change", {"taskId": grid, "action": "UPSCALE", "index": 1})
    stale = await relay.post("action", {"taskId": grid, "customId": "MJ::JOB::upsample::1::x"})
    assert (no_change.status_code, no_change.content) == (404, b"")
    assert (stale.status_code, stale.json()["code"], stale.json()["result"]) == (200, 4, None)


async def test_a_shorthand_finds_no_channel(relay: FlatAgent) -> None:
    answer = await relay.post("simple-change", {"content": f"{await relay.grid()} U1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (503, "model_not_found", "new_api_error")
    assert error["message"].startswith("No available channel for model mj_ under group default")
    assert len(relay.sim.ledger) == 1


@pytest.mark.parametrize("name", ["MJ::JOB::animate_high::1", "MJ::JOB::animate_low::1"])
async def test_an_animation_is_an_unknown_action(relay: FlatAgent, name: str) -> None:
    upscale = await relay.upscale()
    answer = await relay.press(upscale, name)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "new_api_error")
    assert error["message"].startswith(f"Invalid request: unknown_action:{name}::")
    assert len(relay.sim.ledger) == 2


PRESSED = {
    "MJ::JOB::upsample_v7_2x_subtle::1": "UPSCALE",
    "MJ::JOB::low_variation::1": "LOW_VARIATION",
    "MJ::JOB::high_variation::1": "HIGH_VARIATION",
    "MJ::Outpaint::50::1": "ZOOM",
    "MJ::JOB::pan_left::1": "PAN",
    "MJ::JOB::reroll::0": "REROLL",
}


@pytest.mark.parametrize("name", PRESSED)
async def test_a_button_is_handed_on_under_the_relays_own_name(relay: FlatAgent, name: str) -> None:
    answer = (await relay.press(await relay.upscale(), name)).json()
    task = await relay.task(answer["result"])
    assert (answer["code"], task["action"], task["prompt"]) == (1, PRESSED[name], "a red mug")


@pytest.mark.parametrize("name", ["MJ::CustomZoom", "MJ::Inpaint::1"])
async def test_a_window_keeps_its_code_and_goes_on_under_the_same_id(relay: FlatAgent, name: str) -> None:
    answer = (await relay.press(await relay.upscale(), name)).json()
    assert (answer["code"], len(relay.sim.ledger)) == (21, 2)
    assert (await relay.task(answer["result"]))["status"] == "MODAL"
    sent = (await relay.post("modal", {"taskId": answer["result"], "prompt": "a mug --zoom 2"})).json()
    assert (sent["code"], sent["result"], relay.sim.ledger[-1].endpoint) == (1, answer["result"], "modal")
    relay.sim.finish(sent["result"])
    assert (await relay.task(sent["result"]))["promptEn"] == "a mug --zoom 2"


async def test_another_window_s_code_is_rewritten_and_its_task_waits(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="newapi", remix=True, job_seconds=None, image_edge=64) as sim:
        relay = FlatAgent(sim, http, BEARER)
        answer = (await relay.press(await relay.grid(), "MJ::JOB::variation::1")).json()
        assert (answer["code"], answer["properties"]["remix"], len(sim.ledger)) == (1, True, 1)
        assert (await relay.task(answer["result"]))["status"] == "MODAL"


async def test_it_lists_nothing_but_shows_its_web_page_to_anybody(relay: FlatAgent) -> None:
    relay.header = {}
    answer = await relay.get("/mj/task/list")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


async def test_tasks_can_be_fetched_by_their_ids(relay: FlatAgent) -> None:
    task_id = await relay.imagine()
    url = f"{relay.sim.url}/mj/task/list-by-condition"
    answer = await relay.http.post(url, json={"ids": ["9", task_id]}, headers=BEARER)
    assert [task["id"] for task in answer.json()] == [task_id]


@pytest.mark.parametrize("why", get_args(faults.Lost))
async def test_a_lost_answer_of_the_upstream_is_a_job_that_exists_and_is_charged(
    relay: FlatAgent, why: faults.Lost
) -> None:
    relay.sim.inject("imagine", faults.lost_upstream(why))
    answer = await relay.post("imagine", {"prompt": "a cat"})
    code = 4 if why == "insert_midjourney_task_failed" else 5
    assert (answer.status_code, answer.json()) == (400, refused(why, code))
    assert (len(relay.sim.ledger), relay.sim.fired) == (1, {why: 1})


async def test_an_upstream_that_was_never_reached_made_no_job(relay: FlatAgent) -> None:
    relay.sim.inject("imagine", faults.lost_upstream(accept=False))
    assert (await relay.post("imagine", {"prompt": "a cat"})).json() == refused("do_request_failed", 5)
    assert relay.sim.ledger == []


async def test_no_money_and_too_many_customers_are_refused(relay: FlatAgent) -> None:
    relay.sim.inject("imagine", faults.quota_not_enough())
    relay.sim.inject("imagine", faults.saturated())
    poor, late = [await relay.post("imagine", {"prompt": "a cat"}) for _ in range(2)]
    assert (poor.status_code, poor.json()) == (400, refused("quota_not_enough"))
    assert (late.status_code, late.json()["code"], "result" in late.json()) == (429, 30, False)
    assert (relay.sim.ledger, relay.sim.fired) == ([], {"quota_not_enough": 1, "saturated": 1})


async def test_a_queued_job_is_accepted_under_code_1(relay: FlatAgent) -> None:
    relay.sim.inject("imagine", faults.queued(number=1))
    answer = (await relay.post("imagine", {"prompt": "a cat"})).json()
    assert (answer["code"], answer["properties"]["numberOfQueues"]) == (1, 1)
    assert answer["result"] == relay.sim.ledger[0].task_id
