"""Whoever listens to a task is notified when it changes: in both generations, over each transport, whoever saw it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from conftest import PROTOCOLS, Served
from listeners import MODERN, OLDER, Listener, client_of, over_http, over_stdio
from lives import PATIENCE, live
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError

from mj_mcp.app import open_studio
from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.server import build_server
from mj_mcp.server.subscriptions import MAX_URIS
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
    pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]

STOP_SECONDS = 10.0


async def hears_a_whole_job(listener: Listener, sim: Simulator) -> None:
    task = await listener.task("generate_image", prompt="a mug", wait_seconds=0)
    uri, by_submission = f"mj://tasks/{task['task_id']}", f"mj://tasks/{task['submission_id']}"
    async with listener.listen(uri, by_submission, "mj://tasks"):
        sim.process(task["task_id"], progress=40)
        await listener.until(uri)
        assert (await listener.read(uri))["progress"] == 40
        each = {name: listener.heard.count(name) for name in (uri, by_submission, "mj://tasks")}
        sim.finish(task["task_id"])
        for name, heard in each.items():
            await listener.until(name, heard + 1)
        assert (await listener.read(uri))["status"] == "succeeded"
        assert [one["status"] for one in (await listener.read("mj://tasks"))["tasks"]] == ["succeeded"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_listens_on_stdio_hears_that_a_task_moved_and_that_it_ended(
    protocol: str, sim: Simulator, tmp_path: Path
) -> None:
    async with over_stdio(sim, tmp_path, protocol) as listener:
        await hears_a_whole_job(listener, sim)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_listens_over_http_hears_that_a_task_moved_and_that_it_ended(
    protocol: str, sim: Simulator, serve_http: Serve
) -> None:
    async with serve_http(sim) as served, over_http(served, protocol) as listener:
        await hears_a_whole_job(listener, sim)


@asynccontextmanager
async def in_process(settings: Settings, protocol: str) -> AsyncIterator[Listener]:
    async with open_studio(settings) as studio, client_of(build_server(studio, settings), protocol) as listener:
        yield listener


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_new_task_changes_the_list_and_a_poll_that_shows_nothing_changes_nothing(
    protocol: str, sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    settings = settings_for(sim.url, MJ_ARCHIVE="0", MJ_POLL_SECONDS="0.5")
    async with in_process(settings, protocol) as listener, listener.listen("mj://tasks"):
        task = await listener.task("generate_image", prompt="a mug", wait_seconds=0)
        await listener.until("mj://tasks")
        task_id = task["task_id"]
        async with listener.listen(f"mj://tasks/{task_id}"):
            await listener.task("get_task", task_id=task_id, wait_seconds=1.5)  # what its first poll shows is news, too
            heard, polls = len(listener.heard), len(sim.polls(task_id))
            await sim.until(lambda: len(sim.polls(task_id)) >= polls + 3, timeout=PATIENCE)
            assert len(listener.heard) == heard
            sim.finish(task_id)
            await listener.until("mj://tasks", listener.heard.count("mj://tasks") + 1)
        assert sorted(listener.heard[heard:]) == ["mj://tasks", f"mj://tasks/{task_id}"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_another_s_task_is_listened_to_like_one_that_does_not_exist(
    protocol: str, sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    anna_s, ben_s = (add_token(tmp_path / "data" / "tokens.json", name, SCOPES, now=0.0) for name in ("anna", "ben"))
    async with (
        serve_http(sim) as served,
        over_http(served, protocol, anna_s) as anna,
        over_http(served, protocol, ben_s) as ben,
    ):
        task = await anna.task("generate_image", prompt="hers", wait_seconds=0)
        uri, by_submission = f"mj://tasks/{task['task_id']}", f"mj://tasks/{task['submission_id']}"
        async with (
            anna.listen(uri, "mj://tasks"),
            ben.listen(uri, by_submission, "mj://tasks/of-nobody", "mj://tasks"),
        ):
            sim.finish(task["task_id"])
            await anna.until(uri)
            await anna.until("mj://tasks")
            await ben.client.list_tools()
            assert ben.heard == []
            await ben.task("generate_image", prompt="his", wait_seconds=0)
            await ben.until("mj://tasks")  # he does listen
            assert set(ben.heard) == {"mj://tasks"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_listens_hears_what_another_process_saw_and_hears_on_when_that_one_dies(
    protocol: str, sim: Simulator, tmp_path: Path
) -> None:
    async with over_stdio(sim, tmp_path, protocol) as listener:
        with anyio.fail_after(2 * PATIENCE):
            async with live(sim, tmp_path, "buyer") as buyer:
                task = await buyer.task("generate_image", prompt="a mug", wait_seconds=0)
                uri = f"mj://tasks/{task['task_id']}"
                async with listener.listen(uri):
                    sim.process(task["task_id"], progress=40)
                    await listener.until(uri)
                    assert (await listener.read(uri))["progress"] == 40
                    buyer.kill()
                    heard = listener.heard.count(uri)
                    sim.finish(task["task_id"])
                    await listener.until(uri, heard + 1)
                    assert (await listener.read(uri))["status"] == "succeeded"


async def test_an_older_client_that_has_unsubscribed_is_notified_no_more(
    sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    async with in_process(settings_for(sim.url, MJ_ARCHIVE="0"), OLDER) as listener:
        task = await listener.task("generate_image", prompt="a mug", wait_seconds=0)
        uri = f"mj://tasks/{task['task_id']}"
        await listener.client.unsubscribe_resource(uri)  # what was never subscribed to
        async with listener.listen(uri, "mj://tasks"):
            await listener.client.unsubscribe_resource(uri)
            sim.finish(task["task_id"])
            await listener.until("mj://tasks")
            await listener.client.list_tools()
            assert uri not in listener.heard


@pytest.mark.parametrize("uri", ["mj://task", "mj://tasks/", "mj://tasks/1/images/1", "mj://tasks/a b", "test://x"])
async def test_an_older_client_is_notified_of_the_uris_that_change(
    uri: str, sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    async with in_process(settings_for(sim.url), OLDER) as listener:
        with pytest.raises(
            MCPError, match=r"uri: you can subscribe to mj://tasks and mj://tasks/\{task_id\}, not "
        ) as refused:
            await listener.client.subscribe_resource(uri)
        assert uri in str(refused.value)


async def test_an_older_connection_listens_to_so_many_uris_and_no_more(
    sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    async with in_process(settings_for(sim.url), OLDER) as listener:
        for uri in ("mj://tasks", "mj://tasks", *(f"mj://tasks/{number}" for number in range(1, MAX_URIS))):
            await listener.client.subscribe_resource(uri)
        with pytest.raises(MCPError, match=f"has {MAX_URIS} subscriptions"):
            await listener.client.subscribe_resource("mj://tasks/one-more")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_nothing_is_kept_of_a_listener_that_has_left(
    protocol: str, sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    settings = settings_for(sim.url)
    async with open_studio(settings) as studio:
        server = build_server(studio, settings)
        listeners = server._subscriptions._listeners  # type: ignore[attr-defined]
        async with client_of(server, protocol) as listener, listener.listen("mj://tasks"):
            assert len(listeners) == 1
        with anyio.fail_after(PATIENCE):
            while listeners:  # noqa: ASYNC110 - the SDK's own clean-up
                await anyio.sleep(0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_subscriptions_are_offered_to_both_generations(
    protocol: str, sim: Simulator, settings_for: Callable[..., Settings]
) -> None:
    async with in_process(settings_for(sim.url), protocol) as listener:
        assert offers_subscriptions(listener)


async def test_without_sessions_they_are_offered_only_to_those_who_can_be_notified(
    sim: Simulator, serve_http: Serve
) -> None:
    async with serve_http(sim, "--stateless") as served:
        async with client_of(served.url, MODERN) as listener:
            assert offers_subscriptions(listener)
            await hears_a_whole_job(listener, sim)
        async with client_of(served.url, OLDER) as listener:
            assert not offers_subscriptions(listener)
            with pytest.raises(MCPError, match="Method not found"):
                await listener.client.subscribe_resource("mj://tasks")


def offers_subscriptions(listener: Listener) -> bool:
    capabilities = listener.client.server_capabilities
    assert capabilities.resources is not None
    return bool(capabilities.resources.subscribe)


async def test_a_stop_waits_for_nobody_who_listens(sim: Simulator, serve_http: Serve) -> None:
    async with (
        serve_http(sim) as served,
        over_http(served, OLDER) as older,
        older.listen("mj://tasks"),
        over_http(served, MODERN) as listener,
        listener.client.listen(resource_subscriptions=["mj://tasks"]) as stream,
    ):
        with anyio.fail_after(STOP_SECONDS):
            assert await served.stop(signal.SIGTERM) == 0
            with pytest.raises(SubscriptionLost):
                await anext(aiter(stream))
