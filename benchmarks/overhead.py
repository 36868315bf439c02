"""`get_task` on a finished task against an echo of a bare `MCPServer`, both over stdio. Never fails on time.

Twice: through raw JSON lines, which shows the server's share, and through the SDK's client, which an agent would use
and whose own work with the picture in our answer (the echo has none) is part of what is measured there. Then a long
run without a pause, whose slowest calls show what garbage collection costs.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from pipe import BARE, OURS, Server, percentile, report

from mj_mcp.simulator import Simulator

TARGET = 1.0
TAIL = 3.0
"""Target: p99 over p50 in the long run."""
BLOCK = 50

Row = tuple[str, list[float], list[float], float | None]


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def finished_task(server: Server) -> str:
    """A task that has succeeded."""
    answer = server.call("generate_image", {"prompt": "a mug", "wait_seconds": 60})["structuredContent"]
    assert answer["status"] == "succeeded", answer
    return str(answer["task_id"])


def rows(name: str, bare: list[list[float]], ours: list[list[float]], target: float | None) -> list[Row]:
    """The middle and the tail, each the median over blocks."""
    return [
        (f"{name} {label}", [percentile(b, share) for b in bare], [percentile(b, share) for b in ours], aim)
        for label, share, aim in (("p50", 0.5, target), ("p99", 0.99, None))
    ]


def raw(blocks: int, in_a_row: int, env: dict[str, str]) -> tuple[str, list[Row], list[float]]:
    """The server's share, blocks interleaved. Also gives the finished task's id, and the times of the long run."""
    bare, ours = [], []
    with Server(BARE) as echo, Server(OURS, env) as server:
        task_id = finished_task(server)
        for number in range(blocks + 2):
            one = [timed(lambda: echo.call("echo", {"text": task_id})) for _ in range(BLOCK)]
            other = [timed(lambda: server.call("get_task", {"task_id": task_id})) for _ in range(BLOCK)]
            if number >= 2:
                bare.append(one)
                ours.append(other)
        long_run = [timed(lambda: server.call("get_task", {"task_id": task_id})) for _ in range(in_a_row)]
    return task_id, rows("raw JSON lines", bare, ours, TARGET), long_run


async def with_sdk(blocks: int, env: dict[str, str], task_id: str) -> list[Row]:
    """The same through the SDK's client."""
    async with AsyncExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w"))  # noqa: SIM115 - the stack closes it

        async def connect(arguments: list[str]) -> Client:
            server = StdioServerParameters(command=sys.executable, args=arguments, env=env)
            return await stack.enter_async_context(Client(stdio_client(server, errlog=log)))

        async def block(client: Client, tool: str, arguments: dict[str, Any]) -> list[float]:
            taken = []
            for _ in range(BLOCK):
                began = time.perf_counter()
                await client.call_tool(tool, arguments)
                taken.append((time.perf_counter() - began) * 1000)
            return taken

        echo, server = await connect(BARE), await connect(OURS)
        bare, ours = [], []
        for number in range(blocks + 2):
            one = await block(echo, "echo", {"text": task_id})
            other = await block(server, "get_task", {"task_id": task_id})
            if number >= 2:
                bare.append(one)
                ours.append(other)
    return rows("SDK client", bare, ours, None)


async def main() -> None:
    """A task made with the simulator, which then has nothing more to do."""
    blocks, in_a_row = (1, 100) if "--quick" in sys.argv else (20, 2000)
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(key="any", job_seconds=0.2) as simulator:
            env = {"MJ_API_KEY": "any", "MJ_BASE_URL": simulator.url, "MJ_DATA_DIR": folder, "MJ_POLL_SECONDS": "0.5"}
            task_id, measured, long_run = await asyncio.to_thread(raw, blocks, in_a_row, env)
            measured += await with_sdk(blocks, env, task_id)
    report(f"get_task on a finished task: {blocks} blocks of {BLOCK}, medians over blocks", "ms", measured)
    middle, tail, worst = (percentile(long_run, share) for share in (0.5, 0.99, 1.0))
    print(f"{in_a_row} calls in a row: p50 {middle:.2f} ms, p99 {tail:.2f} ms, worst {worst:.2f} ms; ", end="")
    print(f"p99 / p50 {tail / middle:.2f} (target {TAIL:.2f})")


if __name__ == "__main__":
    asyncio.run(main())
