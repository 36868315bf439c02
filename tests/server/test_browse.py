"""The page of `mj-mcp browse`: who gets in, what it finds, and what it can do without a key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from calls import imagine
from conftest import KEY, Caller
from journals import Where
from views import grid

from mj_mcp.app import open_library
from mj_mcp.server.views.page import answer_from_library, browse_app
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
Browse = Callable[..., AbstractAsyncContextManager["Page"]]

TOKEN = "the-token-of-the-link"
PAGE = "http://127.0.0.1:8000"


class Page:
    """The page as its script uses it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.session: dict[str, str] = {}

    async def enter(self, token: str = TOKEN, **headers: str) -> httpx.Response:
        answer = await self.http.post("/enter", json={"token": token}, headers=headers)
        if answer.status_code == 200:
            self.session = {"Authorization": f"Bearer {answer.json()['session']}"}
        return answer

    async def ask(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json=body, headers=self.session)

    async def found(self, **search: Any) -> list[str]:
        """The prompts of what a search finds."""
        answer = await self.ask("/search", **search)
        assert answer.status_code == 200, answer.text
        return [row["prompt"] for row in answer.json()["structuredContent"]["tasks"]]

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = (await self.ask("/call", name=name, arguments=arguments)).json()
        return result


SQLITE = pytest.mark.parametrize("where", ["sqlite"], indirect=True)
"""For tests that read no row: one storage is enough."""


@pytest.fixture
def kept(where: Where) -> dict[str, str]:
    """The setting for the journal of each engine."""
    return {"MJ_DATABASE_URL": where.address} if where.engine == "postgres" else {}


@pytest.fixture
def connect(connect: Connect, kept: dict[str, str]) -> Connect:
    """The server on the journal that is looked at."""
    return partial(connect, **kept)


@pytest.fixture
def browse(settings_for: Callable[..., Settings], kept: dict[str, str]) -> Browse:
    """`async with browse(sim, every_account=True) as page`, without a key."""

    @asynccontextmanager
    async def start(sim: Simulator, *, every_account: bool = True) -> AsyncIterator[Page]:
        settings = settings_for(sim.url, **kept)
        async with open_library(settings, every_account=every_account) as library:
            app = browse_app(library, settings, TOKEN, answer_from_library(library))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url=PAGE) as http:
                yield Page(http)

    return start


@SQLITE
async def test_the_link_is_good_once(sim: Simulator, browse: Browse) -> None:
    async with browse(sim) as page:
        assert (await page.enter("a-guess")).status_code == 403
        assert (await page.enter()).status_code == 200
        assert (await page.enter()).status_code == 403
        assert await page.found() == []


@SQLITE
async def test_nothing_is_told_without_the_session(sim: Simulator, browse: Browse) -> None:
    async with browse(sim) as page:
        for path in ("/search", "/days", "/call", "/original"):
            for header in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
                page.session = header
                assert (await page.ask(path)).status_code == 401, path
        for path in ("/", "/view"):
            answer = await page.http.get(path)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert TOKEN not in answer.text


@SQLITE
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Length": "2000000"}, 413),
    ],
)
async def test_another_page_cannot_use_it(sim: Simulator, browse: Browse, headers: dict[str, str], status: int) -> None:
    async with browse(sim) as page:
        assert (await page.enter(**headers)).status_code == status
        assert (await page.enter(Origin=PAGE)).status_code == 200


async def test_tasks_are_found_by_words_kind_status_and_day(sim: Simulator, connect: Connect, browse: Browse) -> None:
    async with connect(sim) as caller:
        mug = await grid(sim, caller, "a red mug on a table")
        await imagine(caller, "a Blue MUG")
        await imagine(caller, "ein Mädchen im Regen")
        await caller.task("upscale_image", task_id=mug, index=2, wait_seconds=0)
        today = (await caller.task("get_task", task_id=mug))["submitted_at"][:10]
    async with browse(sim) as page:
        await page.enter()
        assert await page.found(words="mug") == ["a red mug on a table", "a Blue MUG", "a red mug on a table"]
        assert await page.found(words="mug TABLE", kind="imagine") == ["a red mug on a table"]
        assert await page.found(words="MÄDCHEN") == ["ein Mädchen im Regen"]
        assert await page.found(words=mug) == ["a red mug on a table"]
        assert await page.found(words="% _ ' --") == []
        assert len(await page.found(status="succeeded", day=today)) == 1
        assert await page.found(day="2001-01-01") == []
        assert (await page.ask("/search", day="yesterday")).json()["error"].startswith("`day` must be")
        assert (await page.ask("/search", kind="' OR 1=1")).status_code == 400
        days = (await page.ask("/days")).json()
    assert len(days) == 30
    assert days[-1] == {"day": today, "jobs": 4}
    assert sum(day["jobs"] for day in days) == 4


@pytest.mark.slow
async def test_a_search_has_pages(sim: Simulator, connect: Connect, browse: Browse) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="100") as caller:
        for number in range(33):
            await imagine(caller, f"mug {number}")
    async with browse(sim) as page:
        await page.enter()
        first = (await page.ask("/search", words="mug")).json()["structuredContent"]
        assert [row["prompt"] for row in first["tasks"]] == [f"mug {number}" for number in range(32, 2, -1)]
        assert await page.found(words="mug", cursor=first["next_cursor"]) == ["mug 2", "mug 1", "mug 0"]


async def test_every_account_is_shown_and_one_can_be_chosen(sim: Simulator, connect: Connect, browse: Browse) -> None:
    async with connect(sim) as caller:
        await imagine(caller, "mine")
    async with connect(sim, MJ_API_KEY=f"{KEY}-2") as other:
        await other.error("generate_image", prompt="theirs, refused", wait_seconds=0)
    async with browse(sim) as page:
        accounts = (await page.enter()).json()["accounts"]
        assert await page.found() == ["mine"]
        assert sorted([await page.found(account=name) for name in accounts]) == [[], ["mine"]]
        assert await page.found(status="refused") == ["theirs, refused"]
    async with browse(sim, every_account=False) as page:
        assert len((await page.enter()).json()["accounts"]) == 1


async def test_without_a_key_it_shows_pictures_and_buys_nothing(
    sim: Simulator, connect: Connect, browse: Browse
) -> None:
    async with connect(sim) as caller:
        task_id = await grid(sim, caller)
        await caller.call("view_image", task_id=task_id, index=1)
        open_id = await imagine(caller, "another")
    asked = len(sim.requests)
    async with browse(sim) as page:
        await page.enter()
        done = await page.call("get_task", task_id=task_id)
        assert [one["tool"] for one in done["structuredContent"]["next"]] == ["view_image", "save_images"]
        seen = await page.call("view_image", task_id=task_id, index=1, max_edge=256)
        assert [block["type"] for block in seen["content"]] == ["text", "image"]
        (file,) = (await page.call("save_images", task_id=task_id, indexes=[2]))["structuredContent"]["files"]
        assert file["index"] == 2
        original = await page.ask("/original", task_id=task_id, index=1)
        assert (original.status_code, original.headers["content-type"]) == (200, "image/png")
        opened = await page.call("get_task", task_id=open_id)
        assert opened["structuredContent"]["status"] == "queued"
        for tool in ("reroll", "generate_image", "press_button", "get_usage"):
            refused = await page.call(tool, task_id=task_id, prompt="more")
            assert refused["isError"]
            assert refused["content"][0]["text"].startswith("not_configured: ")
        unknown = await page.call("get_task", task_id="nobody-s")
        assert unknown["content"][0]["text"].startswith("task_not_found: ")
    assert len(sim.requests) == asked
    assert len(sim.ledger) == 2
