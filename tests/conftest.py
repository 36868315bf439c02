"""How tests reach the server: a simulator over real HTTP, and the server through a real MCP client.

`spawn` is the nearest to real use: the server as a process, over real pipes, in either protocol generation.
`connect` is the same server in this process (for many cases, quickly).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import databases
import pytest
from anyio import fail_after, open_process, sleep
from anyio.abc import Process
from buckets import BucketServer
from databases import Database
from hypothesis import HealthCheck, settings
from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, Implementation, TextContent

from mj_mcp.app import DEFAULT_TIMINGS, Timings, open_studio
from mj_mcp.server import build_server
from mj_mcp.server.shapes import ImageView, TaskView
from mj_mcp.settings import Settings, read_settings
from mj_mcp.simulator import Simulator

pytest_plugins = ["archives", "browsers", "journals", "over_http", "simulators"]
"""Modules of `support/` with fixtures: one conftest.py, so that `from conftest import ...` always means this file."""

settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
"""The same examples in every run, on every machine, however busy it is."""

LOAD_SECONDS = 8.0
"""What a busy machine may add to a time that a test bounds. What the test rules out takes longer than that."""

START_SECONDS = 90.0
"""How long a server may take to listen, on a machine that does much else."""

KEY = "test-key-canary-5f1b"
IMAGE_EDGE = 256

PROTOCOLS = ["2026-07-28", "2025-06-18"]
"""The sessionless generation, and an older handshake."""

HOST = Implementation(name="some-host", version="1")
"""A client of which nothing is known; the SDK's own name, `mcp`, is one that hasty and patient clients share."""

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "by-hand", "version": "1"},
    },
}
"""The older handshake, as a client that is written by hand sends it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A simulator whose jobs move only when the test says so. Its pictures are small: size has tests of its own."""
    async with Simulator(key=KEY, job_seconds=None, image_edge=IMAGE_EDGE) as simulator:
        yield simulator


class Facts(dict[str, Any]):
    """Structured content, in which a field without a value is left out and reads as None."""

    def __missing__(self, name: str) -> None:
        if name not in TaskView.model_fields.keys() | ImageView.model_fields.keys() | {"next_cursor"}:
            raise KeyError(name)


def facts_of(result: CallToolResult) -> Facts:
    """The structured content of a result."""
    assert isinstance(result.structured_content, dict)
    facts: Facts = json.loads(json.dumps(result.structured_content), object_hook=Facts)
    return facts


class Caller:
    """A real client, and the few lines that every test would write again."""

    def __init__(self, client: Client, log: Path | None = None, pid: Path | None = None) -> None:
        self.client = client
        self._log = log
        self._pid = pid

    def kill(self) -> None:
        """End the server as a crash does, with SIGKILL (`spawn` only)."""
        assert self._pid is not None
        os.kill(int(self._pid.read_text()), signal.SIGKILL)

    def stop(self) -> None:
        """End the server as a host does, with SIGTERM (`spawn` only)."""
        assert self._pid is not None
        os.kill(int(self._pid.read_text()), signal.SIGTERM)

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call a tool; results come back whole, errors too."""
        return await self.client.call_tool(tool, arguments)

    async def task(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must work; its structured content."""
        result = await self.call(tool, **arguments)
        assert not result.is_error, result.content
        return facts_of(result)

    async def error(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must fail; the error as programs find it."""
        return error_of(await self.call(tool, **arguments))

    def logged(self, event: str | None = None) -> list[dict[str, Any]]:
        """The server's log lines so far (`spawn` only)."""
        assert self._log is not None
        return log_lines(self._log, event)


def error_of(result: CallToolResult) -> dict[str, Any]:
    """The error in `_meta` of a result; its text says the same, and there is no structured content."""
    assert result.is_error, result.structured_content
    assert result.structured_content is None
    assert result.meta is not None
    error: dict[str, Any] = result.meta["io.github.mj-mcp/error"]
    assert set(error) == {"code", "message", "next_step", "retry_after_seconds", "submission_id"}
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert block.text.startswith(f"{error['code']}: {error['message']}")
    assert block.text.endswith(error["next_step"])
    return error


def log_lines(log: Path, event: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if event is None or line.get("event") == event]


def measured() -> dict[str, str]:
    """What makes a process count for the coverage, where it is measured."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def environment(sim_url: str, data_dir: Path, **extra: str) -> dict[str, str]:
    """What a host would set for the server."""
    return {
        "MJ_API_KEY": KEY,
        "MJ_BASE_URL": sim_url,
        "MJ_PROXY_DIALECT": "gateway",  # what most tests are about; it saves the free request that finds out
        "MJ_DATA_DIR": str(data_dir / "data"),
        "MJ_OUTPUT_DIR": str(data_dir / "pictures"),
        "MJ_POLL_SECONDS": "0.5",
        "HOME": str(data_dir),
        **measured(),
        **extra,
    }


@pytest.fixture
def spawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Caller]]:
    """`async with spawn(sim, protocol="2026-07-28", MJ_X="...") as caller`: the server as a process on pipes."""

    @asynccontextmanager
    async def start(
        sim: Simulator, *, protocol: str = "2026-07-28", extensions: Sequence[ClientExtension] = (), **extra: str
    ) -> AsyncIterator[Caller]:
        pid = tmp_path / "server.pid"
        pid.unlink(missing_ok=True)
        # The shell becomes the server, so that its id is known.
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", 'echo $$ > "$0"; exec "$@"', str(pid), sys.executable, "-m", "mj_mcp"],
            env=environment(sim.url, tmp_path, **extra),
        )
        modern = protocol == "2026-07-28"
        if not modern:
            monkeypatch.setattr("mcp.client.session.LATEST_HANDSHAKE_VERSION", protocol)
        log = tmp_path / "server.log"
        with log.open("a") as errlog:
            client = Client(
                stdio_client(parameters, errlog=errlog),
                mode=protocol if modern else "legacy",
                client_info=HOST,
                extensions=extensions,
            )
            async with client:
                assert client.session.protocol_version == protocol
                yield Caller(client, log, pid)

    return start


class Served:
    """A server process that listens on HTTP, and clients of it as many as a test wants."""

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.base = url.removesuffix("/mcp")
        self.log = log

    @asynccontextmanager
    async def connect(self, protocol: str = "2026-07-28", **client: Any) -> AsyncIterator[Caller]:
        """A real client of this server over HTTP."""
        mode = protocol if protocol == "2026-07-28" else "legacy"
        async with Client(self.url, mode=mode, **({"client_info": HOST} | client)) as connected:
            yield Caller(connected)

    def logged(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log lines so far."""
        return log_lines(self.log, event)

    async def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(by)
        return await self.process.wait()


@pytest.fixture
def serve_http(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """`async with serve_http(sim, "--stateless", MJ_X="...") as served`: the server as a process on a free port.

    Several at once need a `name` each.
    """

    @asynccontextmanager
    async def start(sim: Simulator, *options: str, name: str = "http", **extra: str) -> AsyncIterator[Served]:
        log, out = tmp_path / f"{name}.log", tmp_path / f"{name}.out"
        command = [sys.executable, "-m", "mj_mcp", "serve", "--http", "--port", "0", *options]
        with log.open("w") as stderr, out.open("w") as stdout:
            process = await open_process(
                command,
                env=environment(sim.url, tmp_path, **extra),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            with fail_after(START_SECONDS):
                while not (started := log_lines(log, "http_listening")):  # noqa: ASYNC110 - another process writes it
                    await sleep(0.02)
            yield Served(process, started[0]["url"], log)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        assert out.read_text() == ""  # the protocol has a channel of its own, and nothing is printed beside it

    return start


@pytest.fixture
def settings_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """The settings that a host's environment gives."""

    def read(sim_url: str, **extra: str) -> Settings:
        for name, value in environment(sim_url, tmp_path, **extra).items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return read


@pytest.fixture
def connect(settings_for: Callable[..., Settings]) -> Callable[..., AbstractAsyncContextManager[Caller]]:
    """`async with connect(sim, MJ_X="...") as caller`: the real server in this process, through a real client."""

    @asynccontextmanager
    async def start(
        sim: Simulator,
        *,
        protocol: str = "2026-07-28",
        host: str | None = None,
        timings: Timings = DEFAULT_TIMINGS,
        extensions: Sequence[ClientExtension] = (),
        **extra: str,
    ) -> AsyncIterator[Caller]:
        settings = settings_for(sim.url, **extra)
        mode = "auto" if protocol == "2026-07-28" else "legacy"
        info = Implementation(name=host, version="1") if host else HOST
        async with (
            open_studio(settings, timings=timings) as studio,
            Client(build_server(studio, settings), mode=mode, client_info=info, extensions=extensions) as client,
        ):
            yield Caller(client)

    return start


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A real PostgreSQL, for all tests of this process."""
    with databases.database() as server:
        yield server


@pytest.fixture
def database_url(database: Database) -> str:
    """An empty database."""
    return database.new()


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """A real S3 server, for all tests of this process."""
    server = BucketServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own MJ_... and AWS_... variables, proxies and authorities never reach a test."""
    outside = ("MJ_", "AWS_", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_")
    for name in [name for name in os.environ if name.upper().startswith(outside)]:
        monkeypatch.delenv(name)
