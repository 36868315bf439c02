"""The server over HTTP: the main job through real clients, its sessions, and how it starts and stops.

Every server here is a process that listens on loopback, but for one test that has to change a table of the house.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from conftest import HOST, Caller, Served, environment
from lives import journal_file, rows
from mcp import Client
from mcp_types import CallToolResult, Implementation
from over_http import ASKING, LIST_TOOLS, MODERN, OURS, PATIENCE, by_hand, open_session, ping
from structlog.testing import capture_logs

from mj_mcp.app import DEFAULT_TIMINGS, Timings, open_studio
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.server import build_server
from mj_mcp.server.client_timeouts import DEFAULT_WAIT_SECONDS, SHARED_WAITS
from mj_mcp.server.http import http_app, listen
from mj_mcp.server.http import serve_http as serve
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.simulator import Simulator, faults

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]


WAYS = {
    "sessionless": ("2026-07-28", ()),
    "older, sessions": ("2025-11-25", ()),
    "older, stateless": ("2025-11-25", ("--stateless",)),
}
every_way = pytest.mark.parametrize(("protocol", "options"), WAYS.values(), ids=WAYS.keys())


# --- the main job


@every_way
async def test_the_main_job_runs_over_http_with_progress(
    protocol: str, options: tuple[str, ...], sim: Simulator, serve_http: Serve
) -> None:
    heard: list[tuple[float, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))
        if len(heard) == 1:
            sim.finish(sim.ledger[0].task_id)

    async with serve_http(sim, *options) as served, served.connect(protocol) as caller:
        assert len((await caller.client.list_tools()).tools) == 12
        with anyio.fail_after(PATIENCE):
            result = await caller.client.call_tool(
                "generate_image", {"prompt": "a mug", "wait_seconds": 15}, progress_callback=progress
            )
        assert isinstance(result.structured_content, dict)
        task = result.structured_content
        assert (task["status"], len(task["images"])) == ("succeeded", 4)
        assert [content.type for content in result.content[:2]] == ["text", "image"]
        assert heard == sorted(heard)
        assert len(heard) >= 1
        again = await caller.task("get_task", task_id=task["task_id"], wait_seconds=0)
        assert again["submission_id"] == task["submission_id"]
        assert (await caller.error("get_task", task_id="sub_unknown", wait_seconds=0))["code"] == "task_not_found"
        assert await served.stop() == 0
    assert len(sim.submits()) == 1


@every_way
async def test_a_caller_who_hangs_up_leaves_the_task_running(
    protocol: str, options: tuple[str, ...], sim: Simulator, serve_http: Serve
) -> None:
    async with serve_http(sim, *options) as served:
        async with served.connect(protocol) as caller, anyio.create_task_group() as group:
            group.start_soon(lambda: caller.call("generate_image", prompt="a mug", wait_seconds=60))
            await sim.until(lambda: len(sim.ledger) == 1)
            group.cancel_scope.cancel()
        async with served.connect(protocol) as caller:
            (task,) = (await caller.task("list_tasks"))["tasks"]
            assert task["status"] in {"submitting", "queued"}
            sim.finish(sim.ledger[0].task_id)
            with anyio.fail_after(PATIENCE):
                handle = task["task_id"] or task["submission_id"]
                done = await caller.task("get_task", task_id=handle, wait_seconds=15)
        assert (done["status"], done["task_id"]) == ("succeeded", sim.ledger[0].task_id)
    assert len(sim.submits()) == 1


@pytest.mark.parametrize("protocol", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize("stateless", [False, True])
async def test_a_call_blocks_for_as_long_as_its_host_survives(
    protocol: str,
    stateless: bool,
    sim: Simulator,
    settings_for: Callable[..., Settings],
) -> None:
    """The name comes with each request in one generation and with the session in the other; else it is not known."""
    named = protocol == "2026-07-28" or not stateless
    async with serving(settings_for(sim.url), stateless=stateless) as url:
        mode = protocol if protocol == "2026-07-28" else "legacy"
        async with Client(url, mode=mode, client_info=Implementation(name="MCP", version="1")) as client:
            with anyio.fail_after(PATIENCE):
                task = await Caller(client).task("generate_image", prompt="a mug", wait_seconds=0)
    (again,) = task["next"]
    assert again["arguments"]["wait_seconds"] == (SHARED_WAITS[0] if named else DEFAULT_WAIT_SECONDS)


@asynccontextmanager
async def serving(
    settings: Settings, *, stateless: bool = False, timings: Timings = DEFAULT_TIMINGS
) -> AsyncIterator[str]:
    """The server in this process, on a free port."""
    async with open_studio(settings, timings=timings) as studio:
        app = http_app(build_server(studio, settings, sessions=not stateless), settings, studio, stateless=stateless)
        listener = listen("127.0.0.1", 0, settings, protected=False)
        running = asyncio.create_task(serve(app, listener, on_stop=studio.release))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


HEAD = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "".join(f"{name}: {said}\r\n" for name, said in ASKING.items())
BROKEN = {
    "with a length": f'{HEAD}Content-Length: 500\r\n\r\n{{"jsonrpc": ',
    "in chunks": f'{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{{"jso\r\n',
    "of the newer protocol": f'{HEAD}MCP-Protocol-Version: 2026-07-28\r\nContent-Length: 500\r\n\r\n{{"jsonrpc": ',
    "before its first byte": f"{HEAD}Content-Length: 500\r\n\r\n",
}


@pytest.mark.parametrize("options", [(), ("--stateless",)])
async def test_an_upload_that_breaks_off_leaves_no_traceback(
    options: tuple[str, ...], sim: Simulator, serve_http: Serve
) -> None:
    async with serve_http(sim, *options) as served, by_hand(served) as client:
        host, port = served.base.removeprefix("http://").split(":")
        for head in BROKEN.values():
            async with await anyio.connect_tcp(host, int(port)) as wire:
                await wire.send(head.encode())
                await wire.send_eof()
                with anyio.fail_after(PATIENCE), contextlib.suppress(anyio.EndOfStream):
                    while True:  # until the server has noticed
                        await wire.receive()
        assert (await open_session(client)).status_code == 200
        assert await served.stop() == 0
    assert "Traceback" not in served.log.read_text()


# --- sessions


async def test_sessions_are_bounded_and_end_when_they_are_idle(sim: Simulator, serve_http: Serve) -> None:
    limits = {"MJ_HTTP_MAX_SESSIONS": "2", "MJ_HTTP_SESSION_SECONDS": "2"}
    async with serve_http(sim, **limits) as served, by_hand(served) as client:
        first, second, third = [await open_session(client) for _ in range(3)]
        assert [answer.status_code for answer in (first, second, third)] == [200, 200, 200]
        session = third.headers["Mcp-Session-Id"]
        assert await ping(client, session) == 200
        assert await ping(client, second.headers["Mcp-Session-Id"]) == 200
        assert await ping(client, first.headers["Mcp-Session-Id"]) == 404, "it was idle the longest"
        assert await ping(client, "f" * 32) == 404
        assert (await client.post("/mcp", headers=ASKING | MODERN, content=LIST_TOOLS)).status_code == 200
        pause = 1.0
        with anyio.fail_after(PATIENCE):
            while await ping(client, session) == 200:  # each ping begins its idle time anew
                await anyio.sleep(pause)
                pause *= 2
        assert await ping(client, second.headers["Mcp-Session-Id"]) == 404


async def test_without_sessions_there_is_nothing_to_bound(sim: Simulator, serve_http: Serve) -> None:
    async with serve_http(sim, "--stateless", MJ_HTTP_MAX_SESSIONS="1") as served, by_hand(served) as client:
        answers = [await open_session(client) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert not any("Mcp-Session-Id" in answer.headers for answer in answers)


# --- the start

EVERYWHERE = ["0.0.0.0", "::", "", "192.0.2.1"]
LOGIN = "a login (`mj-mcp tokens add NAME`, or MJ_AUTH_ISSUER)"
ADDRESS = "its public address. Add this line:"


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize(
    ("protected", "public_url", "missing"),
    [
        (False, "", f"{LOGIN} and {ADDRESS}\nMJ_PUBLIC_URL=https://mcp.example.com"),
        (False, f"https://{OURS}", f"{LOGIN}."),
        (True, "", f"{ADDRESS}\nMJ_PUBLIC_URL=https://mcp.example.com"),
    ],
)
def test_an_address_that_others_reach_needs_a_login_and_a_public_url(
    host: str, protected: bool, public_url: str, missing: str, sim_settings: Callable[..., Settings]
) -> None:
    settings = sim_settings(MJ_PUBLIC_URL=public_url)
    with pytest.raises(SettingsError) as refused:
        listen(host, 0, settings, protected=protected)
    assert str(refused.value) == f"by --host {host!r} other machines can reach this server, so it needs {missing}"


@pytest.mark.parametrize("names", ["127.0.0.1, pictures.example.com:8443", "10.1.2.3", "[2001:db8::1]:80"])
def test_a_name_that_others_use_needs_a_public_url(names: str, sim_settings: Callable[..., Settings]) -> None:
    """Without it, links behind a TLS proxy would be http://, and dead."""
    name = names.rpartition(" ")[2]
    with pytest.raises(SettingsError) as refused:
        listen("127.0.0.1", 0, sim_settings(MJ_HTTP_ALLOWED_HOSTS=names), protected=True)
    assert str(refused.value).splitlines()[-1] == f"MJ_PUBLIC_URL=https://{name}"


@pytest.mark.parametrize(
    ("public_url", "warned"),
    [("http://pictures.example.com", True), ("https://pictures.example.com", False), ("http://localhost:80", False)],
)
def test_an_unencrypted_public_url_is_taken_with_a_warning(
    public_url: str, warned: bool, sim_settings: Callable[..., Settings]
) -> None:
    settings = sim_settings(MJ_PUBLIC_URL=public_url)
    with capture_logs() as logs, contextlib.closing(listen("127.0.0.1", 0, settings, protected=False)):
        assert [line["event"] for line in logs] == ["public_url_unencrypted"] * warned


def test_with_both_such_an_address_is_taken(sim_settings: Callable[..., Settings]) -> None:
    """An address for documentation, which no machine has: nothing is opened to others by this test."""
    with pytest.raises(OSError, match="assign requested address"):
        listen("192.0.2.1", 0, sim_settings(MJ_PUBLIC_URL=f"https://{OURS}"), protected=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_needs_neither(host: str, sim_settings: Callable[..., Settings]) -> None:
    with contextlib.closing(listen(host, 0, sim_settings(), protected=False)) as listener:
        assert listener.getsockname()[0] in {"127.0.0.1", "127.0.0.2", "::1"}


async def test_a_refused_start_says_which_line_to_add_and_leaves_nothing(tmp_path: Path) -> None:
    done = await run(tmp_path, "--host", "0.0.0.0")
    assert (done.returncode, done.stdout) == (2, b"")
    said, line = done.stderr.decode().splitlines()
    assert said.startswith("mj-mcp: by --host '0.0.0.0' other machines can reach this server")
    assert line == "MJ_PUBLIC_URL=https://mcp.example.com"
    assert not (tmp_path / "data").exists()


async def test_a_port_that_is_taken_is_one_line(sim: Simulator, tmp_path: Path) -> None:
    done = await run(tmp_path, "--port", str(sim.port))
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"mj-mcp: cannot listen on 127.0.0.1 port {sim.port}: Address already in use")


async def run(home: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(PATIENCE):
        return await anyio.run_process(
            [sys.executable, "-m", "mj_mcp", "serve", "--http", *options],
            env=environment("http://127.0.0.1:9", home),
            check=False,
        )


# --- the stop


@pytest.mark.parametrize("protocol", ["2026-07-28", "2025-11-25"])
async def test_a_stop_during_a_post_waits_for_its_answer_and_records_it(
    protocol: str, sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    answered = asyncio.Event()
    sim.inject("submit", faults.held(answered))
    async with serve_http(sim) as served, served.connect(protocol) as caller:
        # The SDK's client asks for the tools after the first result of each, unless it knows them. After the stop
        # nobody would answer.
        await caller.client.list_tools()
        answers: list[CallToolResult] = []

        async def ask() -> None:
            answers.append(await caller.call("generate_image", prompt="a mug", wait_seconds=600))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await sim.until(lambda: len(sim.ledger) == 1, PATIENCE)
                served.process.send_signal(signal.SIGTERM)
            # The caller has its answer, while the server still waits for that of the proxy.
            assert served.process.returncode is None
            answered.set()
            assert await served.process.wait() == 0
        (answer,) = answers
    assert isinstance(answer.structured_content, dict)
    assert answer.structured_content["status"] == "submitting"
    assert sim.fired == {"held": 1}
    (row,) = rows(tmp_path)
    assert (row["status"], row["task_id"]) == ("queued", sim.ledger[0].task_id)
    assert row["submission_id"] == answer.structured_content["submission_id"]


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_ends_waits_with_an_answer(
    protocol: str, options: tuple[str, ...], by: signal.Signals, sim: Simulator, serve_http: Serve
) -> None:
    # The only poll is the one that the call asks for, so it shows that the call has arrived.
    async with (
        serve_http(sim, *options, MJ_POLL_SECONDS="300") as served,
        served.connect(protocol) as caller,
    ):
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        answers: list[dict[str, Any]] = []

        async def wait() -> None:
            answers.append(await caller.task("get_task", task_id=task["task_id"], wait_seconds=600))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await sim.until(lambda: len(sim.polls()) >= 1, PATIENCE)
                assert await served.stop(by) == 0
        assert [answer["status"] for answer in answers] == ["queued"]
    assert "Traceback" not in served.log.read_text()


# --- health


async def test_readiness_tells_the_truth_about_the_journal(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    async with serve_http(sim) as served, by_hand(served) as client:
        assert (await client.get("/healthz")).json() == {"live": True}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "journal": "ok"})
        with journal_file(tmp_path) as db:
            db.execute("ALTER TABLE tasks RENAME TO away")
        broken = await client.get("/readyz")
        assert (broken.status_code, broken.json()) == (503, {"ready": False, "journal": "unavailable"})
        assert (await client.get("/healthz")).status_code == 200
        with journal_file(tmp_path) as db:
            db.execute("ALTER TABLE away RENAME TO tasks")
        assert (await client.get("/readyz")).status_code == 200


class Unreadable(PollTimings):
    """Timings that cannot be read while the test says so: the poller reads them between its sweeps."""

    broken = False
    raised = 0

    def __getattribute__(self, name: str) -> Any:
        if Unreadable.broken and name in {"sweep", "idle_sweep"}:
            Unreadable.raised += 1
            raise RuntimeError(f"{name} cannot be read")
        return super().__getattribute__(name)


async def test_readiness_tells_when_the_task_that_polls_has_died_and_it_is_started_again(
    sim: Simulator, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unreadable, "broken", True)
    monkeypatch.setattr(Unreadable, "raised", 0)
    with capture_logs() as logs, anyio.fail_after(PATIENCE):
        async with (
            serving(settings_for(sim.url), timings=Timings(polling=Unreadable())) as url,
            httpx.AsyncClient(trust_env=False, base_url=url.removesuffix("/mcp"), timeout=PATIENCE) as client,
            Client(url, client_info=HOST) as connected,
        ):
            while (red := await client.get("/readyz")).status_code == 200:
                pass
            assert (red.status_code, red.json()) == (503, {"ready": False, "journal": "ok", "polling": "down"})
            caller = Caller(connected)
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
            assert task["status"] == "queued"
            Unreadable.broken = False
            while (await client.get("/readyz")).status_code == 503:
                pass
            sim.finish(task["task_id"])
            done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=PATIENCE, include_image=False)
            assert done["status"] == "succeeded"
    assert Unreadable.raised >= 1
    ended = [line for line in logs if line["event"] == "background_task_ended"]
    assert {line["task"] for line in ended} == {"polling"}
    assert all("cannot be read" in str(line["exc_info"].exceptions) for line in ended)


async def test_a_refused_key_does_not_take_a_replica_out(sim: Simulator, serve_http: Serve) -> None:
    """Finished tasks and their pictures need no key. The key is for the doctor and the metrics."""
    async with serve_http(sim, MJ_API_KEY="wrong-canary-77") as served, by_hand(served) as client:
        async with served.connect() as caller:
            error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "unauthorized"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "journal": "ok"})
        assert "canary" not in ready.text + served.log.read_text()
