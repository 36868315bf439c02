"""Buttons that ask for a prompt: the view asks the person for it before it pays, and keeps what was typed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from browsers import EVERYTHING, Mount, View
from conftest import IMAGE_EDGE, KEY, Caller
from views import grid

from mj_mcp.simulator import Simulator

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

PROMPT = "a mug --ar 3:2"


@asynccontextmanager
async def large(connect: Connect, **extra: str) -> AsyncIterator[tuple[Simulator, Caller, str]]:
    """An upscaled picture of a proxy that has buttons."""
    async with (
        Simulator(dialect="plus", key=KEY, job_seconds=None, image_edge=IMAGE_EDGE) as sim,
        connect(sim, MJ_PROXY_DIALECT="auto") as caller,
    ):
        task_id = await grid(sim, caller, PROMPT)
        upscale = (await caller.task("upscale_image", task_id=task_id, index=2, wait_seconds=0))["task_id"]
        sim.finish(upscale)
        await caller.task("get_task", task_id=upscale, wait_seconds=20)
        if not extra:
            yield sim, caller, upscale
            return
        async with connect(sim, MJ_PROXY_DIALECT="auto", **extra) as other:
            yield sim, other, upscale


def field(view: View) -> Any:
    return view.frame.get_by_role("textbox", name="Prompt")


async def focused(view: View) -> Any:
    return await view.frame.evaluate("document.activeElement.nodeName")


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (720, "dark")])
async def test_a_custom_zoom_asks_for_its_prompt_and_pays_once(
    connect: Connect, mount: Mount, width: int, theme: str
) -> None:
    async with large(connect) as (sim, caller, upscale):
        context = {"theme": theme, "containerDimensions": {"maxHeight": 400}}
        async with mount(caller, arguments={"task_id": upscale}, width=width, context=context) as view:
            await view.pictures(1)
            await view.button("Custom Zoom").click()
            assert await focused(view) == "TEXTAREA"
            assert await field(view).input_value() == f"{PROMPT} --zoom 2"
            assert await field(view).get_attribute("aria-describedby") == "hint"
            assert await view.violations() == []
            await view.shot(f"prompt-{theme}-{width}")
            await field(view).fill("a mug on\na table --zoom 1.8")
            await view.tell("bridge.sendHostContextChange({ theme: 'light' })")
            await view.page.keyboard.press("ArrowLeft")
            await view.confirm()
            await view.frame.get_by_role("heading", name="Custom Zoom").wait_for()
            (press,) = await view.calls("press_button")
    asked = {"task_id": upscale, "button": "Custom Zoom", "prompt": "a mug on a table --zoom 1.8", "wait_seconds": 0}
    assert press == asked
    assert [charge.endpoint for charge in sim.ledger] == ["imagine", "action", "modal"]


async def test_a_prompt_is_written_and_sent_by_keyboard_and_never_left_out(connect: Connect, mount: Mount) -> None:
    async with large(connect) as (sim, caller, upscale), mount(caller, arguments={"task_id": upscale}) as view:
        await view.pictures(1)
        await view.button("Enlarge picture 1").click()
        await view.button("Custom Zoom").focus()
        keys = view.page.keyboard
        await keys.press("Enter")
        await keys.press("Escape")
        assert await field(view).count() == 0
        assert await view.frame.evaluate("document.activeElement.innerText") == "Custom Zoom"
        await keys.press("Enter")
        await keys.press("ControlOrMeta+a")
        await keys.type("  ")
        await view.confirm()
        assert await focused(view) == "TEXTAREA"  # the browser says that it is empty
        assert await view.calls("press_button") == []
        await keys.type("a mug --zoom 15")
        await keys.press("ArrowLeft")  # shows no other picture
        await keys.type(".")
        await keys.press("Tab")
        await keys.press("Enter")
        await view.frame.get_by_role("heading", name="Custom Zoom").wait_for()
        assert [call["prompt"] for call in await view.calls("press_button")] == ["a mug --zoom 1.5"]
    assert len(sim.ledger) == 3


async def test_a_prompt_that_is_refused_can_be_corrected(connect: Connect, mount: Mount) -> None:
    async with large(connect) as (sim, caller, upscale), mount(caller, arguments={"task_id": upscale}) as view:
        await view.pictures(1)
        await view.button("Custom Zoom").click()
        await field(view).fill("a mug --repeat 4")
        await view.confirm()
        await view.shows("That request is not possible. Nothing was charged.")
        assert len(sim.ledger) == 2
        assert await field(view).input_value() == "a mug --repeat 4"
        assert await focused(view) == "TEXTAREA"
        assert await view.violations() == []
        await view.shot("prompt-refused")
        await field(view).fill("a mug --zoom 2")
        await view.confirm()
        await view.frame.get_by_role("heading", name="Custom Zoom").wait_for()
    assert len(sim.ledger) == 3


async def test_a_button_that_turns_out_to_need_a_prompt_asks_for_it(connect: Connect, mount: Mount) -> None:
    def named(result: Any, old: str, new: str) -> dict[str, Any]:
        data = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        if task := data.get("structuredContent"):
            task["buttons"] = [new if button == old else button for button in task.get("buttons", [])]
        return dict(data)

    async with large(connect) as (sim, caller, upscale):

        async def renamed(name: str, given: dict[str, Any]) -> dict[str, Any] | None:
            if name == "press_button" and given["button"] == "Ausschnitt":
                return named(await caller.call(name, **(given | {"button": "Custom Zoom"})), "", "")
            if name == "get_task":
                return named(await caller.call(name, **given), "Custom Zoom", "Ausschnitt")
            return None

        async with mount(caller, arguments={"task_id": upscale}, instead=renamed) as view:
            await view.pictures(1)
            await view.button("Ausschnitt").click()
            assert await field(view).count() == 0
            await view.confirm()
            await view.shows("asks for a prompt")
            assert len(sim.ledger) == 2
            assert await field(view).input_value() == PROMPT
            assert await focused(view) == "TEXTAREA"
            assert await view.violations() == []
            await field(view).fill("a mug --zoom 1.2")
            await view.confirm()
            await view.frame.get_by_role("heading", name="Custom Zoom").wait_for()
    assert len(sim.ledger) == 3


async def test_a_host_that_only_takes_messages_is_given_the_prompt_too(connect: Connect, mount: Mount) -> None:
    only = {name: EVERYTHING[name] for name in ("message", "updateModelContext")}
    async with (
        large(connect) as (sim, caller, upscale),
        mount(caller, arguments={"task_id": upscale}, capabilities=only) as view,
    ):
        await view.button("Custom Zoom").click()
        assert await view.violations() == []
        await field(view).fill("a mug {id} --zoom 1.5")
        await view.confirm("Continue")
        await view.shows("Asked in the chat: Custom Zoom.")
        (message,) = await view.sent("messages")
    wanted = f"Press the button “Custom Zoom” of task {upscale} with this prompt: a mug {{id}} --zoom 1.5"
    assert message["content"] == [{"type": "text", "text": wanted}]
    assert len(sim.ledger) == 2


async def test_a_server_that_only_reads_shows_no_button_that_pays(connect: Connect, mount: Mount) -> None:
    async with large(connect, MJ_READ_ONLY="1") as (_, caller, upscale):
        assert "Custom Zoom" in (await caller.task("get_task", task_id=upscale))["buttons"]
        async with mount(caller, arguments={"task_id": upscale}) as view:
            await view.pictures(1)
            await view.button("Save").wait_for()
            assert await view.frame.locator("[data-value^=press_button]").count() == 0
