"""Replicas behind a balancer: whole servers as processes, one PostgreSQL, callers of both generations.

No call needs the replica that answered the one before: every request is a connection of its own, dealt round robin.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import psycopg
import pytest
from balancer import Balancer, balanced
from conftest import LOAD_SECONDS, PROTOCOLS, Caller, Served, environment, error_of
from databases import Database
from listeners import over_http
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from mj_mcp.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.filterwarnings("ignore:resources/subscribe is removed")]

Serve = Callable[..., AbstractAsyncContextManager[Served]]
PATIENCE = 90.0
SECRET = "canary-secret-for-replicas-0123456789abcdef"
CALLERS = 50
POLL = 1.0

TAKEOVER_SECONDS = 10.0
HEARD_SECONDS = 1.0


class Team:
    """Replicas on one database, the balancer before them, and what callers were answered."""

    def __init__(self, start: Callable[[str], Awaitable[Served]], balancer: Balancer, http: httpx2.AsyncClient) -> None:
        self.replicas: list[Served] = []
        self.balancer = balancer
        self.answered: dict[str, str] = {}
        self.asked_again: Counter[str] = Counter()
        self._start = start
        self._http = http

    @asynccontextmanager
    async def caller(self, protocol: str) -> AsyncIterator[Caller]:
        """A real client that keeps no connection, so that each of its requests may meet another replica."""
        transport = streamable_http_client(self.balancer.url, http_client=self._http)
        async with Client(transport, mode=protocol if protocol == PROTOCOLS[0] else "legacy") as client:
            yield Caller(client)

    async def join(self, name: str) -> None:
        """One more replica."""
        self.replicas.append(await self._start(name))
        self.balancer.ports.append(port_of(self.replicas[-1]))

    async def lose(self, replica: Served) -> float:
        """Kill it as a crash does; when it was dead."""
        self.replicas.remove(replica)
        replica.process.kill()
        await replica.process.wait()
        return time.time()

    async def buy(self, what: str) -> list[str]:
        """Fifty tasks at once; their ids."""
        ids: list[str] = []

        async def one(caller: Caller, number: int) -> None:
            task = await caller.task("generate_image", prompt=f"{what} {number}", wait_seconds=0)
            ids.append(task["task_id"])

        with anyio.fail_after(PATIENCE):
            async with (
                self.caller(PROTOCOLS[0]) as new,
                self.caller(PROTOCOLS[1]) as old,
                anyio.create_task_group() as group,
            ):
                for number in range(CALLERS):
                    group.start_soon(one, (new, old)[number % 2], number)
        return ids

    @asynccontextmanager
    async def waiting(self, ids: list[str]) -> AsyncIterator[None]:
        """Each is waited for by a call; the block begins when all calls wait, and ends when all callers are answered.

        A caller whose connection breaks asks again, by a new one.
        """
        in_the_middle: set[str] = set()

        async def wait(protocol: str, task_id: str) -> None:
            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                in_the_middle.add(task_id)

            arguments = {"task_id": task_id, "wait_seconds": 2 * PATIENCE, "include_image": False}
            while task_id not in self.answered:
                try:
                    async with self.caller(protocol) as caller:
                        result = await caller.client.call_tool("get_task", arguments, progress_callback=on_progress)
                    if result.is_error:  # on a busy machine the database may not answer all of them in time
                        assert error_of(result)["code"] == "storage_unavailable"
                        self.asked_again[task_id] += 1
                    else:
                        self.answered[task_id] = (result.structured_content or {})["status"]
                except* (MCPError, httpx2.TransportError):
                    self.asked_again[task_id] += 1

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for number, task_id in enumerate(ids):
                    group.start_soon(wait, PROTOCOLS[number % 2], task_id)
                await until(lambda: in_the_middle == set(ids))
                yield

    async def watched(self, ids: Collection[str]) -> list[set[str]]:
        """Which of these each replica polls, once all of them have been polled."""
        await until(lambda: set().union(*map(looks_of, self.replicas)) >= set(ids))
        return [set(looks_of(replica)) & set(ids) for replica in self.replicas]


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 - another process makes it true
            await anyio.sleep(0.05)


def port_of(served: Served) -> int:
    return int(served.base.rpartition(":")[2])


def looks_of(replica: Served) -> Counter[str]:
    """How often this replica has polled each task."""
    paths = [line["path"] for line in replica.logged("upstream_request") if line["method"] == "GET"]
    return Counter(path.split("/")[-2] for path in paths)


@asynccontextmanager
async def team(
    sim: Simulator, serve_http: Serve, home: Path, database_url: str, *options: str, **extra: str
) -> AsyncIterator[Team]:
    """Two replicas on one database, each with a data folder of its own unless a test says otherwise.

    `options` are those of the command; without any a replica keeps sessions, so older clients have to come back
    to it.
    """
    env = {"MJ_DATABASE_URL": database_url, "MJ_SECRET_KEY": SECRET, "MJ_OUTPUT_DIR": "", **extra}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Served:
            own = {"MJ_DATA_DIR": str(home / name), **env}
            return await stack.enter_async_context(serve_http(sim, *options, name=name, **own))

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        http = httpx2.AsyncClient(limits=limits, timeout=3 * PATIENCE, trust_env=False)
        balancer = await stack.enter_async_context(balanced())
        team = Team(start, balancer, await stack.enter_async_context(http))
        for name in ("one", "two"):
            await team.join(name)
        yield team


def rows(database_url: str) -> list[dict[str, Any]]:
    """Every row of the journal, past the program under test."""
    with psycopg.connect(database_url) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM tasks ORDER BY number")]


# --- a replica dies, the database restarts


async def one_dies(team: Team, sim: Simulator) -> list[str]:
    """Fifty tasks, and a replica that is killed while all of them are waited for."""
    ids = await team.buy("before")
    async with team.waiting(ids):
        doomed, survivor = team.replicas
        orphans, others = await team.watched(ids)
        died = await team.lose(doomed)
        assert orphans
        assert others
        assert not orphans & others
        # Every orphan is polled again, by the one who is left.
        await sim.until(lambda: all(sim.polls(one)[-1].at > died for one in orphans), TAKEOVER_SECONDS)
        finished = time.time()
        for one in ids:
            sim.finish(one)
    assert sum(team.asked_again.values()) >= CALLERS // 4, "half of the waits were on the replica that died"
    assert team.balancer.dead[port_of(doomed)] > 0
    # One poller for each, before and after: what the dead one polled before, the other one polled afterwards.
    seen = looks_of(survivor)
    for one in ids:
        assert seen[one] == sum(poll.at > died or one in others for poll in sim.polls(one))
        ends = [round(poll.at - finished, 3) for poll in sim.polls(one) if poll.at > finished]
        assert len(ends) == 1, f"it ends once, and is left alone: {ends}"
    return ids


async def the_database_restarts(team: Team, sim: Simulator, database: Database) -> list[str]:
    """Fifty tasks, and a database that goes away and comes back while all of them are waited for."""
    ids = await team.buy("after")
    team.asked_again.clear()
    (began,) = database.execute("SELECT pg_postmaster_start_time()")
    async with team.waiting(ids):
        mine, theirs = await team.watched(ids)
        for one in ids[: CALLERS // 2]:
            sim.finish(one)  # their ends are seen while the database is away, or soon after
        await anyio.to_thread.run_sync(database.restart)
        assert not team.answered.keys() & set(ids[CALLERS // 2 :])
        for one in ids[CALLERS // 2 :]:
            sim.finish(one)
    assert database.execute("SELECT pg_postmaster_start_time()") != [began]
    assert not team.asked_again, "no caller notices"
    # Whose a task was, it stayed.
    assert mine
    assert theirs
    assert [set(looks_of(replica)) & set(ids) for replica in team.replicas] == [mine, theirs]
    assert not mine & theirs
    return ids


def most_polls(sim: Simulator, task_id: str, *, orphan: bool) -> float:
    """What one watch makes of it: a poll at the submit's pace at most, and one for each wish that somebody has.

    Wishes: the call that waits, the same call asked again, and who takes the task over and knows nothing of it yet.
    """
    bought = next(charge.at for charge in sim.ledger if charge.task_id == task_id)
    return 1 + (sim.polls(task_id)[-1].at - bought) / POLL + 1 + 2 * orphan


async def test_fifty_waits_outlive_a_replica_and_fifty_more_a_restart_of_the_database(
    sim: Simulator, serve_http: Serve, database: Database, database_url: str, tmp_path: Path
) -> None:
    settings = {"MJ_POLL_SECONDS": str(POLL), "MJ_MAX_OPEN_TASKS": str(CALLERS), "MJ_ARCHIVE": "0"}
    async with team(sim, serve_http, tmp_path, database_url, "--stateless", **settings) as both:
        first = await one_dies(both, sim)
        await both.join("three")
        second = await the_database_restarts(both, sim, database)
    for one in first + second:
        assert len(sim.polls(one)) <= most_polls(sim, one, orphan=one in first)
    # Charged once each, one row each, answered once each.
    bought = Counter(charge.task_id for charge in sim.ledger)
    assert bought == Counter(first + second) == Counter(row["task_id"] for row in rows(database_url))
    assert len(sim.submits()) == len(bought) == 2 * CALLERS
    assert sim.duplicates() == []
    assert {row["status"] for row in rows(database_url)} == {"succeeded"}
    assert both.answered == dict.fromkeys(bought, "succeeded")


# --- what one replica knows, the other one knows


async def test_callers_of_one_replica_hear_within_a_second_of_what_the_other_one_saw(
    sim: Simulator, serve_http: Serve, database_url: str, tmp_path: Path
) -> None:
    async with team(sim, serve_http, tmp_path, database_url, "--stateless", MJ_ARCHIVE="0") as both:
        watching, hearing = both.replicas
        async with watching.connect() as buyer:
            task_id = (await buyer.task("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        both.balancer.ports = [port_of(hearing)]
        waiting, heard = set[str](), list[float]()

        async def wait(protocol: str) -> None:
            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                waiting.add(protocol)

            arguments = {"task_id": task_id, "wait_seconds": 2 * PATIENCE, "include_image": False}
            async with both.caller(protocol) as caller:
                result = await caller.client.call_tool("get_task", arguments, progress_callback=on_progress)
                heard.append(time.time())
                assert (result.structured_content or {})["status"] == "succeeded"

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for protocol in PROTOCOLS:
                    group.start_soon(wait, protocol)
                await until(lambda: waiting == set(PROTOCOLS))
                finished = time.time()
                sim.finish(task_id)
        seen = sim.polls(task_id)[-1].at
        assert seen > finished
        assert max(heard) - seen <= HEARD_SECONDS + LOAD_SECONDS
        assert looks_of(watching)[task_id] == len(sim.polls(task_id))
        assert not looks_of(hearing)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_listens_at_one_replica_hears_what_the_other_saw_and_hears_on_when_that_one_dies(
    protocol: str, sim: Simulator, serve_http: Serve, database_url: str, tmp_path: Path
) -> None:
    async with team(sim, serve_http, tmp_path, database_url, MJ_ARCHIVE="0") as both:
        watching, hearing = both.replicas
        async with watching.connect() as buyer:
            task_id = (await buyer.task("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        uri = f"mj://tasks/{task_id}"
        with anyio.fail_after(2 * PATIENCE):
            async with over_http(hearing, protocol) as listener, listener.listen(uri):
                sim.process(task_id, progress=40)
                await listener.until(uri)
                assert (await listener.read(uri))["progress"] == 40
                assert not looks_of(hearing), "it heard of a poll that the other one made"
                heard = listener.heard.count(uri)
                await both.lose(watching)
                sim.finish(task_id)
                await listener.until(uri, heard + 1)
                assert (await listener.read(uri))["status"] == "succeeded"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_link_that_one_replica_signed_opens_on_the_other(
    shared: bool, sim: Simulator, serve_http: Serve, database_url: str, tmp_path: Path
) -> None:
    """From a folder that both have; or, where the other one lacks the picture, from the proxy's link."""

    def fetched() -> int:
        return sum("/pictures/" in seen.path for seen in sim.requests)

    folder = {"MJ_DATA_DIR": str(tmp_path / "shared")} if shared else {}
    async with (
        team(sim, serve_http, tmp_path, database_url, "--stateless", **folder) as both,
        both.replicas[0].connect() as caller,
        httpx.AsyncClient(trust_env=False) as browser,
    ):
        task_id = (await caller.task("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        sim.finish(task_id, images=1)
        (image,) = (await caller.task("get_task", task_id=task_id, wait_seconds=PATIENCE))["images"]
        assert fetched() == 1
        one, two = both.replicas
        assert image["url"].startswith(one.base)
        at_home = await browser.get(image["url"])
        for _ in range(2):  # the second time it is in the other one's own archive
            elsewhere = await browser.get(image["url"].replace(one.base, two.base))
            assert (elsewhere.status_code, elsewhere.content) == (200, at_home.content)
            assert elsewhere.headers["content-type"] == "image/png"
        assert fetched() == (1 if shared else 2)


async def test_replicas_without_a_secret_in_common_do_not_start(tmp_path: Path) -> None:
    env = environment("http://127.0.0.1:9", tmp_path, MJ_DATABASE_URL="postgresql://mj@127.0.0.1:9/mj")
    with anyio.fail_after(PATIENCE):
        done = await anyio.run_process(
            [sys.executable, "-m", "mj_mcp", "serve", "--http", "--stateless", "--port", "0"], env=env, check=False
        )
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("mj-mcp: MJ_SECRET_KEY is not set: servers that share a database must sign links with")
    assert not (tmp_path / "data").exists()
