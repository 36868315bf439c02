"""What classic (novicezk) answers, held to its documentation and source over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from simulators import BEARER, PNG, SECRET, Clock, FlatAgent, image

from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

DATA_URL = "data:image/png;base64,AAAA"


@pytest.fixture
async def classic(http: httpx.AsyncClient) -> AsyncIterator[FlatAgent]:
    async with Simulator(dialect="classic", job_seconds=None, image_edge=64) as sim:
        yield FlatAgent(sim, http, SECRET)


@pytest.mark.parametrize(
    ("header", "status"), [(SECRET, 200), (BEARER, 401), ({}, 401), ({"mj-api-secret": "wrong"}, 401)]
)
async def test_only_the_secret_opens_and_a_refusal_says_nothing(
    classic: FlatAgent, header: dict[str, str], status: int
) -> None:
    classic.header = header
    answers = [await classic.fetch("1"), await classic.post("imagine", {"prompt": "a cat"}), await classic.get("/mj/x")]
    assert [answer.status_code for answer in answers] == [status, status, 404 if status == 200 else 401]
    assert all(answer.content == b"" for answer in answers) is (status == 401)
    assert len(classic.sim.ledger) == (status == 200)


async def test_an_accepted_submit_names_the_task_and_the_instance(classic: FlatAgent) -> None:
    answer = await classic.post("imagine", {"prompt": "a cat", "state": "mine", "base64Array": [DATA_URL]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "code": 1,
        "description": "提交成功",
        "result": classic.sim.ledger[0].task_id,
        "properties": {"discordInstanceId": "1118138338562560102"},
    }
    assert classic.sim.ledger[0].body == {"prompt": "a cat", "state": "mine", "base64Array": [DATA_URL]}


async def test_an_unknown_task_is_an_empty_answer(classic: FlatAgent) -> None:
    answer = await classic.fetch("1")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_finished_task_is_flat_and_has_no_buttons(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(dialect="classic", job_seconds=100, image_edge=64, now=clock) as sim:
        classic = FlatAgent(sim, http, SECRET)
        await classic.post("imagine", {"prompt": "a cat", "state": "hello"})
        task_id = sim.ledger[0].task_id
        clock.time += 100
        task = await classic.task(task_id)
    assert task.pop("imageUrl").startswith(f"{sim.url}/pictures/{task_id}/0.png?sig=")
    assert task.pop("properties").keys() == {"discordInstanceId", "finalPrompt", "messageId", "messageHash"}
    assert task == {
        "id": task_id,
        "action": "IMAGINE",
        "status": "SUCCESS",
        "prompt": "a cat",
        "promptEn": "a cat",
        "description": "/imagine a cat",
        "state": "hello",
        "submitTime": 1_800_000_000_000,
        "startTime": 1_800_000_000_001,
        "finishTime": 1_800_000_100_000,
        "progress": "100%",
        "failReason": None,
    }


async def test_a_job_moves_through_every_status_with_the_clock(http: httpx.AsyncClient) -> None:
    clock, seen = Clock(), []
    async with Simulator(dialect="classic", job_seconds=100, image_edge=64, now=clock) as sim:
        classic = FlatAgent(sim, http, SECRET)
        task_id = await classic.imagine()
        for step in (0, 6, 4.5, 45, 45):
            clock.time += step
            task = await classic.task(task_id)
            seen.append((task["status"], task["progress"], task["imageUrl"] is not None))
    assert seen == [
        ("NOT_START", None, False),
        ("SUBMITTED", "0%", False),
        ("IN_PROGRESS", "Waiting to start", False),
        ("IN_PROGRESS", "50%", True),
        ("SUCCESS", "100%", True),
    ]


async def test_a_failed_task_has_a_reason_and_an_empty_progress(classic: FlatAgent) -> None:
    task_id = await classic.imagine()
    classic.sim.fail(task_id, "[Invalid parameter] Invalid value")
    task = await classic.task(task_id)
    assert (task["status"], task["progress"], task["failReason"], task["imageUrl"]) == (
        "FAILURE",
        "",
        "[Invalid parameter] Invalid value",
        None,
    )


async def test_any_status_can_be_shown(classic: FlatAgent) -> None:
    task_id, seen = await classic.imagine(), []
    for status in ("", "SUBMITTED", "MODAL", "CANCEL", "SOMETHING_NEW"):
        classic.sim.put(task_id, status)
        seen.append((await classic.task(task_id))["status"])
    assert seen == ["", "SUBMITTED", "MODAL", "CANCEL", "SOMETHING_NEW"]


async def test_the_newest_submit_is_listed_first_with_its_state(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(dialect="classic", job_seconds=None, image_edge=64, now=clock) as sim:
        classic = FlatAgent(sim, http, SECRET)
        for number in range(102):
            await classic.post("imagine", {"prompt": "a cat", "state": f"mark {number}"})
            clock.time += 1
        listed = (await classic.get("/mj/task/list")).json()
        assert [task["state"] for task in listed] == [f"mark {number}" for number in reversed(range(102))]
        ids = [sim.ledger[3].task_id, "unheard-of"]
        by_ids = await http.post(f"{sim.url}/mj/task/list-by-condition", json={"ids": ids}, headers=SECRET)
        assert [task["state"] for task in by_ids.json()] == ["mark 3"]


async def test_a_restart_forgets_everything(classic: FlatAgent) -> None:
    task_id = await classic.grid()
    classic.sim.restart_forgetting()
    assert (await classic.fetch(task_id)).content == b""
    assert (await classic.get("/mj/task/list")).json() == []
    answer = (await classic.post("change", {"taskId": task_id, "action": "REROLL"})).json()
    assert (answer["code"], answer["description"]) == (3, "关联任务不存在或已失效")


REFUSED: dict[str, tuple[str, Any, int]] = {
    "an empty prompt": ("imagine", {"prompt": " "}, 4),
    "a picture that is no data URL": ("imagine", {"prompt": "a cat", "base64Array": ["AAAA"]}, 4),
    "a banned word": ("imagine", {"prompt": "a forbiddenword"}, 24),
    "an unknown parent": ("change", {"taskId": "9", "action": "UPSCALE", "index": 1}, 3),
    "no parent": ("change", {"action": "UPSCALE", "index": 1}, 4),
    "an action of no follow-up": ("change", {"taskId": "GRID", "action": "BLEND", "index": 1}, 4),
    "an open parent": ("change", {"taskId": "OPEN", "action": "UPSCALE", "index": 1}, 4),
    "an upscaled parent": ("change", {"taskId": "SINGLE", "action": "REROLL"}, 4),
    "a shorthand that is none": ("simple-change", {"content": "GRID W1"}, 4),
    "a description of nothing": ("describe", {}, 4),
    "a blend of one": ("blend", {"base64Array": [DATA_URL], "dimensions": "SQUARE"}, 4),
    "a blend of no shape": ("blend", {"base64Array": [DATA_URL] * 2}, 4),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_has_a_code_no_result_and_no_charge(classic: FlatAgent, case: str) -> None:
    endpoint, body, code = REFUSED[case]
    tasks = {"OPEN": await classic.imagine(), "GRID": await classic.grid()}
    tasks["SINGLE"] = await classic.submit("simple-change", {"content": f"{tasks['GRID']} u1"})
    classic.sim.finish(tasks["SINGLE"])
    body = {name: tasks.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    charged = len(classic.sim.ledger)
    answer = await classic.post(endpoint, body)
    assert (answer.status_code, answer.json()["code"], answer.json()["result"]) == (200, code, None)
    assert len(classic.sim.ledger) == charged


async def test_a_banned_word_is_named(classic: FlatAgent) -> None:
    answer = (await classic.post("imagine", {"prompt": "a forbiddenword"})).json()
    assert answer["properties"] == {"promptEn": "a forbiddenword", "bannedWord": "forbiddenword"}


@pytest.mark.parametrize(
    ("endpoint", "body", "status"),
    [
        ("change", {"taskId": "GRID", "action": "UPSCALE"}, 500),
        ("change", {"taskId": "GRID", "action": "DANCE"}, 400),
        ("imagine", [], 400),
        ("action", {}, 404),
        ("shorten", {}, 404),
    ],
)
async def test_what_its_framework_refuses_is_an_error_page_in_json(
    classic: FlatAgent, endpoint: str, body: Any, status: int
) -> None:
    grid = await classic.grid()
    answer = await classic.post(endpoint, body | {"taskId": grid} if "taskId" in body else body)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["path"] == f"/mj/submit/{endpoint}"
    assert len(classic.sim.ledger) == 1


async def test_a_reroll_may_have_an_index_and_an_upscale_needs_one(classic: FlatAgent) -> None:
    grid = await classic.grid()
    reroll = await classic.submit("change", {"taskId": grid, "action": "REROLL", "index": 1, "state": "r"})
    upscale = await classic.submit("change", {"taskId": grid, "action": "UPSCALE", "index": 3, "state": "u"})
    short = await classic.submit("simple-change", {"content": f"{grid} V4", "state": "v"})
    assert [(job.action, job.index, job.state, job.description) for job in classic.sim.jobs.values()][1:] == [
        ("REROLL", None, "r", f"/up {grid} R"),
        ("UPSCALE", 3, "u", f"/up {grid} U3"),
        ("VARIATION", 4, "v", f"/up {grid} V4"),
    ]
    assert len({grid, reroll, upscale, short}) == 4


async def test_a_described_picture_gives_prompts_and_a_blend_gives_a_grid(classic: FlatAgent) -> None:
    described = await classic.submit("describe", {"base64": DATA_URL})
    blended = await classic.submit("blend", {"base64Array": [DATA_URL] * 2, "dimensions": "SQUARE"})
    classic.sim.finish(described)
    classic.sim.finish(blended)
    first, second = await classic.task(described), await classic.task(blended)
    assert first["action"] == "DESCRIBE"
    assert first["properties"]["finalPrompt"].count("--ar") == 4
    assert second["action"] == "BLEND"
    assert image((await classic.http.get(second["imageUrl"])).content).size == (128, 128)


async def test_a_preview_dies_with_its_job_and_is_counted(classic: FlatAgent) -> None:
    task_id = await classic.imagine()
    classic.sim.process(task_id, 45)
    preview = (await classic.task(task_id))["imageUrl"]
    alive = await classic.http.get(preview)
    classic.sim.finish(task_id)
    dead = await classic.http.get(preview)
    assert alive.content.startswith(PNG)
    assert dead.status_code == 404
    assert classic.sim.fired == {"preview_fetched": 2}


FAMILY = {
    "queue_full": (faults.queue_full(23), 23, None, 0),
    "banned_word": (faults.banned_word(), 24, None, 0),
    "no_account": (faults.no_account(), 3, None, 0),
    "queued": (faults.queued(3), 22, "the id", 1),
    "already": (faults.already("123"), 21, "123", 0),
}


@pytest.mark.parametrize("name", FAMILY)
async def test_the_family_s_other_answers_can_be_injected(classic: FlatAgent, name: str) -> None:
    fault, code, result, charged = FAMILY[name]
    classic.sim.inject("imagine", fault)
    answer = (await classic.post("imagine", {"prompt": "a cat"})).json()
    wanted = classic.sim.ledger[0].task_id if result == "the id" else result
    assert (answer["code"], answer["result"], len(classic.sim.ledger)) == (code, wanted, charged)
    assert classic.sim.fired == {name: 1}


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (faults.backwards(), {"status": "IN_PROGRESS", "imageUrl": None}),
        (faults.status_text("WHATEVER"), {"status": "WHATEVER"}),
        (faults.images_null(), {"status": "SUCCESS", "imageUrl": None}),
        (faults.images_missing(), {"status": "SUCCESS", "imageUrl": "missing"}),
        (faults.progress_text("Waiting to start"), {"progress": "Waiting to start"}),
    ],
    ids=lambda value: value.name if isinstance(value, faults.Fault) else "",
)
async def test_a_fetch_is_spoiled_in_the_shape_of_the_dialect(
    classic: FlatAgent, fault: faults.Fault, shown: dict[str, Any]
) -> None:
    task_id = await classic.grid()
    classic.sim.inject("fetch", fault)
    task = await classic.task(task_id)
    assert {name: task.get(name, "missing") for name in shown} == shown
    assert classic.sim.fired == {fault.name: 1}
