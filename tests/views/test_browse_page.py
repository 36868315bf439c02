"""`mj-mcp browse` as a person uses it: the real command, the real page, a real browser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio import fail_after, open_process
from anyio.streams.text import TextReceiveStream
from browsers import PATIENCE, axe
from calls import imagine
from conftest import Caller, environment
from views import grid

from mj_mcp.simulator import Simulator

if TYPE_CHECKING:
    from playwright.async_api import Browser, Frame, Page

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def browsing(sim: Simulator, home: Path, *options: str, **extra: str) -> AsyncIterator[str]:
    """The link that the command prints. Ctrl-C ends it with 0."""
    process = await open_process(
        [sys.executable, "-m", "mj_mcp", "browse", "--no-open", *options],
        env={name: value for name, value in environment(sim.url, home, **extra).items() if value},
        stdin=subprocess.DEVNULL,
        stderr=None,
    )
    try:
        assert process.stdout is not None
        said = ""
        with fail_after(30):
            async for text in TextReceiveStream(process.stdout):
                said += text
                if "Ctrl-C ends it." in said:
                    break
        (link,) = re.findall(r"http://127\.0\.0\.1:\d+/#\S{40,}", said)
        yield link
        process.send_signal(signal.SIGINT)
        with fail_after(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.aclose()


class Open:
    """The page in a browser, and the view in it."""

    def __init__(self, page: Page, foreign: list[str]) -> None:
        self.page = page
        self.foreign = foreign

    @property
    def view(self) -> Frame:
        return self.page.frames[1]

    async def cards(self, count: int) -> None:
        """Wait until this many tasks are listed."""
        counted = "count => document.querySelectorAll('.card').length === count"
        await self.view.wait_for_function(counted, arg=count, timeout=PATIENCE)


@asynccontextmanager
async def opened(browser: Browser, link: str, **options: Any) -> AsyncIterator[Open]:
    """Afterwards, nothing was asked of anybody but the command, and the console has no error."""
    context = await browser.new_context(viewport={"width": 1100, "height": 900}, **options)
    page = await context.new_page()
    wrong: list[str] = []
    page.on("console", lambda line: wrong.append(line.text) if line.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    origin = link.partition("/#")[0]
    page.on("request", lambda sent: None if sent.url.startswith((origin, "data:", "blob:")) else wrong.append(sent.url))
    await page.goto(link)
    yield Open(page, wrong)
    await context.close()
    assert wrong == []


async def test_pictures_are_found_opened_and_made_from_once(
    sim: Simulator, connect: Connect, browser: Browser, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        await grid(sim, caller, "a red mug")
        await grid(sim, caller, "a blue kettle")
    async with browsing(sim, tmp_path) as link, opened(browser, link) as there:
        await there.page.get_by_text("2 jobs in 30 days").wait_for()
        await there.cards(2)
        await there.page.get_by_label("Prompt or id").fill("MUG")
        await there.cards(1)
        assert await axe(there.page.main_frame) == []
        assert await axe(there.view) == []
        await there.view.get_by_role("button").filter(has_text="a red mug").click()
        await there.view.get_by_role("button", name="Picture 4 of 4", exact=True).wait_for(timeout=PATIENCE)
        async with there.page.expect_download() as downloading:
            await there.view.get_by_role("button", name="Picture 4 of 4", exact=True).click()
            await there.view.get_by_role("button", name="Download", exact=True).click()
        file = await (await downloading.value).path()
        assert file.read_bytes().startswith(b"\x89PNG")
        await there.view.get_by_role("button", name="Reroll", exact=True).click()
        since = await there.view.evaluate("performance.now()")
        await there.view.wait_for_function("since => performance.now() - since > 500", arg=since)
        await there.view.get_by_role("button", name="Yes, pay for one job").dblclick()
        await there.view.get_by_text("In the queue").wait_for(timeout=PATIENCE)
        await there.page.get_by_text("3 jobs in 30 days").wait_for()
    assert [charge.endpoint for charge in sim.ledger] == ["imagine", "imagine", "change"]


async def test_without_a_key_it_only_shows_and_the_link_is_good_once(
    sim: Simulator, connect: Connect, browser: Browser, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller, "a red mug")
        await caller.call("view_image", task_id=task_id, index=1)
        await imagine(caller, "a kettle")
    asked = len(sim.requests)
    async with browsing(sim, tmp_path, MJ_API_KEY="") as link:
        async with opened(browser, link, color_scheme="dark") as there:
            await there.cards(2)
            assert link.partition("#")[2] not in there.page.url
            await there.view.get_by_role("button").filter(has_text="a red mug").click()
            await there.view.get_by_role("button", name="Picture 2 of 4", exact=True).click()
            await there.view.get_by_role("button", name="Save", exact=True).wait_for()
            assert await there.view.get_by_role("button", name="Upscale 2").count() == 0
            assert await axe(there.page.main_frame) == []
            await there.page.reload()
            await there.cards(2)
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(link)
        await page.get_by_role("alert").get_by_text("this link is not valid, or was used already").wait_for()
        await context.close()
    assert len(sim.requests) == asked
