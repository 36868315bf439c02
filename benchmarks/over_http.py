"""`get_task` on a finished task over HTTP against an echo of a bare `MCPServer` over HTTP: calls per second and p99.

One server process each, the same client for both, in alternate blocks; both generations of the protocol. The client
sends by hand what the SDK's client would, so that its own work does not hide the difference. Never fails on time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import httpx
from pipe import HERE, percentile

from mj_mcp.simulator import Simulator

TARGET = 0.6
AT_ONCE = 8
REVISIONS = ("2026-07-28", "2025-11-25")
CLIENT = {"name": "benchmark", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Server:
    """A client of one server, in one generation of the protocol."""

    def __init__(self, port: int, revision: str) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        self._modern = revision == "2026-07-28"
        self._numbers = itertools.count(1)  # two requests of one number at once would hang a session
        self._headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": revision,
        }

    async def greet(self) -> None:
        """Open a session, where the generation has them."""
        if self._modern:
            return
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT}
        answer = await self._post({"id": 0, "method": "initialize", "params": params})
        self._headers["Mcp-Session-Id"] = answer.headers["Mcp-Session-Id"]
        await self._post({"method": "notifications/initialized"})

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One tool call that must work."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if self._modern:
            params["_meta"] = META
            self._headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
        text = (await self._post({"id": next(self._numbers), "method": "tools/call", "params": params})).text
        last = text.rstrip().rpartition("data: ")[2] if text.startswith(("event:", "id:", ":")) else text
        result: dict[str, Any] = json.loads(last)["result"]
        assert not result.get("isError"), result
        return result

    async def _post(self, message: dict[str, Any]) -> httpx.Response:
        answer = await self._client.post("/mcp", headers=self._headers, json={"jsonrpc": "2.0"} | message)
        answer.raise_for_status()
        return answer

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


@contextmanager
def process(*command: str, **env: str) -> Iterator[int]:
    """A server process; its port, once it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    line = [part.replace("PORT", str(port)) for part in command]
    with subprocess.Popen([sys.executable, *line], env={**os.environ, **env}, stderr=subprocess.DEVNULL) as running:
        try:
            for _ in range(300):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield port
        finally:
            running.terminate()


async def block(server: Server, calls: int, tool: str, arguments: dict[str, Any]) -> tuple[float, list[float]]:
    """Calls per second, and the milliseconds of each, with so many callers at once."""
    taken: list[float] = []

    async def caller() -> None:
        for _ in range(calls // AT_ONCE):
            began = time.perf_counter()
            await server.call(tool, arguments)
            taken.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return len(taken) / (time.perf_counter() - began), taken


async def compare(bare_port: int, port: int, revision: str, blocks: int, calls: int) -> None:
    """One line of the table."""
    bare, ours = Server(bare_port, revision), Server(port, revision)
    await bare.greet()
    await ours.greet()
    answer = await ours.call("generate_image", {"prompt": "a mug", "wait_seconds": 30, "allow_duplicate": True})
    task_id = answer["structuredContent"]["task_id"]
    rates: tuple[list[float], list[float]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(blocks + 1):
        both = (
            await block(bare, calls, "echo", {"text": task_id}),
            await block(ours, calls, "get_task", {"task_id": task_id, "include_image": False}),
        )
        for (rate, taken), all_rates, all_times in zip(both, rates, times, strict=True):
            if number:
                all_rates.append(rate)
                all_times.extend(taken)
    await bare.aclose()
    await ours.aclose()
    one, other = median(rates[0]), median(rates[1])
    tails = [percentile(taken, 0.99) for taken in times]
    print(f"{revision}: {one:.0f} calls/s bare, {other:.0f} of ours: {other / one:.2f} (target {TARGET:.2f}); ", end="")
    print(f"p99 {tails[0]:.1f} ms bare, {tails[1]:.1f} ms of ours")


async def main() -> None:
    """Both generations on the same two processes."""
    blocks, calls = (3, 80) if "--quick" in sys.argv else (15, 400)
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(key="any", job_seconds=0.2) as simulator:
            env = {"MJ_API_KEY": "any", "MJ_BASE_URL": simulator.url, "MJ_DATA_DIR": folder, "MJ_POLL_SECONDS": "0.5"}
            with (
                process(str(HERE / "bare_http.py"), "PORT") as bare,
                process("-m", "mj_mcp", "serve", "--http", "--port", "PORT", **env) as ours,
            ):
                print(f"get_task on a finished task over HTTP, {AT_ONCE} callers, {blocks} blocks of {calls}")
                for revision in REVISIONS:
                    await compare(bare, ours, revision, blocks, calls)


if __name__ == "__main__":
    asyncio.run(main())
