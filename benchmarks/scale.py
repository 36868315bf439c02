"""1,000 open tasks with 1,000 waiters in one process: memory, the event loop, a long day, start-up, finished tasks.

The simulator has a process of its own, so that its work does not count as the server's. The event loop is measured
from outside, by pings, and from inside, by a heartbeat. Never fails on a figure. Over HTTP each waiter has
a connection and a request of its own, so its memory is shown beside what the SDK alone needs for that.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

import web
from pipe import BARE, HERE, OURS, Server, percentile

from mj_mcp.simulator import Simulator

AnyServer = Server | web.Server
TRANSPORTS: dict[str, Callable[[list[str], Mapping[str, str]], AnyServer]] = {
    "stdio": Server,
    "HTTP, 2026-07-28": partial(web.Server, protocol=web.MODERN),
    "HTTP, older": partial(web.Server, protocol=web.OLDER),
}

MOST_KIB = 64.0
MOST_BLOCKED_MS = 50.0
MOST_RATIO = 1.1

AT_ONCE = 20
"""Submits under way at once while the tasks are made; more would measure the simulator."""
PING_SECONDS = 0.02
WAIT_SECONDS = 600


class Proxy:
    """The simulator in a process of its own; its jobs end when told to."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--simulator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def finish_all(self) -> None:
        """End every job well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("finish\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    @staticmethod
    async def run() -> None:
        """What the process does."""
        async with Simulator(key="any", job_seconds=None) as simulator:
            print(simulator.url, flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                for charge in simulator.ledger:
                    simulator.finish(charge.task_id)
                print("finished", flush=True)


class Home:
    """A data folder of its own, and the settings of a server that uses it."""

    def __init__(self, folder: str, proxy: Proxy) -> None:
        self.env = {
            "MJ_API_KEY": "any",
            "MJ_BASE_URL": proxy.url,
            "MJ_DATA_DIR": folder,
            "MJ_MAX_OPEN_TASKS": "2000",
            "MJ_ARCHIVE": "0",
        }

    def server(self, transport: str = "stdio", arguments: list[str] = OURS) -> AnyServer:
        """A server process over this folder."""
        return TRANSPORTS[transport](arguments, self.env)


@contextmanager
def home(proxy: Proxy) -> Iterator[Home]:
    """An empty one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Home(folder, proxy)


def buy(server: AnyServer, count: int) -> list[str]:
    """So many open tasks."""
    ids: list[str] = []
    for first in range(0, count, AT_ONCE):
        arguments = [{"prompt": f"mug {first + n}", "wait_seconds": 0} for n in range(min(AT_ONCE, count - first))]
        numbers = [server.begin("tools/call", {"name": "generate_image", "arguments": one}) for one in arguments]
        ids += [server.answer(number)["structuredContent"]["task_id"] for number in numbers]
    return ids


def finished_task(server: AnyServer, proxy: Proxy) -> str:
    """One task that has succeeded."""
    (task_id,) = buy(server, 1)
    proxy.finish_all()
    answer = server.call("get_task", {"task_id": task_id, "wait_seconds": 30})["structuredContent"]
    assert answer["status"] == "succeeded", answer
    return task_id


def pings(server: AnyServer, seconds: float) -> list[float]:
    """Milliseconds that the cheapest request took, asked again and again: how long the event loop was away."""
    taken, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        server.ping()
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(PING_SECONDS)
    return taken


def waiting(proxy: Proxy, transport: str, count: int, seconds: float) -> None:
    """Memory and the event loop while everybody waits; then everything ends at once."""
    with home(proxy) as place, tempfile.NamedTemporaryFile() as beats:
        with place.server(transport, [str(HERE / "heartbeat.py"), beats.name]) as server:
            finished_task(server, proxy)
            alone, quiet, since = server.resident_kib, pings(server, seconds / 4), time.monotonic()
            ids = buy(server, count)
            tasks, sent = server.resident_kib, time.perf_counter()
            numbers = [begin_to_wait(server, task_id) for task_id in ids]
            server.ping()
            taken_in, busy = time.perf_counter() - sent, pings(server, seconds)
            everybody, ended = server.resident_kib, time.perf_counter()
            proxy.finish_all()
            for number in numbers:
                answer = server.answer(number)
                assert answer["structuredContent"]["status"] == "succeeded", answer
            heard, until = time.perf_counter() - ended, time.monotonic()
        lines = [line.split() for line in Path(beats.name).read_text().splitlines()]
        blocked = [float(late) for at, late in lines if since < float(at) < until] or [0.0]
    each = (everybody - alone) / count
    besides = "" if transport == "stdio" else f"; a bare server's waiter: {bare_kib(transport, count):.1f}"
    print(f"{count} open tasks, {count} waiters, one process over {transport}")
    print(f"  memory: {alone} KiB alone, {tasks} with the tasks, {everybody} with the waiters: ", end="")
    print(f"{each:.1f} KiB per waiter (target {MOST_KIB:.0f}{besides})")
    for name, taken in (("with one finished task", quiet), (f"with {count} waiters", busy)):
        figures = ", ".join(f"{label} {percentile(taken, q):.1f}" for label, q in (("p50", 0.5), ("p99", 0.99)))
        print(f"  ping {name}, ms: {figures}, worst {max(taken):.1f} of {len(taken)}")
    print(f"  event loop away at once, from the first task to the last answer: {max(blocked):.1f} ms at most ", end="")
    print(f"(target {MOST_BLOCKED_MS:.0f})")
    print(f"  {count} calls sent at once: taken in after {taken_in:.2f} s, while others are served")
    print(f"  all jobs end at once: all heard after {heard:.1f} s; 50 polls a second at most")


def long_day(proxy: Proxy, rounds: int, waiters: int, calls: int) -> None:
    """Memory after many calls, while others wait: what is not collected would add up."""
    with home(proxy) as place, place.server() as server:
        done, after = finished_task(server, proxy), []
        for _ in range(rounds):
            numbers = [begin_to_wait(server, task_id) for task_id in buy(server, waiters)]
            for number in range(calls // 3):
                server.call("get_task", {"task_id": done, "include_image": False})
                server.ask("tools/call", {"name": "get_task", "arguments": {"task_id": f"unknown-{number}"}})
                server.ask("tools/call", {"name": "generate_image", "arguments": {"prompt": "", "wait_seconds": -1}})
            proxy.finish_all()
            for number in numbers:
                server.answer(number)
            after.append(server.resident_kib)
    print(f"memory after each {waiters} waits and {calls} calls, two thirds of them refused, KiB: ", end="")
    print(", ".join(map(str, after)))


def begin_to_wait(server: AnyServer, task_id: str) -> int:
    """Ask for the end of a task; the number of the request."""
    arguments = {"task_id": task_id, "wait_seconds": WAIT_SECONDS, "include_image": False}
    return server.begin("tools/call", {"name": "get_task", "arguments": arguments})


def bare_kib(transport: str, count: int) -> float:
    """Memory per waiter of the SDK alone."""
    with TRANSPORTS[transport](BARE, {}) as server:
        server.call("echo", {"text": "warm"})
        alone = server.resident_kib
        for _ in range(count):
            server.begin("tools/call", {"name": "wait", "arguments": {"seconds": WAIT_SECONDS}})
        server.ping()
        return (server.resident_kib - alone) / count


def compared(proxy: Proxy, count: int, rounds: int) -> None:
    """Start-up, and `get_task` on a finished task, with so many open tasks in the journal and with none."""
    with home(proxy) as empty, home(proxy) as full:
        places = (empty, full)
        done = []
        for place, tasks in zip(places, (0, count), strict=True):
            with place.server() as server:
                done.append(finished_task(server, proxy))
                buy(server, tasks)
        starts: tuple[list[float], ...] = ([], [])
        for _ in range(rounds):
            for place, taken in zip(places, starts, strict=True):
                began = time.perf_counter()
                with place.server() as server:
                    server.ask("tools/list")
                    taken.append((time.perf_counter() - began) * 1000)
        calls: tuple[list[float], ...] = ([], [])
        with empty.server() as one, full.server() as other:
            for number in range(2 + rounds * 2):
                for server, task_id, taken in zip((one, other), done, calls, strict=True):
                    for _ in range(50):
                        began = time.perf_counter()
                        server.call("get_task", {"task_id": task_id})
                        if number >= 2:
                            taken.append((time.perf_counter() - began) * 1000)
    for name, (none, many) in (("spawn to tools/list", starts), ("get_task on a finished task", calls)):
        ratio = f"ratio {median(many) / median(none):.2f} (target {MOST_RATIO:.2f})"
        print(f"{name}, ms: {median(none):.2f} with no open task, {median(many):.2f} with {count}: {ratio}")


def main() -> None:
    """Briefly: a few of everything."""
    quick = "--quick" in sys.argv
    count, seconds, rounds = (25, 0.5, 1) if quick else (1000, 30.0, 15)
    with Proxy() as proxy:
        for transport in TRANSPORTS:
            waiting(proxy, transport, count, seconds)
        long_day(proxy, *((2, 25, 150) if quick else (10, 200, 1800)))
        compared(proxy, count, rounds)


if __name__ == "__main__":
    if "--simulator" in sys.argv:
        asyncio.run(Proxy.run())
    else:
        assert Path("/proc/self/status").exists(), "memory is read from /proc: Linux only"
        main()
