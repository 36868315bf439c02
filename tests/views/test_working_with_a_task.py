"""The view in a real host and a real browser, with the real server: one task, from its queue to its children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from browsers import EVERYTHING, PATIENCE, Mount
from calls import imagine
from conftest import IMAGE_EDGE, KEY, Caller
from views import grid

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]
Connect = Callable[..., AbstractAsyncContextManager[Caller]]

PAY = "Yes, pay for one job"

TWICE = """async () => {
    document.querySelector('[data-value="upscale_image:2"]').click();
    await new Promise(done => requestAnimationFrame(done));
    document.querySelector("[data-act=confirm]").click();
}"""


async def test_a_job_is_followed_from_the_queue_to_its_pictures(sim: Simulator, spawn: Spawn, mount: Mount) -> None:
    async with spawn(sim) as caller:
        task_id = await imagine(caller, "a lighthouse")
        async with mount(caller, arguments={"task_id": task_id, "wait_seconds": 0}) as view:
            await view.shows("In the queue")
            sim.process(task_id, progress=40)
            await view.shows("40 % done")
            assert await view.frame.get_by_role("progressbar").get_attribute("aria-valuenow") == "40"
            sim.finish(task_id)
            await view.pictures(4)
            await view.shows("Done")
            assert await view.frame.get_by_role("status").inner_text() == "Grid: Done"
            assert {call["index"] for call in await view.calls("view_image")} == {1, 2, 3, 4}
            assert await view.violations() == []
    assert len(sim.ledger) == 1


async def test_an_upscale_is_paid_once_and_its_lineage_is_walked(sim: Simulator, spawn: Spawn, mount: Mount) -> None:
    async with spawn(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.choose(2)
            await view.button("Upscale 2").dblclick()  # its second press is not a confirmation
            await view.shows("Upscale 2: one paid job.")
            await view.frame.evaluate(TWICE)  # as fast as a shaking hand, and where the confirmation is
            assert await view.calls("upscale_image") == []
            assert len(sim.ledger) == 1
            assert await view.violations() == []
            await view.confirm()
            await view.shows("Upscale of 2")
            assert [charge.body.get("index") for charge in sim.ledger] == [None, 2]
            upscale = sim.ledger[-1].task_id
            sim.finish(upscale)
            await view.pictures(1)
            lineage = view.frame.get_by_role("navigation", name="Where it comes from")
            await lineage.get_by_role("button", name="Grid").click()
            await view.pictures(4)
            await lineage.get_by_role("button", name="Upscale of 2").click()
            await view.pictures(1)
            assert await view.violations() == []
            told = [context["structuredContent"] for context in await view.sent("contexts")]
    assert told == [
        {"task_id": task_id, "index": 2},
        {"task_id": upscale, "parent_id": task_id},
        {"task_id": task_id},
        {"task_id": upscale},
    ]


async def test_a_double_press_of_the_confirmation_pays_once(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.button("Reroll").click()
            await view.button(PAY).wait_for()
            await view.frame.wait_for_function("since => performance.now() - since > 500", arg=await view.now())
            await view.frame.evaluate(
                "const yes = document.querySelector('[data-act=confirm]'); for (let i = 0; i < 5; i++) yes.click()"
            )
            await view.shows("In the queue")
            assert len(await view.calls("reroll")) == 1
    assert [charge.endpoint for charge in sim.ledger] == ["imagine", "change"]


async def test_a_repeated_reroll_buys_nothing_and_offers_another_one(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        first = (await caller.task("reroll", task_id=task_id, wait_seconds=0))["task_id"]
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.frame.locator("[data-value=reroll]").click()
            await view.confirm()
            await view.shows("Nothing new was started")
            assert len(sim.ledger) == 2
            sim.finish(first)
            await view.pictures(4)
    assert len(sim.ledger) == 2


async def test_a_press_waits_visibly_while_the_host_asks_the_person(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    allowed = asyncio.Event()

    async def ask_first(name: str, _given: dict[str, Any]) -> dict[str, Any] | None:
        if name == "reroll":
            await allowed.wait()
        return None

    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, instead=ask_first) as view:
            await view.pictures(4)
            await view.button("Reroll").click()
            await view.confirm()
            await view.shows("Your app may ask you to allow this. Nothing is sent twice.")
            assert await view.button("Reroll").get_attribute("aria-disabled") == "true"
            assert len(sim.ledger) == 1
            allowed.set()
            await view.shows("In the queue")
    assert len(sim.ledger) == 2


async def test_a_host_that_declines_is_said_and_the_button_works_again(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async def decline(name: str, _given: dict[str, Any]) -> dict[str, Any] | None:
        return {"broken": "the person declined"} if name == "reroll" else None

    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, instead=decline) as view:
            await view.pictures(4)
            await view.button("Reroll").click()
            await view.confirm()
            alert = view.frame.get_by_role("alert")
            await alert.wait_for()
            assert "the person declined" in await alert.inner_text()
            assert await view.button("Reroll").get_attribute("aria-disabled") is None
            assert await view.violations() == []
    assert len(sim.ledger) == 1


async def test_a_refused_press_says_that_nothing_was_charged(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.choose(3)
            sim.inject("submit", faults.banned_word("crime"))
            await view.button("Vary 3").click()
            await view.confirm()
            await view.shows("The prompt was refused. Nothing was charged.")
            assert sim.faults_left() == 0
    assert len(sim.ledger) == 1


async def test_a_slow_picture_is_said_to_load_and_comes(sim: Simulator, connect: Connect, mount: Mount) -> None:
    slow = asyncio.Event()

    async def hold_the_third(name: str, given: dict[str, Any]) -> dict[str, Any] | None:
        if name == "view_image" and given["index"] == 3:
            await slow.wait()
        return None

    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, instead=hold_the_third) as view:
            await view.pictures(3)
            await view.shows("Still loading…")
            assert await view.violations() == []
            slow.set()
            await view.pictures(4)


async def test_a_picture_whose_link_has_expired_is_said_and_can_be_tried_again(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    expired = {"isError": True, "content": [{"type": "text", "text": "image_unavailable: the link has expired"}]}
    down = [True]

    async def lose_the_first(name: str, given: dict[str, Any]) -> dict[str, Any] | None:
        return expired if name == "view_image" and given["index"] == 1 and down[0] else None

    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, instead=lose_the_first) as view:
            await view.shows("This picture cannot be fetched. Its link may have expired.")
            await view.pictures(3)
            down[0] = False
            await view.button("Load picture 1 again").click()
            await view.pictures(4)


async def test_a_picture_is_enlarged_and_the_next_one_shown_by_keys(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.button("Enlarge picture 2").click()
            await view.frame.get_by_role("img", name="Picture 2 of 4").wait_for(timeout=PATIENCE)
            await view.page.keyboard.press("ArrowRight")
            await view.frame.get_by_role("img", name="Picture 3 of 4").wait_for(timeout=PATIENCE)
            assert await view.violations() == []
            await view.page.keyboard.press("Escape")
            await view.pictures(4)
            assert await view.frame.evaluate("document.activeElement.dataset.tile") == "3"


async def test_links_and_downloads_go_through_the_host_and_files_through_the_server(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            await view.choose(4)
            await view.button("Open original").click()
            await view.button("Download").click()
            await view.button("Save").click()
            await view.shows("Saved: ")
            (link,) = await view.sent("links")
            (download,) = await view.sent("downloads")
            (saved,) = await view.calls("save_images")
    assert link["url"].startswith(f"{sim.url}/pictures/{task_id}/4.png")
    assert download["contents"][0]["uri"] == link["url"]
    assert saved == {"task_id": task_id, "indexes": [4]}


async def test_the_other_buttons_of_the_proxy_are_pressed_by_their_labels_up_to_a_video(
    connect: Connect, mount: Mount
) -> None:
    async with (
        Simulator(dialect="plus", key=KEY, job_seconds=None, image_edge=IMAGE_EDGE) as sim,
        connect(sim, MJ_PROXY_DIALECT="auto") as caller,
    ):
        task_id = await grid(sim, caller)
        upscale = (await caller.task("upscale_image", task_id=task_id, index=2, wait_seconds=0))["task_id"]
        sim.finish(upscale)
        await caller.task("get_task", task_id=upscale, wait_seconds=20)
        async with mount(caller, arguments={"task_id": upscale}) as view:
            await view.pictures(1)
            await view.button("Animate (Low motion)").click()
            await view.shows("Animate (Low motion): one paid job.")
            assert await view.violations() == []
            await view.confirm()
            await view.frame.get_by_role("heading", name="Animate (Low motion)").wait_for()
            sim.finish(sim.ledger[-1].task_id)
            await view.shows("Video 1")
            assert await view.violations() == []
            await view.shot("video")
    assert [charge.endpoint for charge in sim.ledger] == ["imagine", "action", "action"]


async def test_the_whole_way_works_by_keyboard(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            keys = view.page.keyboard

            async def reach(name: str) -> None:
                for _ in range(30):
                    await keys.press("Tab")
                    focused = "(document.activeElement.getAttribute('aria-label') || document.activeElement.innerText)"
                    if await view.frame.evaluate(focused) == name:
                        return
                raise AssertionError(f"{name} cannot be reached")

            await reach("Picture 1 of 4")
            await keys.press("ArrowRight")
            await keys.press("Enter")
            await reach("Upscale 2")
            await keys.press("Enter")
            await view.frame.wait_for_function("since => performance.now() - since > 500", arg=await view.now())
            await reach(PAY)
            await keys.press("Space")
            await view.shows("In the queue")
            assert await view.frame.evaluate("document.activeElement.innerText") == "Upscale of 2"
    assert [charge.body.get("index") for charge in sim.ledger] == [None, 2]


async def test_a_host_that_only_takes_messages_is_asked_once(sim: Simulator, connect: Connect, mount: Mount) -> None:
    only: dict[str, Any] = {"message": {"text": {}}, "updateModelContext": {"text": {}}}
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, capabilities=only) as view:
            await view.frame.get_by_role("img", name="The pictures of this task").wait_for()
            await view.button("Picture 2").click()
            await view.button("Upscale 2").dblclick()
            await view.shows("Asked in the chat: Upscale 2.")
            assert await view.violations() == []
            (message,) = await view.sent("messages")
            assert await view.sent("calls") == []
    assert message["content"] == [{"type": "text", "text": f"Upscale picture 2 of task {task_id}."}]
    assert len(sim.ledger) == 1


async def test_a_host_that_can_do_nothing_shows_the_sentence_to_type(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        async with mount(caller, arguments={"task_id": task_id}, capabilities={}) as view:
            await view.button("Picture 2").click()
            await view.button("Vary 2").click()
            await view.shows("To do this, type in the chat:")
            await view.shows(f"Vary picture 2 of task {task_id}.")
            assert await view.violations() == []
    assert {"serverTools", "message"} < EVERYTHING.keys()
