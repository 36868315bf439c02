"""The main job on every kind of proxy, with nothing but its URL and key: through a real client, to the letter.

The simulator plays each of them, written from their sources without a look at the client.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import KEY, Caller
from lives import broken_promises
from PIL import Image

from mj_mcp.simulator import Simulator, faults
from mj_mcp.simulator.site import DialectName

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

DIALECTS = ["gateway", "classic", "plus", "newapi"]
KEYS = {
    "gateway": ("authorization", f"Bearer {KEY}"),
    "classic": ("mj-api-secret", KEY),
    "plus": ("mj-api-secret", KEY),
    "newapi": ("authorization", f"Bearer {KEY}"),
}
BUTTONS = {"UPSCALE": "upsample", "VARIATION": "variation", "REROLL": "reroll"}

each = pytest.mark.parametrize("dialect", DIALECTS)


def proxy(dialect: Any, **habits: Any) -> Simulator:
    return Simulator(dialect=dialect, key=KEY, job_seconds=None, image_edge=128, **habits)


def follow_up(dialect: str, parent: str, action: str, index: int | None, *, shorthand: bool = False) -> tuple[str, Any]:
    """The endpoint and body of a follow-up as this proxy documents it, without `state`."""
    if dialect in {"plus", "newapi"}:
        return "action", {"taskId": parent, "customId": f"MJ::JOB::{BUTTONS[action]}::{index or 0}"}
    if shorthand:
        return "simple-change", {"content": f"{parent} {action[0]}{index or ''}"}
    return "change", {"taskId": parent, "action": action} | ({"index": index} if index else {})


def sent(sim: Simulator) -> list[tuple[str, Any]]:
    """Every submit as it was received. What a button's id holds beside its name is the proxy's own."""
    found = []
    for request in sim.submits():
        body = dict(request.json)
        if "customId" in body:
            body["customId"] = "::".join(body["customId"].split("::")[:4])
        found.append((request.path.removeprefix("/mj/submit/"), body))
    return found


@each
async def test_the_whole_main_job_runs_with_nothing_but_url_and_key(dialect: str, spawn: Spawn) -> None:
    async with proxy(dialect) as sim:
        expected: list[tuple[str, Any]] = []
        states: list[str] = []

        async def buy(caller: Caller, tool: str, endpoint: str, body: Any, **arguments: Any) -> dict[str, Any]:
            bought = await caller.task(tool, **arguments, wait_seconds=0)
            expected.append((endpoint, body))
            states.append(bought["submission_id"])
            sim.finish(bought["task_id"])
            return await caller.task("get_task", task_id=bought["task_id"], wait_seconds=20)

        async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
            grid = await buy(caller, "generate_image", "imagine", {"prompt": "a mug"}, prompt="a mug")
            parent = grid["task_id"]
            of_two = follow_up(dialect, parent, "UPSCALE", 2)
            upscaled = await buy(caller, "upscale_image", *of_two, task_id=parent, index=2)
            of_four = follow_up(dialect, parent, "VARIATION", 4)
            varied = await buy(caller, "vary_image", *of_four, task_id=parent, index=4)
            rerolled = await buy(caller, "reroll", *follow_up(dialect, parent, "REROLL", None), task_id=parent)
            short = follow_up(dialect, varied["task_id"], "UPSCALE", 1, shorthand=True)
            shorthand = await buy(caller, "simple_change", *short, content=f"{varied['task_id']} U1")
            for number, task in ((4, grid), (1, upscaled), (4, varied), (4, rerolled), (1, shorthand)):
                assert (task["status"], len(task["images"])) == ("succeeded", number)
                assert [image["index"] for image in task["images"]] == list(range(1, number + 1))
            repeated = await caller.task("upscale_image", task_id=parent, index=2, wait_seconds=0)
            assert repeated["duplicate_of"] == upscaled["submission_id"]
            viewed = await caller.call("view_image", task_id=parent, index=3)
            assert [block.type for block in viewed.content] == ["text", "image"]
            saved = await caller.task("save_images", task_id=parent)
            quarters = [_read(file) for file in saved["files"]]
            assert (
                len({(quarter.size, quarter.convert("RGB").resize((1, 1)).getpixel((0, 0))) for quarter in quarters})
                == 4
            )
            large = _read((await caller.task("save_images", task_id=upscaled["task_id"]))["files"][0])
            assert large.size[0] >= quarters[0].size[0]
        running = await _in_the_next_life(sim, spawn)
        expected.append(("imagine", {"prompt": "a jug"}))
        states.append(running)

        if dialect != "gateway":
            expected = [
                (endpoint, body | {"state": state}) for (endpoint, body), state in zip(expected, states, strict=True)
            ]
        assert sent(sim) == expected
        name, value = KEYS[dialect]
        asked = [
            request for request in sim.requests if request.path.startswith("/mj/") and "check-" not in request.path
        ]
        for request in asked:
            assert request.path.startswith("/mj/image/") or request.headers[name] == value
            assert len({"authorization", "mj-api-secret"} & request.headers.keys()) <= 1
        pictures = [request for request in sim.requests if "picture" in request.path or "/image/" in request.path]
        assert pictures
        assert not [one for one in pictures if {"authorization", "mj-api-secret"} & one.headers.keys()]
        assert len({request.path for request in pictures}) == len(pictures), "each picture is fetched once"
        assert sim.duplicates() == []


async def _in_the_next_life(sim: Simulator, spawn: Spawn) -> str:
    """A job that outlives its server, and is finished by the next one, which knows the proxy already."""
    async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        running = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        caller.kill()
    async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        before = len(sim.requests)
        listed = await caller.task("list_tasks")
        assert [row["status"] for row in listed["tasks"]] == ["queued", *["succeeded"] * 5]
        sim.finish(running["task_id"])
        done = await caller.task("get_task", task_id=running["submission_id"], wait_seconds=20)
        assert (done["status"], len(done["images"])) == ("succeeded", 4)
        assert not [request for request in sim.requests[before:] if "check-" in request.path]
    return str(running["submission_id"])


@pytest.mark.parametrize("dialect", ["classic", "plus", "newapi"])
async def test_one_grid_is_fetched_once_and_its_quarters_are_the_pictures(dialect: str, spawn: Spawn) -> None:
    async with proxy(dialect, localhost_links=True) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        bought = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.process(bought["task_id"], progress=45)
        seen = await caller.task("get_task", task_id=bought["task_id"], wait_seconds=0)
        assert seen.get("progress") == 45
        sim.finish(bought["task_id"])
        done = await caller.call("get_task", task_id=bought["task_id"], wait_seconds=20)
        assert [block.type for block in done.content] == ["text", "image"], done.content
        saved = await caller.task("save_images", task_id=bought["task_id"])
        assert sim.fired["preview_fetched"] == 0
        (fetched,) = [
            request for request in sim.requests if request.method == "GET" and "/mj/task/" not in request.path
        ]
        assert "xywh" not in fetched.path + fetched.query
        assert len({_read(file).resize((1, 1)).getpixel((0, 0)) for file in saved["files"]}) == 4


def _read(file: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(Path(file["path"]).read_bytes())).convert("RGB")


async def test_four_links_are_used_and_the_grid_where_their_host_refuses(spawn: Spawn) -> None:
    async with proxy("plus", four_links=True) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        for prompt in ("a mug", "a jug"):
            bought = await caller.task("generate_image", prompt=prompt, wait_seconds=0)
            sim.finish(bought["task_id"])
            done = await caller.task("get_task", task_id=bought["task_id"], wait_seconds=20)
            assert [image["url"].partition("#")[2] for image in done["images"]] == [""] * 4
            assert len((await caller.task("save_images", task_id=bought["task_id"]))["files"]) == 4


async def test_a_host_of_four_links_that_refuses_who_is_no_browser_costs_nothing(spawn: Spawn) -> None:
    async with proxy("plus", four_links=True, browsers_only=True) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        bought = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(bought["task_id"])
        done = await caller.call("get_task", task_id=bought["task_id"], wait_seconds=20)
        assert [block.type for block in done.content] == ["text", "image"], done.content
        assert sim.fired["browsers_only"] >= 1
        assert len((await caller.task("save_images", task_id=bought["task_id"]))["files"]) == 4


# --- doubt


@pytest.mark.parametrize("dialect", ["classic", "plus"])
async def test_a_lost_answer_is_looked_up_by_its_state_and_not_bought_again(
    dialect: str, spawn: Spawn, tmp_path: Path
) -> None:
    async with proxy(dialect) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        sim.inject("imagine", faults.reset_after_accept())
        bought = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (bought["status"], bought["task_id"]) == ("queued", sim.ledger[0].task_id)
        sim.inject("imagine", faults.reset_before_accept())
        lost = await caller.error("generate_image", prompt="a jug", wait_seconds=0)
        assert lost["code"] == "unconfirmed"
        assert len(sim.ledger) == 1
        assert broken_promises(sim, tmp_path) == []
        assert sim.fired == {"reset_after_accept": 1, "reset_before_accept": 1}


@pytest.mark.parametrize("dialect", ["classic", "plus"])
@pytest.mark.parametrize("asks", ["the next start", "a caller", "the same request"])
async def test_a_list_that_fails_is_asked_again(dialect: str, asks: str, spawn: Spawn, tmp_path: Path) -> None:
    async with proxy(dialect) as sim:
        async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
            sim.inject("imagine", faults.reset_after_accept())
            sim.inject("list", faults.status(500), times=2)  # at once, and as soon as it is recorded
            lost = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
            assert lost["code"] == "unconfirmed"
            await sim.until(lambda: sim.fired["status_500"] == 2)
            if asks == "a caller":
                found = await caller.task("get_task", task_id=lost["submission_id"], wait_seconds=0)
                assert found["status"] == "queued"
            elif asks == "the same request":
                found = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
                assert (found["status"], found["duplicate_of"]) == ("queued", lost["submission_id"])
        if asks == "the next start":
            async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
                await sim.until(lambda: bool(sim.polls(sim.ledger[0].task_id)))
                found = await caller.task("get_task", task_id=lost["submission_id"], wait_seconds=0)
                assert found["status"] == "queued"
        assert len(sim.ledger) == 1
        assert broken_promises(sim, tmp_path) == []


@pytest.mark.parametrize(
    "why",
    [
        "do_request_failed",
        "read_response_body_failed",
        "unmarshal_response_body_failed",
        "insert_midjourney_task_failed",
    ],
)
async def test_an_answer_that_a_relay_lost_is_unconfirmed_and_not_bought_again(
    why: Any, spawn: Spawn, tmp_path: Path
) -> None:
    async with proxy("newapi") as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        sim.inject("imagine", faults.lost_upstream(why))
        for _ in range(2):
            lost = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
            assert lost["code"] == "unconfirmed"
        assert len(sim.ledger) == 1
        assert broken_promises(sim, tmp_path) == []
        assert sim.fired[why] == 1


# --- refusals


@each
async def test_an_id_that_the_proxy_does_not_know_is_said_as_such(dialect: str, spawn: Spawn) -> None:
    async with proxy(dialect) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        assert (await caller.error("get_task", task_id="1795756691434479", wait_seconds=0))["code"] == "task_not_found"


@pytest.mark.parametrize("dialect", ["classic", "plus", "newapi"])
async def test_a_task_that_was_bought_elsewhere_gets_its_kind_and_prompt(
    dialect: str, spawn: Spawn, tmp_path: Path
) -> None:
    async with proxy(dialect) as sim:
        async with spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
            bought = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
            sim.finish(bought["task_id"])
        async with spawn(sim, MJ_PROXY_DIALECT="auto", MJ_DATA_DIR=str(tmp_path / "other")) as other:
            found = await other.task("get_task", task_id=bought["task_id"], wait_seconds=20)
        assert (found["kind"], found["prompt"], found["status"]) == ("imagine", "a mug", "succeeded")


@pytest.mark.parametrize(
    ("dialect", "fault", "code"),
    [
        ("classic", faults.banned_word(), "prompt_refused"),
        ("classic", faults.queue_full(23), "busy"),
        ("classic", faults.no_account(), "rejected"),
        ("plus", faults.queue_full(9), "rejected"),
        ("newapi", faults.quota_not_enough(), "unauthorized"),
        ("newapi", faults.saturated(), "busy"),
        ("newapi", faults.queue_full(23), "busy"),
    ],
)
async def test_each_refusal_keeps_its_kind_and_nothing_is_bought(
    dialect: str, fault: Any, code: str, spawn: Spawn
) -> None:
    async with proxy(dialect) as sim, spawn(sim, MJ_PROXY_DIALECT="auto") as caller:
        sim.inject("imagine", fault)
        assert (await caller.error("generate_image", prompt="a mug", wait_seconds=0))["code"] == code
        assert sim.fired[fault.name] == 1
        assert sim.ledger == []


def test_no_dialect_is_left_out() -> None:
    assert {*DIALECTS, "job"} >= set(get_args(DialectName)), "tests/whole/test_job_dialect.py has the last one"
