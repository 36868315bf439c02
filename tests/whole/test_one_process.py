"""The server as a process: where its key never shows, what its stdout carries, and how a signal ends it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from conftest import KEY, PROTOCOLS, Caller, environment
from views import row, view, within

from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and asyncio pipes are of POSIX"),
]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def files_below(folder: Path) -> dict[Path, bytes]:
    """Every byte that was written there."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@both_protocols
async def test_the_key_is_in_no_result_no_log_and_no_file_even_when_the_proxy_echoes_it(
    protocol: str, sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    results: list[Any] = []

    def echo(answer: dict[str, Any]) -> dict[str, Any]:
        first, *rest = answer["images"]
        return answer | {"images": [first | {"image_url": f"{sim.url}/pictures/1.png?key={KEY}"}, *rest]}

    async with spawn(sim, protocol=protocol, MJ_LOG_LEVEL="debug", MJ_MAX_OPEN_TASKS="50") as caller:
        for number, fault in enumerate(
            [
                faults.code(4, description=f"bad key {KEY}", properties={"key": KEY}),
                faults.code(24, description=KEY, properties={"bannedWord": KEY}),
                faults.result_as(KEY),
                faults.status(500, f"<p>{KEY}</p>".encode(), {"X-Key": KEY}),
                faults.status(400, json.dumps({"error": {"message": KEY}}).encode()),
                faults.status(302, b"", {"Location": f"{sim.url}/{KEY}"}),
            ]
        ):
            sim.inject("submit", fault)
            error = await caller.error("generate_image", prompt=f"mug {number}", wait_seconds=5)
            results.append(error)
            # A good one in between, or the server would pause its submits.
            good = await caller.task("generate_image", prompt=f"jug {number}", wait_seconds=0)
            results.append(good)
        failing = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.fail(failing["task_id"], reason=f"the key {KEY} is bad")
        failed = await caller.task("get_task", task_id=failing["task_id"], wait_seconds=10)
        assert failed["failure"] == {"code": "generation_failed", "message": "the key [redacted] is bad"}
        sim.inject(
            "fetch", Fault(name="echo", edit=lambda answer: echo(answer) if answer["images"] else None), times=99
        )
        shown = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        sim.finish(shown["task_id"])
        pictures = await caller.task("get_task", task_id=shown["task_id"], wait_seconds=10)
        assert [image["index"] for image in pictures["images"]] == [2, 3, 4]
        listed = await caller.call("list_tasks", limit=100)
        resource = await caller.client.read_resource("mj://tasks")
        results += [failed, pictures, listed.model_dump_json(), resource.model_dump_json()]
        requests = caller.logged("upstream_request")
        calls = caller.logged("tool_call")

        # What the log tells of each: one line a call, one a request, and which request is of which call.
        bought = [line for line in calls if line["tool"] == "generate_image"]
        assert [(line["outcome"], line.get("code")) for line in bought[:4]] == [
            ("error", "rejected"),
            ("ok", None),
            ("error", "prompt_refused"),
            ("ok", None),
        ]
        posts = [line for line in requests if line["method"] == "POST"]
        assert [line["call_id"] for line in posts] == [line["call_id"] for line in bought]
        assert [(line["path"], line["status"], line["code"], line["attempt"]) for line in posts[:3]] == [
            ("/mj/submit/imagine", 200, 4, 1),
            ("/mj/submit/imagine", 200, 1, 1),
            ("/mj/submit/imagine", 200, 24, 1),
        ]
        assert all(line["ms"] > 0 for line in requests)
        for line in calls:
            assert {"tool", "outcome", "ms", "call_id"} <= line.keys()
            assert line["outcome"] == "error" or line["tool"] == "list_tasks" or {"polls", "waited"} <= line.keys()
            assert line["outcome"] == "error" or line["tool"] == "list_tasks" or line["task_id"]
        assert len({line["call_id"] for line in calls}) == len(calls)
    assert {"code_4", "code_24", "result_as", "status_500", "status_400", "status_302", "echo"} == set(sim.fired)
    assert KEY not in str(results)
    files = files_below(tmp_path)
    assert {"server.log", "journal.db"} <= {path.name for path in files}
    assert [path for path, data in files.items() if KEY.encode() in data] == []


class Wire:
    """The server as a process whose every byte on stdout is seen."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.lines: list[bytes] = []
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)

    async def send(self, line: bytes) -> None:
        await self._stdin.send(line + b"\n")

    async def request(self, method: str, number: int, **params: Any) -> dict[str, Any]:
        """Ask, and read up to the answer."""
        await self.ask(method, number, **params)
        while True:
            line = await self._stdout.receive_until(b"\n", 1 << 22)
            self.lines.append(line)
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number and "method" not in message:
                assert isinstance(message, dict)
                return message

    async def ask(self, method: str, number: int, **params: Any) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())

    async def greet(self) -> None:
        client = {"name": "by-hand", "version": "1"}
        await self.request("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        await self.send(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')

    async def end(self, by: signal.Signals | None = None) -> int:
        """EOF or a signal; what was still to be read, and the exit code."""
        if by is None:
            await self._stdin.aclose()
        else:
            self.process.send_signal(by)
        try:
            while True:
                self.lines.append(await self._stdout.receive_until(b"\n", 1 << 22))
        except (anyio.IncompleteRead, anyio.EndOfStream):
            assert self._stdout.buffer == b""
        return await self.process.wait()


@asynccontextmanager
async def by_hand(sim: Simulator, home: Path) -> AsyncIterator[Wire]:
    environ = {**os.environ, **environment(sim.url, home)}
    with (home / "server.log").open("ab") as log, anyio.fail_after(40):
        async with await anyio.open_process(
            [sys.executable, "-m", "mj_mcp"], env=environ, cwd=home, stderr=log
        ) as process:
            try:
                yield Wire(process)
            finally:
                if process.returncode is None:
                    process.kill()


GARBAGE = [
    b"not json",
    b"",
    b"   ",
    b"{}",
    b"[]",
    b"null",
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 8, "method": "no/such/method"}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "no_such_tool"}}',
    b'{"jsonrpc": "2.0", "id": 10, "method": "tools/call", "params": 5}',
    b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 999}}',
    b'{"jsonrpc": "2.0", "id": 11, "result": {}}',
    b"\xff\xfe\x00\x80",
    b"[" * 10_000,
    b'{"jsonrpc": "2.0", "id": 12, "method": "' + b"x" * 300_000 + b'"}',
]


async def test_stdout_carries_protocol_only_whatever_comes_in(sim: Simulator, tmp_path: Path) -> None:
    async with by_hand(sim, tmp_path) as wire:
        await wire.greet()
        for line in GARBAGE:
            await wire.send(line)
        listed = await wire.request("tools/list", 20)
        assert len(listed["result"]["tools"]) >= 7
        arguments = {"prompt": "a mug", "wait_seconds": 0}
        called = await wire.request("tools/call", 21, name="generate_image", arguments=arguments)
        assert called["result"]["structuredContent"] == view(task_id=sim.ledger[0].task_id, prompt="a mug")
        # Half a line is no message, and the end of the input ends an idle server at once.
        await wire.send(b"ping")
        with within(2):
            assert await wire.end() == 0
    for line in wire.lines:
        assert json.loads(line)["jsonrpc"] == "2.0"
    assert {json.loads(line).get("id") for line in wire.lines} >= {1, 8, 9, 20, 21}
    for line in (tmp_path / "server.log").read_bytes().splitlines():
        assert "Traceback" not in json.loads(line)["event"]


async def test_a_signal_ends_an_idle_server_at_once(sim: Simulator, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with by_hand(sim, tmp_path) as wire:
            await wire.greet()
            with within(2):
                assert await wire.end(by=number) == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("by", [signal.SIGTERM, None], ids=["SIGTERM", "EOF"])
async def test_a_server_that_is_stopped_during_a_post_waits_for_the_answer_and_records_it(
    by: signal.Signals | None, sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    sim.inject("submit", faults.delay(2.0))
    async with by_hand(sim, tmp_path) as wire:
        await wire.greet()
        await wire.ask("tools/call", 2, name="generate_image", arguments={"prompt": "a mug", "wait_seconds": 60})
        await sim.until(lambda: len(sim.ledger) == 1)
        with within(5):
            assert await wire.end(by=by) == 0
    assert sim.fired == {"delay": 1}
    async with spawn(sim) as caller:
        page = await caller.task("list_tasks")
    (task,) = page["tasks"]
    assert task == row(view(task_id=sim.ledger[0].task_id, prompt="a mug"))
    assert len(sim.submits()) == 1
