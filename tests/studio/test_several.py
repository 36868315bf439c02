"""Several tasks at once: one wait, one labelled sheet, pictures side by side, and pictures as references."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from conftest import PROTOCOLS, Caller
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

CHARACTERS_PER_TOKEN = 4


def text_of(result: CallToolResult) -> str:
    (block,) = (block for block in result.content if isinstance(block, TextContent))
    return block.text


def picture_of(result: CallToolResult) -> Image.Image:
    (block,) = (block for block in result.content if isinstance(block, ImageContent))
    data = base64.b64decode(block.data)
    assert len(data) <= 200 * 1024
    return Image.open(io.BytesIO(data))


async def submit(caller: Caller, *prompts: str) -> list[str]:
    """The ids of jobs that have just begun."""
    tasks = [await caller.task("generate_image", prompt=prompt, wait_seconds=0) for prompt in prompts]
    return [str(task["task_id"]) for task in tasks]


async def finished(sim: Simulator, caller: Caller, *prompts: str) -> list[str]:
    """The ids of jobs that have succeeded."""
    ids = await submit(caller, *prompts)
    for task_id in ids:
        sim.finish(task_id)
    await caller.task("wait_for_tasks", task_ids=ids, wait_seconds=20)
    return ids


# --- wait_for_tasks


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_wait_for_all_ends_with_the_last_and_shows_every_picture(
    protocol: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, protocol=protocol) as caller, anyio.create_task_group() as group:
        ids = await submit(caller, "a mug", "a jug", "a cup")

        async def end() -> None:
            for task_id in ids:
                before = len(sim.polls(task_id))
                await sim.until(lambda task_id=task_id, before=before: len(sim.polls(task_id)) > before)  # type: ignore[misc]
                sim.finish(task_id)

        group.start_soon(end)
        with anyio.fail_after(60):
            result = await caller.call("wait_for_tasks", task_ids=ids, wait_seconds=600)
    content = result.structured_content or {}
    assert [row["task_id"] for row in content["tasks"]] == ids
    assert [(row["status"], row["image_count"]) for row in content["tasks"]] == [("succeeded", 4)] * 3
    assert (content["open"], content["next"]) == ([], [])
    assert text_of(result) == content["message"]
    for letter, task_id in zip("ABC", ids, strict=True):
        assert f"{letter} {task_id} succeeded" in text_of(result)
    assert max(picture_of(result).size) <= 1024


async def test_a_wait_for_any_ends_with_the_first(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        first, second = await submit(caller, "a mug", "a jug")
        sim.finish(second)
        with anyio.fail_after(30):
            result = await caller.call("wait_for_tasks", task_ids=[first, second], until="any", wait_seconds=600)
        content = result.structured_content or {}
        assert [row["status"] for row in content["tasks"]] in (["queued", "succeeded"], ["processing", "succeeded"])
        assert content["open"] == [first]
        (call,) = content["next"]
        assert (call["tool"], call["arguments"]["task_ids"]) == ("wait_for_tasks", [first])
        # One that has ended already ends the next wait at once.
        with anyio.fail_after(30):
            again = await caller.task("wait_for_tasks", task_ids=[first, second], until="any", wait_seconds=600)
    assert again["open"] == [first]


async def test_time_that_is_up_names_what_is_open_and_how_to_go_on(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        ids = await submit(caller, "a mug", "a jug")
        result = await caller.call("wait_for_tasks", task_ids=ids, wait_seconds=0)
    content = result.structured_content or {}
    assert content["open"] == ids
    assert content["next"][0]["arguments"]["task_ids"] == ids
    assert "Do not submit them again." in text_of(result)
    assert [block.type for block in result.content] == ["text"]


async def test_what_failed_is_in_doubt_or_unknown_has_ended_and_says_so(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        failed, fine = await submit(caller, "a mug", "a jug")
        sim.fail(failed, reason="too dark")
        sim.finish(fine)
        sim.inject("submit", faults.reset_after_accept())
        lost = await caller.error("generate_image", prompt="a cup", wait_seconds=5)
        assert lost["code"] == "unconfirmed"
        asked = [failed, fine, lost["submission_id"], "404404"]
        with anyio.fail_after(30):
            content = await caller.task("wait_for_tasks", task_ids=asked, wait_seconds=600)
    rows = content["tasks"]
    assert [row["status"] for row in rows] == ["failed", "succeeded", "unconfirmed", "unknown"]
    assert rows[0]["failure"] == {"code": "generation_failed", "message": "too dark"}
    assert rows[2]["submission_id"] == lost["submission_id"]
    assert rows[3] == {"task_id": "404404", "status": "unknown", "image_count": 0}
    assert content["open"] == []
    assert sim.fired == {"reset_after_accept": 1}


async def test_more_than_four_finished_tasks_are_one_tile_each(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="20") as caller:
        ids = await finished(sim, caller, *(f"mug {number}" for number in range(6)))
        result = await caller.call("wait_for_tasks", task_ids=ids, wait_seconds=10)
    assert all(f"{letter} {task_id} " in text_of(result) for letter, task_id in zip("ABCDEF", ids, strict=True))
    assert max(picture_of(result).size) <= 1024


async def test_wrong_arguments_are_named_together(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        error = await caller.error("wait_for_tasks", task_ids=[str(number) for number in range(21)], until="some")
        assert "`task_ids` must be 1 to 20 ids (got 21)." in error["message"]
        assert '`until` must be one of all, any (got "some").' in error["message"]
        assert (await caller.error("wait_for_tasks", task_ids=[]))["code"] == "invalid_request"
    assert sim.requests == []


async def test_twenty_ids_that_nobody_knows_take_no_longer_than_one(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        sim.inject("fetch", faults.delay(1.5), times=20)
        with anyio.fail_after(20):
            content = await caller.task("wait_for_tasks", task_ids=[str(n) for n in range(20)], wait_seconds=3)
    assert {row["status"] for row in content["tasks"]} == {"unknown"}
    assert sim.fired == {"delay": 20}


# --- view_image


async def test_without_an_index_all_pictures_of_a_task_are_on_one_sheet(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        sheet = await caller.call("view_image", task_id=task_id)
        large = await caller.call("view_image", task_id=task_id, index=2)
    assert text_of(sheet) == f"The 4 pictures of task {task_id}, numbered 1 to 4."
    assert picture_of(sheet).size[0] > 256
    assert sheet.structured_content is large.structured_content is None
    assert [block.type for block in large.content] == ["text", "image"]


async def test_pictures_of_several_tasks_are_compared_side_by_side(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        first, second = await finished(sim, caller, "a mug --ar 2:1", "a jug --ar 1:2")
        result = await caller.call("view_image", compare=[f"{first}#3", f"mj://tasks/{second}/images/1"])
        both = await caller.error("view_image", task_id=first, compare=[f"{first}#1"])
        wrong = await caller.error("view_image", compare=[f"{first}#5", "third one"])
        neither = await caller.error("view_image")
    assert f"A: picture 3 of task {first}" in text_of(result)
    assert f"B: picture 1 of task {second}" in text_of(result)
    assert max(picture_of(result).size) <= 1024
    assert "not both" in both["message"]
    assert "`compare` must be TASK_ID#INDEX" in wrong["message"]
    assert "`task_id` must be given" in neither["message"]


@pytest.mark.parametrize(("form", "media_type"), [("webp", "image/webp"), ("jpeg", "image/jpeg"), ("png", "image/png")])
async def test_sheets_and_views_have_the_format_that_was_set(
    form: str, media_type: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, MJ_IMAGE_FORMAT=form) as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        results = [
            await caller.call("get_task", task_id=task_id, wait_seconds=0),
            await caller.call("view_image", task_id=task_id),
            await caller.call("view_image", task_id=task_id, index=1),
            await caller.call("view_image", compare=[f"{task_id}#1", f"{task_id}#2"]),
        ]
    pictures = [block for result in results for block in result.content if isinstance(block, ImageContent)]
    assert [picture.mime_type for picture in pictures] == [media_type] * 4
    assert {(Image.open(io.BytesIO(base64.b64decode(picture.data))).format or "").lower() for picture in pictures} == {
        form
    }


async def test_pictures_are_left_out_of_all_but_view_image_where_that_is_set(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_INLINE_IMAGES="0") as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        shown = await caller.call("get_task", task_id=task_id, wait_seconds=0)
        waited = await caller.call("wait_for_tasks", task_ids=[task_id], wait_seconds=0)
        viewed = await caller.call("view_image", task_id=task_id)
    assert [block.type for block in shown.content + waited.content] == ["text", "text"]
    assert (shown.structured_content or {})["next"][0] == {"tool": "view_image", "arguments": {"task_id": task_id}}
    assert [block.type for block in viewed.content] == ["text", "image"]


async def test_resource_links_come_only_where_they_are_asked_for(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        plain = await caller.call("get_task", task_id=task_id, wait_seconds=0)
    async with connect(sim, MJ_RESOURCE_LINKS="1") as caller:
        linked = await caller.call("get_task", task_id=task_id, wait_seconds=10)
    assert [block.type for block in linked.content] == ["text", "image"] + ["resource_link"] * 4
    assert [block.type for block in plain.content] == ["text", "image"]


# --- pictures of ours as references


async def test_a_picture_made_here_is_a_reference_by_its_id_and_index(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        links = [image["url"] for image in (await caller.task("get_task", task_id=task_id, wait_seconds=0))["images"]]
        made = await caller.task(
            "generate_image",
            prompt="moodier",
            image_urls=[f"{task_id}#3"],
            style_reference=f"mj://tasks/{task_id}/images/1",
            wait_seconds=0,
        )
        assert sim.submits()[-1].json == {"prompt": f"{links[2]} moodier --sref {links[0]}"}
        # The row names the pictures as the caller did: links are signed anew, and would make it another request.
        assert made["prompt"] == f"{task_id}#3 moodier --sref {task_id}#1"
        same = await caller.task(
            "generate_image",
            prompt="moodier",
            image_urls=[f"mj://tasks/{task_id}/images/3"],
            style_reference=[f"{task_id}#1"],
            wait_seconds=0,
        )
        assert same["duplicate_of"] == made["submission_id"]
    assert len(sim.submits()) == 2


async def test_a_reference_that_cannot_be_had_is_refused_before_anything_is_spent(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, MJ_ARCHIVE="0") as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        (running,) = await submit(caller, "a jug")
        codes = {}
        for reference in (f"{task_id}#9", f"{running}#1", "404404#1"):
            error = await caller.error("generate_image", prompt="moodier", image_urls=[reference])
            codes[reference] = error["code"]
        assert list(codes.values()) == ["invalid_request", "not_ready", "task_not_found"]
    assert len(sim.submits()) == 2


# --- get_usage


async def test_usage_counts_jobs_by_kind_and_says_what_is_left(sim: Simulator, connect: Connect) -> None:
    limits = {"MJ_MAX_OPEN_TASKS": "3", "MJ_DAILY_TASK_LIMIT": "5"}
    async with connect(sim, **limits) as caller:
        (task_id,) = await finished(sim, caller, "a mug")
        await caller.task("upscale_image", task_id=task_id, index=1, wait_seconds=0)
        sim.inject("submit", faults.code(24, properties={"bannedWord": "blood"}))
        assert (await caller.error("generate_image", prompt="blood", wait_seconds=5))["code"] == "prompt_refused"
        used = await caller.task("get_usage")
    assert used["today"] == used["last_7_days"] == {"imagine": 1, "upscale": 1, "total": 2}
    assert (used["open"], used["waiting"]) == (1, 0)
    assert {name: used["limits"][name] for name in ("open_left", "today_left")} == {"open_left": 2, "today_left": 3}
    assert used["limits"]["resets_at"].endswith("T00:00:00Z")
    assert sim.fired == {"code_24": 1}


# --- what a conversation pays for


async def test_twenty_finished_tasks_cost_less_than_a_thousand_tokens_however_long_their_links(
    sim: Simulator, connect: Connect
) -> None:
    def long_links(answer: dict[str, Any]) -> dict[str, Any]:
        images = [image | {"image_url": image["image_url"] + "&pad=" + "x" * 900} for image in answer["images"]]
        return answer | {"images": images}

    async with connect(sim, MJ_MAX_OPEN_TASKS="20", MJ_ARCHIVE="0") as caller:
        ids = await submit(caller, *(f"a mug, number {number}, " + "very " * 30 + "blue" for number in range(20)))
        sim.inject("fetch", faults.Fault(name="long_links", edit=long_links), times=1000)
        for task_id in ids:
            sim.finish(task_id)
        await caller.task("wait_for_tasks", task_ids=ids, wait_seconds=30)
        listed = await caller.call("list_tasks")
        (resource,) = (await caller.client.read_resource("mj://tasks")).contents
        one = await caller.call("get_task", task_id=ids[0], wait_seconds=0, include_image=False)
    structured = json.dumps(listed.structured_content, ensure_ascii=False, separators=(",", ":"))
    assert len((listed.structured_content or {})["tasks"]) == 20
    assert len(structured) < 4_000
    assert len(text_of(listed)) < 4_000
    assert json.loads(getattr(resource, "text", "")) == listed.structured_content
    assert len(text_of(one)) / CHARACTERS_PER_TOKEN <= 120
    assert "x" * 900 in one.structured_content["images"][0]["url"]


async def test_five_album_covers_take_seven_calls(sim: Simulator, spawn: Spawn) -> None:
    """Five jobs at once with a wait of 0, and later "what is done?"."""
    calls = 0
    async with spawn(sim) as caller:
        ids = []
        for number in range(5):
            calls += 1
            ids.append((await caller.task("generate_image", prompt=f"album cover {number}", wait_seconds=0))["task_id"])
        for task_id in ids:
            sim.finish(task_id)
        calls += 1
        done = await caller.call("wait_for_tasks", task_ids=ids, wait_seconds=25)
    content = done.structured_content or {}
    assert {row["status"] for row in content["tasks"]} == {"succeeded"}
    assert content["open"] == []
    assert [block.type for block in done.content] == ["text", "image"]
    assert calls <= 7


# --- what is wrong


async def test_problems_of_arguments_and_of_the_prompt_are_said_in_one_answer(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        error = await caller.error("generate_image", prompt="a mug --chaos 500 --foo 3", stylize="many", tiel=True)
    said = error["message"]
    assert "generate_image has no argument `tiel`; did you mean `tile`?" in said
    assert '`stylize` must be a whole number between 0 and 1000 (got "many").' in said
    assert "`--chaos` in the prompt must be" in said
    assert "`--foo`" in said
    assert sim.requests == []


# --- what cannot be done


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_unknown_tool_is_answered_with_what_there_is(protocol: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, protocol=protocol) as caller:
        error = await caller.error("cancel_task", task_id="1")
        instructions = caller.client.instructions or ""
    assert error["code"] == "invalid_request"
    assert "There is no tool `cancel_task`." in error["message"]
    assert "generate_image" in error["message"]
    assert "Not possible here: cancelling a job" in error["message"]
    assert "Not possible here: cancelling a job" in instructions
