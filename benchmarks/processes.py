"""Whole servers on one journal, 1, 2 and 4 of them: submits a second, and `get_task` on finished tasks.

    python benchmarks/processes.py [--quick]

Every process is `mj-mcp serve --http` with one caller, who asks again as soon as it is answered; on SQLite they share a
data folder, on PostgreSQL a database. The simulator has a process of its own. Callers, servers, simulator and database
share the machine, so on a small one more processes show what they cost each other. Judges nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import web
from pipe import OURS, percentile
from scale import Home, Proxy, finished_task

sys.path.append(str(Path(__file__).parent.parent / "tests" / "outside"))

from databases import Database, database

PROCESSES = (1, 2, 4)
SECRET = "a secret that all of them share, of some length"

numbers = count(1)


@contextmanager
def team(proxy: Proxy, size: int, db: Database | None) -> Iterator[list[web.Server]]:
    """So many processes on one new journal."""
    with ExitStack() as stack:
        home = Home(stack.enter_context(tempfile.TemporaryDirectory()), proxy)
        env = home.env | {"MJ_MAX_OPEN_TASKS": "10000", "MJ_SECRET_KEY": SECRET}
        if db is not None:
            env["MJ_DATABASE_URL"] = db.new()
        yield [stack.enter_context(web.Server(OURS, env, stateless=True)) for _ in range(size)]


def timed(servers: list[web.Server], seconds: float, call: Callable[[web.Server], Any]) -> list[float]:
    """Milliseconds of every call that these servers answered in so many seconds, each asked by one caller."""

    def one(server: web.Server) -> list[float]:
        taken, until = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            call(server)
            taken.append((time.perf_counter() - began) * 1000)
        return taken

    with ThreadPoolExecutor(len(servers)) as callers:
        return [taken for each in callers.map(one, servers) for taken in each]


def get_task(task_id: str, server: web.Server) -> None:
    """What is known of a finished task."""
    server.call("get_task", {"task_id": task_id, "include_image": False})


def submit(server: web.Server) -> None:
    """One more task."""
    server.call("generate_image", {"prompt": f"mug {next(numbers)}", "wait_seconds": 0})


def measured(proxy: Proxy, engine: str, db: Database | None, seconds: float) -> None:
    """Both calls at each size, printed."""
    for size in PROCESSES:
        with team(proxy, size, db) as servers:
            task_id = finished_task(servers[0], proxy)
            look = partial(get_task, task_id)
            timed(servers, seconds / 10, look)
            looks = timed(servers, seconds, look)
            submits = timed(servers, seconds, submit)
        for name, taken in (("get_task", looks), ("generate_image", submits)):
            p50, p99 = (percentile(taken, share) for share in (0.5, 0.99))
            rate = len(taken) / seconds
            figures = f"{rate:6.0f}/s   p50 {p50:6.2f} ms   p99 {p99:7.2f} ms"
            print(f"{engine:10} {size} processes   {name:14} {figures}", flush=True)


def main() -> None:
    """Both engines."""
    seconds = 0.2 if "--quick" in sys.argv else 10.0
    with Proxy() as proxy, database() as db:
        measured(proxy, "SQLite", None, seconds)
        measured(proxy, "PostgreSQL", db, seconds)


if __name__ == "__main__":
    main()
