"""The simulator is what every other test trusts: it is held here, over real HTTP, to the specification's words."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from simulators import BEARER, PNG, Agent

import mj_mcp.simulator
from mj_mcp.simulator import Charge, Simulator, faults

pytestmark = pytest.mark.anyio


# --- the specification


async def test_a_submit_answers_a_numeric_id_of_sixteen_digits(agent: Agent) -> None:
    answer = (await agent.post("imagine", {"prompt": "a red mug"})).json()
    assert answer == {"code": 1, "description": "提交成功", "result": agent.sim.ledger[0].task_id}
    assert len(answer["result"]) == 16
    assert answer["result"].isdecimal()


async def test_a_finished_grid_has_exactly_the_documented_shape(agent: Agent) -> None:
    task_id = await agent.grid()
    answer = (await agent.fetch(task_id)).json()
    links = [item.pop("image_url") for item in answer["images"]]
    assert answer == {
        "extra": {"has_nsfw_contents": []},
        "task": {
            "task_id": task_id,
            "task_type": "MIDJOURNEY_TEXT_TO_IMAGE_FAST_MODE",
            "status": "TASK_STATUS_SUCCEED",
            "reason": "",
            "eta": 0,
            "progress_percent": 0,
        },
        "images": [{"image_url_ttl": "0", "image_type": "png", "nsfw_detection_result": None}] * 4,
        "videos": [],
        "audios": [],
    }
    assert len(set(links)) == 4
    assert all(link.startswith(f"{agent.sim.url}/pictures/{task_id}/") for link in links)


@pytest.mark.parametrize("shortened", [False, True], ids=["change", "simple-change"])
async def test_changes_make_new_tasks_whose_pictures_follow_from_the_parent(agent: Agent, shortened: bool) -> None:
    parent = await agent.grid()

    async def change(action: str, letter: str, index: int | None) -> str:
        body = {"taskId": parent, "action": action} | ({} if index is None else {"index": index})
        short = {"content": f"{parent} {letter}{index or ''}"}
        task_id = await (agent.submit("simple-change", short) if shortened else agent.submit("change", body))
        agent.sim.finish(task_id)
        return task_id

    upscale, variation = await change("UPSCALE", "U", 2), await change("VARIATION", "V", 2)
    reroll = await change("REROLL", "R", None)
    assert [len(await agent.links(task_id)) for task_id in (upscale, variation, reroll)] == [1, 4, 4]
    assert len({parent, upscale, variation, reroll}) == 4
    jobs = agent.sim.jobs
    assert [(jobs[i].action, jobs[i].parent_id, jobs[i].index) for i in (upscale, variation, reroll)] == [
        ("UPSCALE", parent, 2),
        ("VARIATION", parent, 2),
        ("REROLL", parent, None),
    ]


REFUSED: dict[str, tuple[str, Any, int]] = {
    "no prompt": ("imagine", {}, 4),
    "an empty prompt": ("imagine", {"prompt": "  "}, 4),
    "a prompt that is no text": ("imagine", {"prompt": 1}, 4),
    "a prompt beyond the limit": ("imagine", {"prompt": "x" * 8193}, 4),
    "an undocumented field": ("imagine", {"prompt": "mug", "state": "x"}, 4),
    "a list for a body": ("imagine", ["mug"], 4),
    "a banned word": ("imagine", {"prompt": "a ForbiddenWord"}, 24),
    "an unknown parent": ("change", {"taskId": "9", "action": "UPSCALE", "index": 1}, 3),
    "an unknown parent in short": ("simple-change", {"content": "9 U1"}, 3),
    "an open parent": ("change", {"taskId": "OPEN", "action": "UPSCALE", "index": 1}, 4),
    "no index": ("change", {"taskId": "GRID", "action": "UPSCALE"}, 4),
    "index 0": ("change", {"taskId": "GRID", "action": "VARIATION", "index": 0}, 4),
    "index 5": ("change", {"taskId": "GRID", "action": "VARIATION", "index": 5}, 4),
    "index as text": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": "1"}, 4),
    "index as truth": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": True}, 4),
    "index as a float": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": 1.0}, 4),
    "a reroll with an index": ("change", {"taskId": "GRID", "action": "REROLL", "index": 1}, 4),
    "a reroll with a null index": ("change", {"taskId": "GRID", "action": "REROLL", "index": None}, 4),
    "an unknown action": ("change", {"taskId": "GRID", "action": "upscale", "index": 1}, 4),
    "an id that is no text": ("change", {"taskId": 7, "action": "UPSCALE", "index": 1}, 4),
    "an upscale of an upscale": ("change", {"taskId": "SINGLE", "action": "UPSCALE", "index": 1}, 4),
    "the fourth of two pictures": ("change", {"taskId": "PAIR", "action": "UPSCALE", "index": 4}, 4),
    "a short form with U5": ("simple-change", {"content": "GRID U5"}, 4),
    "a short reroll with a number": ("simple-change", {"content": "GRID R1"}, 4),
    "a short form in lower case": ("simple-change", {"content": "GRID u1"}, 4),
    "a short form with spaces": ("simple-change", {"content": "GRID  U1 "}, 4),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_specification_does_not_allow_is_refused_and_costs_nothing(agent: Agent, case: str) -> None:
    endpoint, body, code = REFUSED[case]
    tasks = {"OPEN": await agent.imagine(), "GRID": await agent.grid(), "PAIR": await agent.grid(images=2)}
    tasks["SINGLE"] = await agent.submit("simple-change", {"content": f"{tasks['GRID']} U1"})
    agent.sim.finish(tasks["SINGLE"])
    text = json.dumps(body)
    for name, task_id in tasks.items():
        text = text.replace(f'"{name}"', f'"{task_id}"').replace(f'"{name} ', f'"{task_id} ')
    charged = len(agent.sim.ledger)
    answer = (await agent.post(endpoint, json.loads(text))).json()
    assert answer["code"] == code
    assert "result" not in answer
    assert len(agent.sim.ledger) == charged


async def test_a_banned_word_is_named(agent: Agent) -> None:
    answer = (await agent.post("imagine", {"prompt": "a forbiddenword"})).json()
    assert answer["properties"] == {"bannedWord": "forbiddenword", "promptEn": "a forbiddenword"}


@pytest.mark.parametrize(
    ("content", "media_type"), [(b"{", "application/json"), (b"[" * 9999, "application/json"), (b"{}", "text/plain")]
)
async def test_a_body_that_is_no_json_is_refused(agent: Agent, content: bytes, media_type: str) -> None:
    headers = BEARER | {"Content-Type": media_type}
    answer = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", content=content, headers=headers)
    assert answer.json()["code"] == 4


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "test-key"}])
async def test_a_wrong_key_opens_nothing(agent: Agent, header: dict[str, str]) -> None:
    task_id = await agent.grid()
    posted = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", json={"prompt": "mug"}, headers=header)
    fetched = await agent.http.get(f"{agent.sim.url}/mj/task/{task_id}/fetch", headers=header)
    assert [posted.status_code, fetched.status_code] == [401, 401]
    assert "error" in posted.json()
    assert len(agent.sim.ledger) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/mj/nothing", 404),
        ("GET", "/mj/submit/imagine", 405),
        ("POST", "/mj/task/1/fetch", 405),
        ("GET", "/hostile/unheard-of", 404),
        ("HEAD", "/mj/task/1/fetch", 405),
    ],
)
async def test_other_addresses_answer_that_they_are_none(agent: Agent, method: str, path: str, status: int) -> None:
    assert (await agent.http.request(method, agent.sim.url + path)).status_code == status


async def test_below_a_prefix_everything_works_and_outside_is_html(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=None, prefix="/api/", image_edge=64) as sim:
        agent = Agent(sim, http)
        assert sim.url == f"http://127.0.0.1:{sim.port}/api"
        task_id = await agent.grid()
        picture = await http.get((await agent.links(task_id))[0])
        outside = await http.post(f"http://127.0.0.1:{sim.port}/mj/submit/imagine", json={}, headers=BEARER)
        assert picture.content.startswith(PNG)
        assert (outside.status_code, outside.headers["content-type"]) == (404, "text/html")
        assert [len(sim.submits()), len(sim.polls()), len(sim.polls(task_id))] == [1, 1, 1]


# --- records


async def test_a_charge_is_written_down_before_the_answer(http: httpx.AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    charged: list[Charge] = []
    async with Simulator(job_seconds=None, ledger_path=path, on_charge=charged.append) as sim:
        agent = Agent(sim, http)
        sim.inject("submit", faults.reset_after_accept())
        with pytest.raises(httpx.ReadError):
            await agent.imagine("lost")
        await agent.imagine("found")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["body"] for line in lines] == [{"prompt": "lost"}, {"prompt": "found"}]
        assert [Charge(**line) for line in lines] == sim.ledger == charged
        assert [charge.seq for charge in sim.ledger] == [1, 2]


async def test_duplicates_are_charges_for_the_same_endpoint_and_body(agent: Agent) -> None:
    for prompt in ("one", "two", "one"):
        await agent.imagine(prompt)
    assert agent.sim.duplicates() == [agent.sim.ledger[2]]


async def test_every_request_is_seen_with_its_headers_and_body(agent: Agent) -> None:
    await agent.http.post(f"{agent.sim.url}/mj/submit/imagine?x=1", json={"prompt": "mug"}, headers={"X-Odd": "Yes"})
    (seen,) = agent.sim.submits()
    assert (seen.method, seen.path, seen.query, seen.json) == ("POST", "/mj/submit/imagine", "x=1", {"prompt": "mug"})
    assert seen.headers["x-odd"] == "Yes"


async def test_a_test_may_wait_for_what_will_be_seen(agent: Agent) -> None:
    waiting = asyncio.create_task(agent.sim.until(lambda: len(agent.sim.ledger) == 2))
    await agent.imagine()
    assert not waiting.done()
    await agent.imagine()
    await waiting
    with pytest.raises(TimeoutError):
        await agent.sim.until(lambda: False, timeout=0.01)


def test_it_imports_nothing_of_the_rest_of_the_house() -> None:
    found = set()
    for path in Path(mj_mcp.simulator.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found.add(f"{'.' * node.level}{node.module}")
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    ours = {name for name in found if name.startswith(("mj_mcp", "."))}
    assert all(name.startswith("mj_mcp.simulator") for name in ours)
    assert found & {"httpx", "mcp", "pydantic"} == set()
