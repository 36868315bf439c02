"""Which dialect a proxy speaks: found out by free requests, before anything is bought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import stamina

from mj_mcp.errors import StorageUnavailable
from mj_mcp.logs import redactor
from mj_mcp.proxy import Accepted, Change, Detection, Imagine, OutcomeUnknown, Press, Proxy, Refused, Trouble, Unknown
from mj_mcp.proxy.http import Http
from mj_mcp.proxy.transport import TRIES_BEFORE_SENDING
from mj_mcp.simulator import Simulator, faults
from mj_mcp.tasks import Kind, Observation

pytestmark = pytest.mark.anyio

KEY = "test-key-canary-5f1b"
FLAT = ["classic", "plus", "newapi"]
ALL = ["gateway", *FLAT]


@pytest.fixture(autouse=True)
def _tries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=TRIES_BEFORE_SENDING, cap=True):
        yield


class Memory:
    """What a journal remembers, and how often it was asked."""

    def __init__(self, name: str | None = None, *, is_away: bool = False) -> None:
        self.name = name
        self.is_away = is_away

    async def recall_dialect(self) -> str | None:
        if self.is_away:
            raise StorageUnavailable("away")
        return self.name

    async def remember_dialect(self, name: str) -> None:
        if self.is_away:
            raise StorageUnavailable("away")
        self.name = name


@asynccontextmanager
async def reached(
    dialect: Any, memory: Memory | None = None, key: str = KEY, choice: dict[str, Any] | None = None, **habits: Any
) -> AsyncIterator[tuple[Simulator, Proxy]]:
    async with Simulator(dialect=dialect, key=KEY, job_seconds=None, image_edge=64, **habits) as sim:
        http = Http(sim.url, key)
        try:
            yield sim, Proxy(http, redactor(KEY), Detection(http, memory=memory, **(choice or {})))
        finally:
            await http.aclose()


def headers(sim: Simulator) -> list[str]:
    """How the key was sent, request by request."""
    found = []
    for request in sim.requests:
        named = {"authorization", "mj-api-secret"} & request.headers.keys()
        found.append("+".join(sorted(named)))
    return found


BEARER, SECRET = "authorization", "mj-api-secret"


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [
        ("gateway", [BEARER, SECRET]),  # its answer is empty, as one to a guest may be
        ("classic", [BEARER, SECRET]),
        ("plus", [BEARER, SECRET]),
        ("newapi", [BEARER]),
    ],
)
async def test_each_dialect_is_found_out_without_a_charge(dialect: str, asked: list[str]) -> None:
    async with reached(dialect) as (sim, proxy):
        found, fetched = await proxy.identify()
        assert found.dialect is not None
        assert (found.dialect.name, fetched) == (dialect, Unknown())
        assert headers(sim) == asked
        assert {request.method for request in sim.requests} == {"GET"}


@pytest.mark.parametrize("unknown", ["empty", "null", "{}", "204", "404"])
async def test_a_gateway_is_found_however_it_says_that_it_knows_no_task(unknown: Any) -> None:
    async with reached("gateway", unknown_answer=unknown) as (_, proxy):
        found, _ = await proxy.identify()
        assert found.dialect is not None
        assert found.dialect.name == "gateway"


async def test_a_plus_that_lets_guests_in_gets_the_secret_and_no_guest_buys() -> None:
    async with reached("plus", guests=True) as (sim, proxy):
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)
        assert headers(sim) == [BEARER, SECRET, SECRET]


async def test_where_only_a_guest_was_answered_nothing_is_remembered() -> None:
    memory = Memory()
    async with reached("plus", memory, guests=True) as (sim, proxy):
        sim.inject("fetch", faults.delay(0))
        sim.inject("fetch", faults.reset_before_accept())
        found, fetched = await proxy.identify()
        assert (found.dialect, memory.name) == (None, None)
        assert isinstance(fetched, Trouble)
        assert sim.fired["reset_before_accept"] == 1
        assert headers(sim) == [BEARER, SECRET]


@pytest.mark.parametrize("dialect", ALL)
async def test_what_was_found_is_remembered_and_asked_for_once(dialect: str) -> None:
    memory = Memory()
    async with reached(dialect, memory) as (sim, proxy):
        task_ids = [await proxy.submit(Imagine(prompt), "sub_1") for prompt in ("a mug", "a jug")]
        assert all(isinstance(one, Accepted) for one in task_ids)
        assert len([one for one in sim.polls() if "check-" in one.path]) == (1 if dialect == "newapi" else 2)
        assert memory.name == dialect
    async with reached(dialect, memory) as (sim, proxy):
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)
        assert [request.method for request in sim.requests] == ["POST"]


@pytest.mark.parametrize("dialect", ALL)
async def test_a_journal_that_is_away_hinders_nobody(dialect: str) -> None:
    async with reached(dialect, Memory(is_away=True)) as (_, proxy):
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)


@pytest.mark.parametrize("dialect", FLAT)
async def test_a_person_may_name_it_and_nothing_is_asked(dialect: str) -> None:
    async with reached(dialect, choice={"dialect": dialect}) as (sim, proxy):
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)
        assert headers(sim) == [BEARER if dialect == "newapi" else SECRET]


async def test_a_person_may_say_how_the_key_is_sent() -> None:
    async with reached("newapi", choice={"auth": "secret"}) as (sim, proxy):
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)
        assert set(headers(sim)) == {SECRET}


@pytest.mark.parametrize("dialect", ["gateway", *FLAT])
async def test_a_wrong_key_is_refused_and_nothing_is_remembered(dialect: str) -> None:
    memory = Memory()
    async with reached(dialect, memory, key="wrong") as (sim, proxy):
        found, fetched = await proxy.identify()
        assert isinstance(fetched, Trouble)
        assert (found.dialect, fetched.code, memory.name) == (None, "unauthorized", None)
        refused = await proxy.submit(Imagine("a mug"), "sub_1")
        assert isinstance(refused, Refused)
        assert refused.failure.code == "unauthorized"
        assert sim.ledger == []


@pytest.mark.parametrize(
    "fault", [faults.status(502), faults.html(200), faults.status(429), faults.reset_before_accept()]
)
async def test_where_nothing_shows_a_change_is_not_sent_and_an_imagine_goes_as_to_the_gateway(fault: Any) -> None:
    memory = Memory()
    async with reached("gateway", memory) as (sim, proxy):
        for order in (Change(Kind.UPSCALE, "17", 1), Press("17", "Zoom")):
            sim.inject("fetch", fault)
            refused = await proxy.submit(order, "sub_1")
            assert isinstance(refused, Refused)
            assert refused.failure.code in {"upstream_unreachable", "busy"}
            assert sim.submits() == []
        sim.inject("fetch", fault)
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), Accepted)
        assert memory.name is None
        assert sim.fired[fault.name] == 3
        assert sim.submits()[0].json == {"prompt": "a mug"}


async def test_another_proxy_behind_the_same_url_is_found_out_when_it_refuses_the_key() -> None:
    memory = Memory("newapi")
    async with reached("plus", memory) as (sim, proxy):
        assert isinstance(await proxy.fetch("17"), Trouble)
        assert await proxy.fetch("17") == Unknown()
        assert memory.name == "plus"
        assert BEARER in headers(sim)[0]


async def test_a_remembered_name_that_this_version_does_not_know_is_found_out_anew() -> None:
    memory = Memory("next")
    async with reached("plus", memory) as (_, proxy):
        assert await proxy.fetch("17") == Unknown()
        assert memory.name == "plus"


async def test_every_caller_waits_for_the_one_who_asks() -> None:
    async with reached("classic") as (sim, proxy):
        await asyncio.gather(*(proxy.submit(Imagine(f"a mug {n}"), f"sub_{n}") for n in range(20)))
        assert len(sim.ledger) == 20
        assert len([one for one in sim.polls() if "check-" in one.path]) == 2


# --- the state


@pytest.mark.parametrize("dialect", ["classic", "plus"])
async def test_a_lost_submit_is_found_by_its_state(dialect: str) -> None:
    async with reached(dialect) as (sim, proxy):
        await proxy.submit(Imagine("a mug"), "sub_other")
        sim.inject("imagine", faults.reset_after_accept())
        assert isinstance(await proxy.submit(Imagine("a mug"), "sub_1"), OutcomeUnknown)
        assert await proxy.find("sub_1") == sim.ledger[1].task_id
        assert await proxy.find("sub_2") is None
        assert await proxy.find("sub") is None, "part of a state"


@pytest.mark.parametrize("dialect", ["gateway", "newapi"])
async def test_a_proxy_without_a_list_is_not_asked_for_one(dialect: str) -> None:
    async with reached(dialect) as (sim, proxy):
        await proxy.submit(Imagine("a mug"), "sub_1")
        before = len(sim.requests)
        assert await proxy.find("sub_1") is None
        assert len(sim.requests) == before


@pytest.mark.parametrize(
    "fault", [faults.status(500), faults.html(200), faults.wrong_json(b"null"), faults.wrong_json(b'[7, {"state": 7}]')]
)
async def test_a_list_that_cannot_be_read_finds_nothing(fault: Any) -> None:
    async with reached("plus") as (sim, proxy):
        await proxy.submit(Imagine("a mug"), "sub_1")
        sim.inject("list", fault)
        assert await proxy.find("sub_1") is None
        assert sim.fired[fault.name] == 1


# --- dialogs


async def test_a_button_that_asks_for_a_prompt_gets_it_and_the_task_goes_on() -> None:
    async with reached("plus") as (sim, proxy):
        upscaled = await upscale(sim, proxy)
        zoomed = await proxy.submit(Press(upscaled, "Custom Zoom", "a mug --zoom 2"), "sub_3")
        assert isinstance(zoomed, Accepted)
        action, modal = sim.submits()[-2:]
        assert (action.path, modal.path) == ("/mj/submit/action", "/mj/submit/modal")
        assert modal.json == {"taskId": zoomed.task_id, "prompt": "a mug --zoom 2"}
        assert isinstance(await proxy.fetch(zoomed.task_id), Observation)


@pytest.mark.parametrize("accept", [True, False])
async def test_a_dialog_whose_answer_is_lost_is_followed_by_its_polls(accept: bool) -> None:
    async with reached("plus") as (sim, proxy):
        upscaled = await upscale(sim, proxy)
        sim.inject("modal", faults.status(502, accept=accept))
        zoomed = await proxy.submit(Press(upscaled, "Custom Zoom", "a mug --zoom 2"), "sub_3")
        assert isinstance(zoomed, Accepted)
        fetched = await proxy.fetch(zoomed.task_id)
        assert isinstance(fetched, Observation)
        assert (fetched.upstream_status == "MODAL") is not accept


async def test_a_button_that_is_there_but_stale_is_read_anew() -> None:
    async with reached("plus", changing_buttons=True) as (sim, proxy):
        upscaled = await upscale(sim, proxy)
        assert isinstance(await proxy.submit(Press(upscaled, "Vary (Subtle)"), "sub_3"), Accepted)
        assert sim.duplicates() == []


async def upscale(sim: Simulator, proxy: Proxy) -> str:
    """The id of a finished upscale."""
    parent: str | None = None
    for order in (Imagine("a mug"), None):
        accepted = await proxy.submit(order or Change(Kind.UPSCALE, parent or "", 2), "sub_1")
        assert isinstance(accepted, Accepted)
        parent = accepted.task_id
        sim.finish(parent)
    assert parent is not None
    return parent


@pytest.mark.parametrize("dialect", ["plus", "newapi"])
async def test_an_account_with_remix_gets_its_dialog_answered(dialect: str) -> None:
    async with reached(dialect, remix=True) as (sim, proxy):
        grid = await proxy.submit(Imagine("a mug"), "sub_1")
        assert isinstance(grid, Accepted)
        sim.finish(grid.task_id)
        varied = await proxy.submit(Change(Kind.VARIATION, grid.task_id, 2), "sub_2")
        assert isinstance(varied, Accepted)
        assert [request.path.rpartition("/")[2] for request in sim.submits()] == ["imagine", "action", "modal"]
        assert [charge.task_id for charge in sim.ledger] == [grid.task_id, varied.task_id]
