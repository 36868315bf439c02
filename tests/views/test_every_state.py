"""What the view shows in every other state, host and light; and that it asks for nothing and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from browsers import PATIENCE, Mount, View
from calls import imagine
from conftest import Caller
from views import grid

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

SHORT = {"containerDimensions": {"maxHeight": 400}}

USED = "document.documentElement.style.getPropertyValue('--color-text-{}')"

HOSTILE = '<img src=x onerror="parent.postMessage(1)"> </script><b>bold</b> \u202egnp.exe {n} ${id}'


async def wide_as_shown(view: View) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(
        await view.frame.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(320, 400), (720, 400), (720, None)])
async def test_a_grid_fits_every_host_in_both_lights(  # noqa: PLR0917 - fixtures and cases
    sim: Simulator, connect: Connect, mount: Mount, theme: str, width: int, height: int | None
) -> None:
    context = {"theme": theme} | (SHORT if height else {})
    async with connect(sim) as caller:
        task_id = await grid(sim, caller, "a lighthouse on a cliff at dusk, with a very long story " * 5)
        arguments = {"task_id": task_id}
        async with mount(caller, arguments=arguments, context=context, width=width, height=height) as view:
            await view.pictures(4)
            await view.button("Picture 2 of 4").click()
            await view.button("More").click()
            assert await wide_as_shown(view)
            assert await view.violations() == []
            background = await view.frame.evaluate("getComputedStyle(document.body).backgroundColor")
            await view.shot(f"{theme}-{width}-{height}")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(31, 30, 29)"}[theme]


async def test_the_colours_of_the_host_are_used_and_its_language_is_not_guessed(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    styles = {"variables": {"--color-background-primary": "rgb(1, 2, 3)", "--color-text-primary": "rgb(250, 250, 250)"}}
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        context = {"styles": styles, "locale": "ar-EG", "timeZone": "Africa/Cairo", "theme": "dark"}
        async with mount(caller, arguments={"task_id": task_id, "wait_seconds": 0}, context=context) as view:
            await view.shows("In the queue")
            assert await view.frame.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(1, 2, 3)"
            assert await view.frame.evaluate("document.documentElement.lang") == "en"
            given = {"--color-text-info": "rgb(9, 9, 9)", "--color-text-danger": "rgb(8, 8, 8)"}
            given["--color-background-danger"] = "rgb(7, 7, 7)"
            await view.tell("variables => bridge.sendHostContextChange({ styles: { variables } })", given)
            await view.frame.wait_for_function(f"() => {USED.format('danger')} === 'rgb(8, 8, 8)'")
            assert await view.frame.evaluate(USED.format("info")) == ""  # it might not be readable on a colour of ours
            await view.tell("bridge.sendHostContextChange({ theme: 'light' })")
            await view.frame.wait_for_function("() => document.documentElement.dataset.theme === 'light'")


async def test_it_can_be_read_from_right_to_left(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller, "منارة على جرف عند الغسق")
        async with mount(caller, arguments={"task_id": task_id}, width=320) as view:
            await view.pictures(4)
            direction = "getComputedStyle(document.querySelector('.prompt')).direction"
            assert await view.frame.evaluate(direction) == "rtl"
            await view.frame.evaluate("document.documentElement.dir = 'rtl'")
            number = "document.querySelector('.number').getBoundingClientRect().left"
            tile = "document.querySelector('.tile').getBoundingClientRect()"
            assert await view.frame.evaluate(f"{number} > {tile}.left + {tile}.width / 2")
            assert await wide_as_shown(view)
            await view.button("Picture 1 of 4").focus()
            await view.page.keyboard.press("ArrowLeft")
            assert await view.frame.evaluate("document.activeElement.dataset.tile") == "2"
            assert await view.violations() == []
            await view.shot("rtl")


async def test_a_failed_task_says_why(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        async with mount(caller, arguments={"task_id": task_id, "wait_seconds": 0}) as view:
            await view.shows("In the queue")
            sim.fail(task_id, "the drawing was lost")
            await view.shows("The job failed.")
            await view.shows("the drawing was lost")
            assert await view.violations() == []
            await view.shot("failed")


async def test_a_refused_call_says_that_nothing_was_charged(sim: Simulator, connect: Connect, mount: Mount) -> None:
    sim.inject("submit", faults.banned_word("crime"))
    async with (
        connect(sim) as caller,
        mount(caller, "generate_image", {"prompt": "a crime", "wait_seconds": 0}) as view,
    ):
        await view.frame.get_by_role("alert").wait_for()
        await view.shows("The prompt was refused. Nothing was charged.")
        assert await view.violations() == []
        await view.shot("refused")
    assert sim.ledger == []
    assert sim.faults_left() == 0


async def test_an_unconfirmed_submit_warns_and_its_job_can_be_shown(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    sim.inject("submit", faults.reset_after_accept())
    async with connect(sim) as caller, mount(caller, "generate_image", {"prompt": "a mug", "wait_seconds": 0}) as view:
        await view.shows("It may have been charged. Do not repeat it before the proxy's records are checked.")
        await view.button("Show this job").click()
        await view.shows("Unconfirmed")
        assert await view.violations() == []
        await view.shot("unconfirmed")
    assert len(sim.ledger) == 1


async def test_an_answer_without_its_facts_is_read_from_its_text(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    bare = {"isError": True, "content": [{"type": "text", "text": "busy: 10 tasks are open\nRetry after 5 s."}]}
    async with connect(sim) as caller, mount(caller, "generate_image", {"prompt": "a mug"}, result=bare) as view:
        await view.shows("Too many jobs are open. Nothing was charged.")
        await view.shows("10 tasks are open")
    assert sim.requests == []


async def test_a_stopped_call_offers_the_recent_tasks(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        await imagine(caller, "a kettle")
        async with mount(caller, "generate_image", {"prompt": "a mug --ar 3:2"}, answered=False) as view:
            await view.shows("Waiting for the answer…")
            await view.shows("a mug --ar 3:2")
            await view.tell("bridge.sendToolCancelled({ reason: 'stop' })")
            await view.shows("The call was stopped before its answer came.")
            await view.button("Show recent tasks").click()
            await view.shows("a kettle")
            assert await view.violations() == []


async def test_a_gallery_has_pages_and_opens_a_task(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        for number in range(5):
            sim.finish(await imagine(caller, f"mug {number}"))
        for row in (await caller.task("list_tasks"))["tasks"]:
            await caller.task("get_task", task_id=row["task_id"], wait_seconds=10)
        async with mount(caller, "list_tasks", {"limit": 3}) as view:
            await view.shows("3 tasks")
            await view.button("Load more").click()
            await view.shows("5 tasks")
            assert await view.button("Load more").count() == 0
            assert await view.violations() == []
            await view.frame.get_by_role("button").filter(has_text="mug 0").click()
            await view.pictures(4)
            await view.button("All tasks").click()
            await view.shows("5 tasks")
            assert [call.get("limit") for call in await view.calls("list_tasks") if "cursor" in call] == [3]
            await view.shot("gallery")


async def test_several_tasks_are_followed_together(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        first, second = await imagine(caller, "mug one"), await imagine(caller, "mug two")
        arguments = {"task_ids": [first, second, "nobody-s"], "wait_seconds": 0}
        async with mount(caller, "wait_for_tasks", arguments) as view:
            await view.shows("In the queue")
            await view.shows("Unknown")
            sim.finish(first)
            sim.fail(second, "lost")
            await view.shows("Done")
            await view.shows("Failed")
            assert await view.violations() == []


async def test_hostile_text_is_text(sim: Simulator, connect: Connect, mount: Mount) -> None:
    task = {
        "message": f"{HOSTILE} More with press_button: {HOSTILE}",
        "task_id": "1",
        "submission_id": "sub_1",
        "status": "succeeded",
        "kind": "button",
        "button": HOSTILE,
        "buttons": [HOSTILE],
        "prompt": HOSTILE,
        "warnings": [HOSTILE],
        "images": [{"index": 1, "url": "javascript:alert(1)", "media_type": "image/png"}],
        "next": [{"tool": "reroll", "arguments": {"task_id": "1"}}],
    }
    answer = {"content": [{"type": "text", "text": HOSTILE}], "structuredContent": task}
    picture = {"content": [{"type": "image", "data": '" onerror="x', "mimeType": "image/svg+xml"}]}

    async def hostile(name: str, _given: dict[str, Any]) -> dict[str, Any] | None:
        return picture if name == "view_image" else None

    async with (
        connect(sim) as caller,
        mount(caller, arguments={"task_id": "1"}, result=answer, instead=hostile) as view,
    ):
        await view.shows('<img src=x onerror="parent.postMessage(1)">')
        await view.shows("This picture cannot be shown.")
        await view.button("More").click()
        assert await view.frame.locator("b, img, script:not(body > script)").count() == 0
        assert await view.button("Open original").count() == 0
        assert await view.violations() == []


LATER = """new Promise(done => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage("after what was sent before");
})"""
GONE = """new Promise(done => new IntersectionObserver(
    ([body]) => body.isIntersecting === SEEN && done()).observe(document.body))"""


async def test_it_stops_asking_while_it_cannot_be_seen_and_when_it_is_torn_down(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        arguments = {"task_id": task_id, "wait_seconds": 0}
        async with mount(caller, arguments=arguments, stopped_clock=True) as view:
            polls = "window.sent.calls.filter(call => call.name === 'get_task').length"
            await view.shows("In the queue")

            async def asks_in(seconds: int) -> bool:
                before = await view.tell(polls)
                await view.page.clock.run_for(seconds * 1000)
                await view.frame.evaluate("parent.postMessage({}, '*')")  # messages arrive in order
                await view.tell(LATER)
                return bool(await view.tell(f"{polls} > {before}"))

            assert await asks_in(10)
            await view.tell("document.querySelector('iframe').style.marginTop = '5000px'")
            await view.frame.evaluate(GONE.replace("SEEN", "false"))
            assert not await asks_in(600)
            await view.tell("document.querySelector('iframe').style.marginTop = '0'")
            await view.frame.evaluate(GONE.replace("SEEN", "true"))
            assert await asks_in(60)
            assert await view.tell("bridge.teardownResource({})") == {}
            assert not await asks_in(600)


async def test_two_hundred_updates_leave_no_listener_and_no_node_behind(
    sim: Simulator, connect: Connect, mount: Mount
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        done = (await caller.call("get_task", task_id=task_id)).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        open_ = {**done, "structuredContent": {**done["structuredContent"], "status": "processing", "images": []}}
        async with mount(caller, arguments={"task_id": task_id}) as view:
            await view.pictures(4)
            update = """async ([open, done, times]) => {
                for (let i = 0; i < times; i += 1) {
                    open.structuredContent.progress = i % 99;
                    await bridge.sendToolResult(open);
                    await bridge.sendToolResult(done);
                    await bridge.sendHostContextChange({ theme: i % 2 ? "dark" : "light" });
                }
            }"""
            await view.tell(update, [open_, done, 10])
            await view.pictures(4)
            before = await view.counters()
            await view.tell(update, [open_, done, 200])
            await view.pictures(4)
            after = await view.counters()
            assert len(await view.sent("sizes")) < 500
    assert after["jsEventListeners"] <= before["jsEventListeners"]
    assert after["nodes"] <= before["nodes"] * 1.1 + 50
    assert after["heap"] <= before["heap"] * 1.3 + 1_000_000


async def test_full_screen_is_offered_where_the_host_has_it(sim: Simulator, connect: Connect, mount: Mount) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        context = {"availableDisplayModes": ["inline", "fullscreen"]}
        async with mount(caller, arguments={"task_id": task_id}, context=context) as view:
            await view.pictures(4)
            await view.button("Full screen").click()
            await view.button("Leave full screen").wait_for(timeout=PATIENCE)
            assert await view.sent("modes") == [{"mode": "fullscreen"}]


async def test_motion_stops_for_those_who_want_none(sim: Simulator, connect: Connect, mount: Mount) -> None:
    moving = "document.getAnimations().filter(one => one.playState === 'running').length"
    async with connect(sim) as caller:
        task_id = await imagine(caller)
        arguments = {"task_id": task_id, "wait_seconds": 0}
        async with mount(caller, arguments=arguments, reduced_motion="no-preference") as view:
            await view.shows("In the queue")
            assert await view.frame.evaluate(moving) > 0
        async with mount(caller, arguments=arguments, reduced_motion="reduce") as view:
            await view.shows("In the queue")
            assert await view.frame.evaluate(moving) == 0
