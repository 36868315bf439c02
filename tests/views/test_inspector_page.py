"""The view in a host that others wrote: the web page of the MCP Inspector, in a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import View
from conftest import Served
from inspectors import PATIENCE, inspecting

from mj_mcp.simulator import Simulator

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

ServeHttp = Callable[..., AbstractAsyncContextManager[Served]]

SLOW = PATIENCE * 1000


@asynccontextmanager
async def opened(browser: Browser, link: str, shots: Path) -> AsyncIterator[View]:
    """The view that the Inspector mounts once its form is sent.

    Afterwards, the view asked for nothing, and no error is in the console but those of the Inspector's own files.
    """
    context = await browser.new_context(viewport={"width": 1300, "height": 1000})
    page = await context.new_page()
    page.set_default_timeout(SLOW)
    requests: list[str] = []
    console: list[str] = []
    page.on("request", lambda sent: requests.append(sent.url) if sent.frame.parent_frame else None)
    theirs = (link.partition("?")[0], "https://fonts.googleapis.com/")  # fonts, which nobody serves here

    def hear(line: ConsoleMessage) -> None:
        if not line.location["url"].startswith(theirs):
            console.append(f"{line.type}: {line.text}")

    page.on("console", hear)
    page.on("pageerror", lambda error: console.append(f"error: {error}"))
    await page.goto(link)
    yield await mounted(page, requests, console, shots)
    sandbox = page.frames[1].url
    await context.close()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/sandbox", sandbox)
    assert requests == [sandbox]  # the Inspector's own page around the view
    assert [line for line in console if line.startswith(("error", "warning"))] == []


async def mounted(page: Page, requests: list[str], console: list[str], shots: Path) -> View:
    """The call is made by hand: a link alone calls no tool."""
    await page.locator('[data-testid="connection-status"][data-status="connected"]').wait_for()
    await page.get_by_test_id("open-app").click()
    body = await page.frame_locator("iframe").frame_locator("iframe").locator("#app h1").element_handle()
    frame = await body.owner_frame()
    assert frame is not None
    return View(page, frame, requests, console, shots)


async def test_the_inspector_shows_it_from_the_queue_to_an_upscale_that_is_paid_once(
    sim: Simulator, serve_http: ServeHttp, browser: Browser, tmp_path: Path
) -> None:
    async with serve_http(sim) as served, inspecting(tmp_path) as inspector:
        link = inspector.link(served.url, "generate_image", prompt="a lighthouse", wait_seconds=0)
        async with opened(browser, link, tmp_path) as view:
            await view.shows("In the queue")
            (charge,) = sim.ledger
            sim.finish(charge.task_id)
            await view.pictures(4)
            await view.choose(2)
            await view.shot("inspector")
            await view.button("Upscale 2").dblclick()
            await view.shows("Upscale 2: one paid job.")
            assert len(sim.ledger) == 1
            await view.confirm()
            await view.shows("Upscale of 2")
            assert [charge.body.get("index") for charge in sim.ledger] == [None, 2]
            sim.finish(sim.ledger[-1].task_id)
            await view.pictures(1)
            assert await view.violations() == []
            await view.page.get_by_role("button", name="Toggle color scheme").click()
            await view.frame.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
            await view.shot("inspector-dark")
            assert await view.violations() == []
            assert "match its schema" not in await view.page.inner_text("body")
    assert len(sim.ledger) == 2
