"""What plus (trueai-org) answers, held to its documentation and source over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from simulators import BEARER, SECRET, Clock, FlatAgent

from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

DATA_URL = "data:image/png;base64,AAAA"
PROPERTIES = {"discordInstanceId": "1118138338562560102", "discordChannelId": "1118138338562560102"}


@pytest.fixture
async def plus(http: httpx.AsyncClient) -> AsyncIterator[FlatAgent]:
    async with Simulator(dialect="plus", job_seconds=None, image_edge=64) as sim:
        yield FlatAgent(sim, http, SECRET)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (SECRET, 204),
        ({"Authorization": "test-key"}, 204),
        (BEARER, 401),
        (BEARER | SECRET, 401),
        ({"mj-api-secret": "wrong"}, 401),
        ({}, 401),
    ],
)
async def test_an_authorization_header_wins_over_the_secret_and_bears_no_bearer(
    plus: FlatAgent, header: dict[str, str], status: int
) -> None:
    plus.header = header
    answer = await plus.fetch("1")
    assert (answer.status_code, answer.text) == (status, "Authorization header missing." if status == 401 else "")
    assert ((await plus.post("imagine", {"prompt": "a cat"})).status_code == 200) is (status == 204)


async def test_where_guests_are_let_in_a_wrong_key_is_a_guest(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="plus", guests=True, job_seconds=None) as sim:
        for header in (SECRET, BEARER, {}, BEARER | SECRET):
            assert (await FlatAgent(sim, http, header).post("imagine", {"prompt": "a cat"})).json()["code"] == 1
        assert sim.guests == 3


async def test_an_accepted_submit_names_the_task_and_where_it_runs(plus: FlatAgent) -> None:
    answer = await plus.post("imagine", {"prompt": "a cat", "state": "mine", "base64Array": [DATA_URL]})
    task_id = plus.sim.ledger[0].task_id
    assert answer.json() == {"code": 1, "description": "提交成功", "result": task_id, "properties": PROPERTIES}
    assert plus.sim.ledger[0].body["base64Array"] == [DATA_URL]


async def test_an_unknown_task_has_no_content(plus: FlatAgent) -> None:
    answer = await plus.fetch("1")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("endpoint", ["change", "simple-change", "nothing"])
async def test_what_it_does_not_have_is_not_found_without_a_word(plus: FlatAgent, endpoint: str) -> None:
    answer = await plus.post(endpoint, {"taskId": await plus.grid(), "action": "REROLL"})
    assert (answer.status_code, answer.content) == (404, b"")


async def test_a_finished_grid_is_flat_with_buttons_and_without_a_list_of_links(plus: FlatAgent) -> None:
    task = await plus.task(await plus.grid())
    message = task["jobId"]
    assert task["imageUrl"].startswith(f"{plus.sim.url}/pictures/{task['id']}/0.png?")
    assert {name: task[name] for name in ("action", "status", "progress", "parentId", "botType", "mode")} == {
        "action": "IMAGINE",
        "status": "SUCCESS",
        "progress": "100%",
        "parentId": None,
        "botType": "MID_JOURNEY",
        "mode": "FAST",
    }
    assert (task["imageUrls"], task["videoUrl"], task["videoUrls"]) == (None, None, None)
    assert task["buttons"][:5] == [
        *(
            {
                "customId": f"MJ::JOB::upsample::{number}::{message}",
                "emoji": "",
                "label": f"U{number}",
                "style": 2,
                "type": 2,
            }
            for number in range(1, 5)
        ),
        {"customId": f"MJ::JOB::reroll::0::{message}::SOLO", "emoji": "🔄", "label": "", "style": 2, "type": 2},
    ]
    assert [button["label"] for button in task["buttons"][5:]] == ["V1", "V2", "V3", "V4"]


async def test_an_upscaled_picture_offers_what_is_done_to_one_picture(plus: FlatAgent) -> None:
    task = await plus.task(await plus.upscale())
    assert [(button["label"] or button["emoji"]) for button in task["buttons"]] == [
        "Upscale (Subtle)",
        "Upscale (Creative)",
        "Vary (Subtle)",
        "Vary (Strong)",
        "Vary (Region)",
        "Zoom Out 2x",
        "Zoom Out 1.5x",
        "Custom Zoom",
        "⬅️",
        "➡️",
        "⬆️",
        "⬇️",
        "Animate (High motion)",
        "Animate (Low motion)",
        "🔄",
    ]
    assert task["buttons"][0]["customId"] == f"MJ::JOB::upsample_v7_2x_subtle::1::{task['jobId']}::SOLO"
    assert task["buttons"][7]["customId"] == f"MJ::CustomZoom::{task['jobId']}"
    assert (task["action"], task["parentId"] in plus.sim.jobs) == ("UPSCALE", True)


@pytest.mark.parametrize("by", ["prompt", "model"])
async def test_a_grid_of_version_8_can_only_be_varied_and_rerolled(http: httpx.AsyncClient, by: str) -> None:
    model, prompt = ("8.2", "a cat") if by == "model" else ("7", "a cat --v 8")
    async with Simulator(dialect="plus", model=model, job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        task = await plus.task(await plus.grid(prompt))
    assert [button["label"] for button in task["buttons"]] == ["", "V1", "V2", "V3", "V4"]


PRESSED = {
    "MJ::JOB::upsample_v7_2x_creative::1": ("UPSCALE_HD", 1),
    "MJ::JOB::low_variation::1": ("VARIATION", 4),
    "MJ::JOB::high_variation::1": ("VARIATION", 4),
    "MJ::Outpaint::75::1": ("ZOOM", 4),
    "MJ::JOB::pan_up::1": ("PAN", 4),
    "MJ::JOB::reroll::0": ("IMAGINE", 4),
}


@pytest.mark.parametrize("name", PRESSED)
async def test_a_button_starts_its_job_once(plus: FlatAgent, name: str) -> None:
    parent = await plus.upscale()
    answer = (await plus.press(parent, name, state="s")).json()
    assert (answer["code"], answer["properties"]) == (1, PROPERTIES)
    job = plus.sim.jobs[answer["result"]]
    assert (job.action, job.images, job.parent_id, job.state) == (*PRESSED[name], parent, "s")
    assert [charge.endpoint for charge in plus.sim.ledger] == ["imagine", "action", "action"]


async def test_an_animation_has_links_of_videos(plus: FlatAgent) -> None:
    task_id = (await plus.press(await plus.upscale(), "MJ::JOB::animate_high::1")).json()["result"]
    plus.sim.finish(task_id)
    task = await plus.task(task_id)
    video = await plus.http.get(task["videoUrl"])
    assert (video.headers["content-type"], video.content[4:8]) == ("video/mp4", b"ftyp")
    assert task["action"] == "VIDEO"
    assert len(task["imageUrls"]) == len(task["videoUrls"]) == 4
    assert all(".mp4?" in item["url"] for item in task["imageUrls"])


async def test_a_custom_zoom_waits_for_its_window_and_is_paid_when_that_is_sent(plus: FlatAgent) -> None:
    answer = (await plus.press(await plus.upscale(), "MJ::CustomZoom")).json()
    task_id, charged = answer["result"], len(plus.sim.ledger)
    assert answer == {
        "code": 21,
        "description": "Waiting for window confirm",
        "result": task_id,
        "properties": {"finalPrompt": "a red mug", "remix": True},
    }
    waiting = await plus.task(task_id)
    assert (waiting["status"], waiting["progress"], waiting["action"], charged) == ("MODAL", None, "ZOOM", 2)
    sent = (await plus.post("modal", {"taskId": task_id, "prompt": "a red mug --zoom 1.4"})).json()
    assert sent == {"code": 1, "description": "提交成功", "result": task_id, "properties": PROPERTIES}
    started = await plus.task(task_id)
    assert (started["status"], started["prompt"]) == ("NOT_START", "a red mug --zoom 1.4")
    assert (plus.sim.ledger[-1].endpoint, plus.sim.ledger[-1].task_id, len(plus.sim.ledger)) == ("modal", task_id, 3)


async def test_with_remix_a_variation_asks_too_and_a_window_without_a_prompt_keeps_the_parents(
    http: httpx.AsyncClient,
) -> None:
    async with Simulator(dialect="plus", remix=True, job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        grid = await plus.grid()
        select = (await plus.press(grid, "MJ::JOB::upsample::1")).json()
        varied = (await plus.press(grid, "MJ::JOB::variation::1")).json()
        assert (select["code"], varied["code"]) == (1, 21)
        assert (await plus.post("modal", {"taskId": varied["result"]})).json()["code"] == 1
        assert (await plus.task(varied["result"]))["prompt"] == "a red mug"


async def test_a_replaced_message_has_the_same_buttons_under_other_ids(plus: FlatAgent) -> None:
    grid = await plus.grid()
    old = await plus.custom_id(grid, "MJ::JOB::variation::1")
    plus.sim.renew_buttons(grid)
    stale = (await plus.post("action", {"taskId": grid, "customId": old})).json()
    assert (stale["code"], stale["description"], stale["result"]) == (4, "按钮不存在或已失效", None)
    assert await plus.custom_id(grid, "MJ::JOB::variation::1") != old
    assert (await plus.press(grid, "MJ::JOB::variation::1")).json()["code"] == 1


async def test_with_changing_buttons_only_those_of_the_latest_fetch_work(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="plus", changing_buttons=True, job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        grid = await plus.grid()
        first, second = [await plus.custom_id(grid, "MJ::JOB::variation::1") for _ in range(2)]
        codes = [
            (await plus.post("action", {"taskId": grid, "customId": custom_id})).json()["code"]
            for custom_id in (first, second)
        ]
        assert codes == [4, 1]


async def test_the_same_button_is_a_duplicate_whatever_its_id_and_mark_are(plus: FlatAgent) -> None:
    grid = await plus.grid()
    for state in ("one", "two"):
        await plus.press(grid, "MJ::JOB::variation::1", state=state)
        plus.sim.renew_buttons(grid)
    await plus.press(grid, "MJ::JOB::variation::2", state="one")
    assert plus.sim.duplicates() == [plus.sim.ledger[2]]


REFUSED: dict[str, tuple[str, Any, int, int]] = {
    "no prompt": ("imagine", {}, 200, 4),
    "a picture that is no data URL": ("imagine", {"prompt": "a cat", "base64Array": ["AAAA"]}, 200, 4),
    "a state that is too long": ("imagine", {"prompt": "a cat", "state": "x" * 256}, 200, 4),
    "no button": ("action", {"taskId": "GRID"}, 200, 4),
    "a button that no picture has": ("action", {"taskId": "GRID", "customId": "PRESS"}, 200, 4),
    "a button of another picture": ("action", {"taskId": "GRID", "customId": "MJ::CustomZoom::1"}, 200, 4),
    "an unknown parent": ("action", {"taskId": "9", "customId": "MJ::CustomZoom::1"}, 404, 3),
    "an open parent": ("action", {"taskId": "OPEN", "customId": "MJ::CustomZoom::1"}, 200, 4),
    "a window of nothing": ("modal", {}, 200, 4),
    "a window of an unknown task": ("modal", {"taskId": "9"}, 404, 3),
    "a description of nothing": ("describe", {}, 200, 4),
    "a blend of one": ("blend", {"base64Array": [DATA_URL], "dimensions": "SQUARE"}, 200, 4),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_has_a_code_no_result_and_no_charge(plus: FlatAgent, case: str) -> None:
    endpoint, body, status, code = REFUSED[case]
    tasks = {"OPEN": await plus.imagine(), "GRID": await plus.grid()}
    body = {name: tasks.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    answer = await plus.post(endpoint, body)
    assert (answer.status_code, answer.json()["code"], answer.json()["result"]) == (status, code, None)
    assert len(plus.sim.ledger) == 2


async def test_a_banned_word_is_accepted_charged_and_fails_later(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(dialect="plus", job_seconds=100, now=clock) as sim:
        plus = FlatAgent(sim, http, SECRET)
        task_id = await plus.imagine("a forbiddenword")
        clock.time += 100
        task = await plus.task(task_id)
    assert (task["status"], task["failReason"], task["progress"]) == ("FAILURE", "Banned prompt detected", "")
    assert len(sim.ledger) == 1


async def test_the_list_holds_the_newest_hundred_with_their_state(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(dialect="plus", job_seconds=None, now=clock) as sim:
        plus = FlatAgent(sim, http, SECRET)
        for number in range(102):
            await plus.post("imagine", {"prompt": "a cat", "state": f"mark {number}"})
            clock.time += 1
        listed = (await plus.get("/mj/task/list")).json()
    assert [task["state"] for task in listed] == [f"mark {number}" for number in range(101, 1, -1)]


async def test_cancelling_only_marks_the_task(plus: FlatAgent) -> None:
    task_id = await plus.imagine()
    answer = await plus.http.post(f"{plus.sim.url}/mj/task/{task_id}/cancel", headers=SECRET)
    task = await plus.task(task_id)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (task["status"], task["failReason"], len(plus.sim.ledger)) == ("FAILURE", "取消任务", 1)


async def test_the_speed_may_stand_in_the_path(plus: FlatAgent) -> None:
    url = f"{plus.sim.url}/mj-relax/mj"
    task_id = (await plus.http.post(f"{url}/submit/imagine", json={"prompt": "a cat"}, headers=SECRET)).json()["result"]
    assert (await plus.http.get(f"{url}/task/{task_id}/fetch", headers=SECRET)).json()["id"] == task_id
    assert [len(plus.sim.submits()), len(plus.sim.polls(task_id))] == [1, 1]


async def test_a_shortened_prompt_gives_prompts_and_no_picture(plus: FlatAgent) -> None:
    task_id = await plus.submit("shorten", {"prompt": "a very long prompt about a cat"})
    described = await plus.submit("describe", {"link": "https://example.com/cat.png"})
    plus.sim.finish(task_id)
    plus.sim.finish(described)
    task = await plus.task(task_id)
    assert (task["status"], task["action"], task["imageUrl"], task["buttons"]) == ("SUCCESS", "SHORTEN", None, [])
    assert task["properties"]["finalPrompt"].count("\n\n") == 4
    assert "/1.png?" in (await plus.task(described))["imageUrl"]


async def test_a_queue_that_is_full_has_code_9(plus: FlatAgent) -> None:
    plus.sim.inject("submit", faults.queue_full(9))
    plus.sim.inject("submit", faults.unknown_parent())
    full = (await plus.post("imagine", {"prompt": "a cat"})).json()
    gone = await plus.post("imagine", {"prompt": "a cat"})
    assert (full["code"], full["result"]) == (9, None)
    assert (gone.status_code, gone.json()["code"]) == (404, 3)
    assert plus.sim.fired == {"queue_full": 1, "unknown_parent": 1}
    assert plus.sim.ledger == []
