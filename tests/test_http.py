"""The server over HTTP: the main job through real clients, what the door refuses, and how it starts and stops.

Every server here is a process that listens on loopback, but for one test that has to change a table of the house.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from conftest import HOST, INITIALIZE, KEY, Caller, Served, environment
from lives import rows
from mcp import Client
from mcp_types import CallToolResult, Implementation
from structlog.testing import capture_logs

from mj_mcp.app import DEFAULT_TIMINGS, Timings, open_studio
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.server import build_server
from mj_mcp.server.client_timeouts import DEFAULT_WAIT_SECONDS, SHARED_WAITS
from mj_mcp.server.host_guard import HostGuard
from mj_mcp.server.http import http_app, listen
from mj_mcp.server.http import serve_http as serve
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.simulator import Simulator, faults

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]

PATIENCE = 60.0

WAYS = {
    "sessionless": ("2026-07-28", ()),
    "older, sessions": ("2025-11-25", ()),
    "older, stateless": ("2025-11-25", ("--stateless",)),
}
every_way = pytest.mark.parametrize(("protocol", "options"), WAYS.values(), ids=WAYS.keys())

MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
ASKING = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
LIST_TOOLS = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}})


@asynccontextmanager
async def by_hand(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, base_url=served.base, timeout=PATIENCE) as client:
        yield client


async def open_session(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/mcp", headers=ASKING, json=INITIALIZE)


async def ping(client: httpx.AsyncClient, session: str) -> int:
    headers = ASKING | {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    answer = await client.post("/mcp", headers=headers, json={"jsonrpc": "2.0", "id": 2, "method": "ping"})
    return answer.status_code


# --- the main job


@every_way
async def test_the_main_job_runs_over_http_with_progress(
    protocol: str, options: tuple[str, ...], sim: Simulator, serve_http: Serve
) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        if len(told) == 1:
            sim.finish(sim.ledger[0].task_id)

    async with serve_http(sim, *options) as served, served.connect(protocol) as caller:
        assert len((await caller.client.list_tools()).tools) == 11
        with anyio.fail_after(PATIENCE):
            result = await caller.client.call_tool(
                "generate_image", {"prompt": "a mug", "wait_seconds": 15}, progress_callback=progress
            )
        assert isinstance(result.structured_content, dict)
        task = result.structured_content
        assert (task["status"], len(task["images"])) == ("succeeded", 4)
        assert [content.type for content in result.content[:2]] == ["text", "image"]
        assert told == sorted(told)
        assert len(told) >= 1
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


# --- the door

OURS = "mcp.example.com"
PAGE = "https://app.example.com"
LIMIT = 4096


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1024):
        yield b" " * 1024


DOOR: list[tuple[str, dict[str, str], bytes | int, int]] = [
    ("our name", {"Host": OURS}, b"", 200),
    ("our name in capitals", {"Host": OURS.upper()}, b"", 200),
    ("our name with a port", {"Host": f"{OURS}:8443"}, b"", 200),
    ("one more name", {"Host": "also.example.com"}, b"", 200),
    ("one more name, with its port", {"Host": "10.1.2.3:8000"}, b"", 200),
    ("that name with another port", {"Host": "10.1.2.3:8001"}, b"", 421),
    ("a foreign name", {"Host": "evil.example"}, b"", 421),
    ("our name in a longer one", {"Host": f"{OURS}.evil.example"}, b"", 421),
    ("a longer one in front", {"Host": f"evil.{OURS}"}, b"", 421),
    ("loopback, when other names are set", {"Host": "127.0.0.1"}, b"", 421),
    ("our name with a wrong port", {"Host": f"{OURS}:x"}, b"", 421),
    ("no name", {"Host": ""}, b"", 421),
    ("a page that may", {"Host": OURS, "Origin": PAGE}, b"", 200),
    ("a page of ours", {"Host": OURS, "Origin": f"https://{OURS}"}, b"", 200),
    ("a page without an origin", {"Host": OURS, "Origin": "null"}, b"", 403),
    ("a foreign page", {"Host": OURS, "Origin": "https://evil.example"}, b"", 403),
    ("that page on another port", {"Host": OURS, "Origin": f"{PAGE}:444"}, b"", 403),
    ("that page without TLS", {"Host": OURS, "Origin": PAGE.replace("https", "http")}, b"", 403),
    ("a page of our machine", {"Host": OURS, "Origin": "http://localhost:3000"}, b"", 403),
    ("a foreign page with our name in it", {"Host": OURS, "Origin": f"https://{OURS}@evil.example"}, b"", 403),
    ("a page of no web with our name", {"Host": OURS, "Origin": f"chrome-extension://{OURS}"}, b"", 403),
    ("an origin that is none", {"Host": OURS, "Origin": "http://["}, b"", 403),
    ("as long as may be", {"Host": OURS}, LIST_TOOLS.encode().ljust(LIMIT), 200),
    ("one byte too long", {"Host": OURS}, LIST_TOOLS.encode().ljust(LIMIT + 1), 413),
    ("too long without saying so", {"Host": OURS}, LIMIT * 4, 413),
    ("no JSON", {"Host": OURS}, b"{", 400),
    ("JSON too deep", {"Host": OURS}, b"[" * 4000, 400),
    ("no object", {"Host": OURS}, b"7", 400),
    ("a batch", {"Host": OURS}, f"[{LIST_TOOLS}]".encode(), 400),
    ("not UTF-8", {"Host": OURS}, b'"\xff"', 400),
    ("no type", {"Host": OURS, "Content-Type": "text/plain"}, b"", 400),
]


async def test_the_door_lets_in_what_it_should_and_nothing_else(sim: Simulator, serve_http: Serve) -> None:
    names = {
        "MJ_PUBLIC_URL": f"https://{OURS.title()}",
        "MJ_HTTP_ALLOWED_HOSTS": " also.Example.com, 10.1.2.3:8000",
        "MJ_HTTP_ALLOWED_ORIGINS": PAGE,
    }
    async with serve_http(sim, MJ_HTTP_MAX_BODY_BYTES=str(LIMIT), **names) as served, by_hand(served) as client:
        answered = {}
        for case, headers, body, _ in DOOR:
            content: Any = body or LIST_TOOLS
            if isinstance(body, int):
                content = async_chunks(body)
            answer = await client.post("/mcp", headers=ASKING | MODERN | headers, content=content)
            answered[case] = answer.status_code
            for secret in (KEY, sim.url):
                assert secret not in answer.text
        assert answered == {case: status for case, _, _, status in DOOR}
        for path in ("/files/x", "/", "/.well-known/oauth-protected-resource", "/nowhere"):
            assert (await client.get(path, headers={"Host": "evil.example"})).status_code == 421, path
            assert (await client.get(path, headers={"Host": OURS, "Origin": "null"})).status_code == 403, path
            long = await client.post(path, headers={"Host": OURS}, content=b" " * (LIMIT + 1))
            assert long.status_code == 413, path
        at_mcp = await client.post("/mcp/", headers=ASKING | MODERN | {"Host": OURS}, content=LIST_TOOLS)
        assert at_mcp.status_code == 200, "a slash at the end is no other place"
        assert (await client.get("/nowhere", headers={"Host": OURS})).status_code == 404
        assert (await client.get("/healthz")).status_code == 200, "a supervisor knows an address, and no name"
    assert "Traceback" not in served.log.read_text()


async def async_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1024):
        yield b" " * 1024


async def test_two_hosts_are_none(sim: Simulator, serve_http: Serve) -> None:
    async with serve_http(sim) as served:
        host, port = served.base.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as wire:
            await wire.send(b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
            assert int((await wire.receive()).split()[1]) in {400, 421}
        async with await anyio.connect_tcp(host, int(port)) as wire:
            await wire.send(b"GET /mcp HTTP/1.0\r\n\r\n")
            assert int((await wire.receive()).split()[1]) == 421


@pytest.mark.parametrize("names", [[], ["127.0.0.1", "evil.example"], ["evil.example", "127.0.0.1"], ["127.0.0.1"] * 2])
async def test_the_door_itself_takes_two_hosts_for_none(
    names: list[str], sim_settings: Callable[..., Settings]
) -> None:
    """Whatever the HTTP server in front of it lets through."""
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "GET", "path": "/mcp", "headers": [(b"host", name.encode()) for name in names]}
    await HostGuard(_nobody, sim_settings())(scope, _nobody, send)
    assert said[0]["status"] == 421


async def _nobody(*_args: Any) -> Any:
    pytest.fail("nobody is asked")


async def test_a_browser_may_ask_for_pages_that_are_named_only(sim: Simulator, serve_http: Serve) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, mcp-param-x"}
    async with serve_http(sim, MJ_HTTP_ALLOWED_ORIGINS=PAGE) as served, by_hand(served) as client:
        allowed = await client.options("/mcp", headers=ask | {"Origin": PAGE})
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
        assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        answer = await client.post("/mcp", headers=ASKING | {"Origin": PAGE}, json=INITIALIZE)
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Mcp-Session-Id" in answer.headers["Access-Control-Expose-Headers"]
        refused = await client.options("/mcp", headers=ask | {"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
    async with serve_http(sim) as served, by_hand(served) as client:
        assert (await client.options("/mcp", headers=ask | {"Origin": PAGE})).status_code == 403


async def test_what_stands_in_a_link_is_not_logged(sim: Simulator, serve_http: Serve) -> None:
    async with serve_http(sim, MJ_LOG_LEVEL="debug") as served, by_hand(served) as client:
        await client.get(
            "/mcp?token=canary-in-a-query&code=canary-in-a-query",
            headers={"Authorization": "Bearer canary-in-a-header"},
        )
        await client.get("/nowhere?token=canary-in-a-query", headers={"Host": "evil.example"})
        assert (await client.get("/files/canary-in-a-path")).status_code == 404
        assert served.logged("http_refused") != []
        assert await served.stop() == 0
    assert "canary" not in served.log.read_text()


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


@pytest.fixture
def sim_settings(settings_for: Callable[..., Settings]) -> Callable[..., Settings]:
    return lambda **extra: settings_for("http://127.0.0.1:9", **extra)


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


@every_way
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_ends_waits_with_an_answer(
    protocol: str, options: tuple[str, ...], by: signal.Signals, sim: Simulator, serve_http: Serve
) -> None:
    async with serve_http(sim, *options) as served, served.connect(protocol) as caller:
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
        with journal(tmp_path) as db:
            db.execute("ALTER TABLE tasks RENAME TO away")
        broken = await client.get("/readyz")
        assert (broken.status_code, broken.json()) == (503, {"ready": False, "journal": "unavailable"})
        assert (await client.get("/healthz")).status_code == 200
        with journal(tmp_path) as db:
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


@contextlib.contextmanager
def journal(home: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(home / "data" / "journal.db", timeout=PATIENCE)) as db, db:
        yield db


async def test_a_refused_key_does_not_take_a_replica_out(sim: Simulator, serve_http: Serve) -> None:
    """Finished tasks and their pictures need no key. The key is for the doctor and the metrics."""
    async with serve_http(sim, MJ_API_KEY="wrong-canary-77") as served, by_hand(served) as client:
        async with served.connect() as caller:
            error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "unauthorized"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "journal": "ok"})
        assert "canary" not in ready.text + served.log.read_text()
