"""`get_task` on a finished task against an echo of a bare `MCPServer`, both over HTTP, several callers at once.

Calls a second and the slowest in a hundred, for every way to speak to one process. Blocks are interleaved, so that the
ratio means something on any machine. Never fails on time.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipe import BARE, OURS, percentile, report
from web import MODERN, OLDER, Server

from mj_mcp.simulator import Simulator

CALLERS = 8
MIN_THROUGHPUT = 0.6

WAYS: dict[str, dict[str, Any]] = {
    "2026-07-28": {"protocol": MODERN},
    "older, with sessions": {"protocol": OLDER},
    "older, stateless": {"protocol": OLDER, "stateless": True},
}


def finished_task(server: Server) -> str:
    """A task that has succeeded."""
    answer = server.call("generate_image", {"prompt": "a mug", "wait_seconds": 60})["structuredContent"]
    assert answer["status"] == "succeeded", answer
    return str(answer["task_id"])


Row = tuple[str, list[float], list[float], float | None]


class Subject:
    """A server under load by one kind of call."""

    def __init__(self, server: Server, tool: str, arguments: dict[str, Any]) -> None:
        self._server = server
        self._call = {"name": tool, "arguments": arguments}
        self.rates: list[float] = []
        self.busy = 0.0
        self.taken: list[list[float]] = []
        server.call(tool, arguments)

    def block(self, pool: ThreadPoolExecutor, seconds: float) -> None:
        """Every caller calls again as soon as it is answered, for so many seconds."""
        began, busy = time.perf_counter(), self._server.busy_seconds
        taken = [one for caller in pool.map(self._caller, [began + seconds] * CALLERS) for one in caller]
        self.rates.append(len(taken) / (time.perf_counter() - began))
        self.busy += self._server.busy_seconds - busy
        self.taken.append(taken)

    def forget(self) -> None:
        """Start anew: what was measured so far was to warm up."""
        self.rates.clear()
        self.taken.clear()
        self.busy = 0.0

    @property
    def busy_ms(self) -> float:
        """Processor time of the server for one call, which other programs on the machine disturb least."""
        return self.busy / sum(map(len, self.taken)) * 1000

    def _caller(self, until: float) -> list[float]:
        taken = []
        while (began := time.perf_counter()) < until:
            body = self._server.body(self._server.begin("tools/call", self._call))
            taken.append((time.perf_counter() - began) * 1000)
            assert b'"isError":true' not in body, body
        return taken


def measured(name: str, way: dict[str, Any], env: dict[str, str], blocks: int, seconds: float) -> None:
    """One table."""
    with Server(BARE, **way) as echo, Server(OURS, env, **way) as server, ThreadPoolExecutor(CALLERS) as pool:
        task_id = finished_task(server)
        bare = Subject(echo, "echo", {"text": task_id})
        ours = Subject(server, "get_task", {"task_id": task_id})
        brief = Subject(server, "get_task", {"task_id": task_id, "include_image": False})
        subjects = (bare, ours, brief)
        for subject in subjects:
            subject.block(pool, seconds)
            subject.forget()
        for _ in range(blocks):
            for subject in subjects:
                subject.block(pool, seconds)
    rates: list[Row] = []
    times: list[Row] = []
    for words, subject in (("with the picture", ours), ("without", brief)):
        rates.append((words, bare.rates, subject.rates, MIN_THROUGHPUT))
        times.append((f"processor, {words}", [bare.busy_ms], [subject.busy_ms], None))
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            slow, fast = ([percentile(block, share) for block in one.taken] for one in (subject, bare))
            times.append((f"{label}, {words}", fast, slow, None))
    report(f"{name}: {CALLERS} callers, {blocks} blocks of {seconds} s, medians over blocks", "calls/s", rates)
    report(f"{name}, a call", "ms", times)


async def main() -> None:
    """A task made with the simulator, which then has nothing more to do."""
    blocks, seconds = (1, 0.1) if "--quick" in sys.argv else (60, 0.2)
    async with Simulator(key="any", job_seconds=0.2) as simulator:
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                env = {
                    "MJ_API_KEY": "any",
                    "MJ_BASE_URL": simulator.url,
                    "MJ_DATA_DIR": folder,
                    "MJ_POLL_SECONDS": "0.5",
                }
                await asyncio.to_thread(measured, name, way, env, blocks, seconds)


if __name__ == "__main__":
    asyncio.run(main())
