"""How long a call blocks when it does not say: by a person's setting, by its host, or 25 s."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from conftest import PROTOCOLS, Caller
from mcp.shared.exceptions import MCPError

from mj_mcp.app import open_studio
from mj_mcp.hosts import (
    DEFAULT_WAIT_SECONDS,
    HOST_WAIT_SECONDS,
    ONCE_SECONDS,
    TWICE_SECONDS,
    wait_seconds_for,
)
from mj_mcp.journal import Cut
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.mark.parametrize("name", [None, "", "some-agent", "claude"])
def test_a_host_that_we_do_not_know_gets_what_all_survive(name: str | None) -> None:
    assert wait_seconds_for(name) == DEFAULT_WAIT_SECONDS == 25


def test_names_are_met_in_any_case() -> None:
    assert wait_seconds_for("Visual Studio Code") == HOST_WAIT_SECONDS["visual studio code"]
    assert all(name == name.lower() for name in HOST_WAIT_SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_hosts_own_time_is_used_unless_a_person_set_one(
    protocol: str,
    sim: Simulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HOST_WAIT_SECONDS, "hasty", 0.0)
    async with connect(sim, protocol=protocol, host="Hasty") as caller:
        task = await caller.task("generate_image", prompt="a mug")
        assert (task["status"], task["images"]) == ("queued", [])
    async with connect(sim, protocol=protocol, host="other", MJ_WAIT_SECONDS="0") as caller:
        assert (await caller.task("generate_image", prompt="a jug"))["status"] == "queued"


# ------------------------------------------------------------------------------ learned from what a host cut off


def test_a_host_that_cut_a_call_off_is_given_less_time() -> None:
    assert wait_seconds_for("some-agent", [Cut(10.0, 0.0)], now=1.0) == 8.0
    assert wait_seconds_for("claude-code", [Cut(60.0, 0.0), Cut(60.5, 1.0)], now=2.0) == 48.0


def test_a_cut_later_than_we_wait_changes_nothing() -> None:
    assert wait_seconds_for("some-agent", [Cut(60.0, 0.0)], now=1.0) == DEFAULT_WAIT_SECONDS


def test_one_cut_may_have_been_a_person_and_is_soon_forgotten() -> None:
    once = [Cut(3.0, 0.0), Cut(9.0, 1.0)]
    assert wait_seconds_for("some-agent", once, now=ONCE_SECONDS - 1) == 0.8 * 3.0
    assert wait_seconds_for("some-agent", once, now=ONCE_SECONDS + 2) == DEFAULT_WAIT_SECONDS
    twice = [*once, Cut(9.2, 2.0)]
    assert wait_seconds_for("some-agent", twice, now=ONCE_SECONDS + 5) == 0.8 * 9.0
    assert wait_seconds_for("some-agent", twice, now=TWICE_SECONDS + 5) == DEFAULT_WAIT_SECONDS


async def cut_off(caller: Caller, seconds: float, prompt: str) -> None:
    """A call whose host loses patience."""
    with anyio.move_on_after(seconds) as patience:
        await caller.call("generate_image", prompt=prompt, wait_seconds=30)
    assert patience.cancelled_caught


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_cut_one_call_off_does_not_cut_the_next_one_even_after_a_restart(
    protocol: str, sim: Simulator, spawn: Connect
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        await caller.client.list_tools()  # it runs: the newer protocol has no handshake that would tell
        await cut_off(caller, 1.5, "a mug")
        with anyio.fail_after(30):
            while not caller.logged("host_cut"):  # noqa: ASYNC110 - another process writes it
                await anyio.sleep(0.05)
    async with spawn(sim, protocol=protocol) as caller:
        with anyio.fail_after(10):
            task = await caller.task("generate_image", prompt="a jug")
        assert task["status"] == "queued"
        assert task["next"][0]["arguments"]["wait_seconds"] == 1
        (line,) = [line for line in caller.logged("tool_call") if line["outcome"] == "ok"]
        assert 0.8 < line["ms"] / 1000 < 1.5


async def test_a_host_that_leaves_teaches_nothing(sim: Simulator, spawn: Connect, tmp_path: Path) -> None:
    async with spawn(sim) as caller, anyio.create_task_group() as group:
        await caller.task("generate_image", prompt="a mug", wait_seconds=0)

        async def wait() -> None:
            with suppress(MCPError):
                await caller.call("generate_image", prompt="a mug", wait_seconds=30)

        group.start_soon(wait)
        await anyio.sleep(1.2)
        caller.stop()
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db:
        assert db.execute("SELECT count(*) FROM cuts").fetchone() == (0,)


async def test_a_new_cut_does_not_hide_what_was_known_before(
    sim: Simulator, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mj_mcp.hosts.LEARN_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("mj_mcp.hosts.LEAST_CUT_SECONDS", 0.0)
    async with open_studio(settings_for(sim.url)) as studio:
        patience, shortest = studio.patience, 1e-6
        await patience._journal.note_cut("ann", "agent", Cut(shortest, time.time()))

        async def call() -> None:
            async with patience.watching("ann", "agent"):
                await asyncio.get_running_loop().create_future()

        waiting = asyncio.create_task(call())
        await anyio.lowlevel.checkpoint()
        waiting.cancel()
        await asyncio.gather(waiting, *patience._learning, return_exceptions=True)
        await asyncio.gather(*patience._learning)
        assert len(await patience._journal.cuts("ann", "agent")) == 2
        assert await patience.seconds("ann", "agent") == 0.8 * shortest
