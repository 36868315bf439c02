"""How fast the journal is: with several processes on it, and with a million finished tasks in it.

    python benchmarks/journal.py [--quick] [--engine sqlite|postgres] [--rows 1000000] [--seconds 5]

Both engines, straight at the journal: no proxy and no MCP. PostgreSQL is the one of the tests, on a Unix socket of this
machine, with `fsync` on. A submit is what a paid request costs in the journal: the claim, and its outcome. The two
sizes are measured in turn, call by call, so that whatever else the machine does falls on both. Exits 1 when a call at
the large size is more than 1.5 times as slow (p99) as at the small one, but for `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import quantiles

import psycopg

from mj_mcp.journal import Claim, Journal, Limits, open_journal
from mj_mcp.tasks import Image, Kind, Observation, Status, Task, accept
from mj_mcp.tasks.merging import merge

sys.path.append(str(Path(__file__).parent.parent / "tests" / "outside"))

from databases import Database, database

ACCOUNT = "benchmark"
OWNERS = 10
SMALL = 1000
TARGET = 1.5
LIMITS = Limits(max_open=10**6, per_day=10**6)
PICTURE = "https://cdn.example.com/attachments/1234567890/0987654321/a_lighthouse_on_a_cliff_at_dusk.png?ex=1&hm=2"

COPY = """
INSERT INTO tasks (account, owner, submission_id, task_id, kind, status, request_key, submitted_at, finished_at,
                   settled_at, seq, writer, body)
WITH RECURSIVE made(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM made WHERE i < {rows})
SELECT account, 'user-' || (i % {owners}), 'sub_' || i, 'up_' || i, kind, status,
       'key ' || CASE WHEN i % 10 = 0 THEN 0 ELSE i END, submitted_at - ({rows} - i) * 60.0,
       finished_at - ({rows} - i) * 60.0, settled_at - ({rows} - i) * 60.0, 0, '',
       replace(replace(replace(body, 'sub_first', 'sub_' || i), 'up_first', 'up_' || i),
               '"user-0"', '"user-' || (i % {owners}) || '"')
FROM tasks, made WHERE submission_id = 'sub_first'
"""

turns = count(1)

Call = Callable[[Journal, int], Awaitable[object]]
"""One call at a journal of so many rows."""


# ------------------------------------------------------------------------------------------------- the calls


def intent(owner: str, name: str) -> Task:
    """A task that is about to be paid for."""
    now = time.time()
    return Task(
        submission_id=f"sub_{name}",
        status=Status.SUBMITTING,
        owner=owner,
        kind=Kind.IMAGINE,
        prompt="a lighthouse on a cliff at dusk, oil on canvas, wide brush strokes --ar 3:2 --v 7",
        submitted_at=now,
        updated_at=now,
    )


async def submit(journal: Journal, _rows: int = 0, *, owner: str = "user-0", name: str = "", key: str = "") -> None:
    """The claim, and the outcome: here at once the end, so that the number of open tasks stays as it is."""
    task = intent(owner, name or uuid.uuid4().hex)
    claim = await journal.claim(task, key or task.submission_id, allow_duplicate=False, limits=LIMITS)
    if isinstance(claim, Claim) and not claim.is_new:
        return

    def settle(known: Task) -> Task:
        now = time.time()
        pictures = tuple(Image(index, PICTURE) for index in range(1, 5))
        accepted = accept(known, known.submission_id.replace("sub_", "up_"), now)
        return merge(accepted, Observation(status=Status.SUCCEEDED, images=pictures), now)

    await journal.update(task.submission_id, settle)


async def _find(journal: Journal, rows: int) -> None:
    # All over the journal, and none so soon again that the journal would still have it at hand.
    number = next(turns) * 7919 % rows + 1
    found = await journal.find(f"up_{number}", f"user-{number % OWNERS}")
    assert found is not None
    assert found.submission_id == f"sub_{number}"


async def _find_nothing(journal: Journal, _rows: int) -> None:
    assert await journal.find("up_nobody", "user-1") is None


async def _first_page(journal: Journal, _rows: int) -> None:
    assert len((await journal.page("user-1", None, 20, None)).tasks) == 20


async def _deep_page(journal: Journal, rows: int) -> None:
    page = await journal.page("user-1", None, 20, f"sub_{rows // 4 // OWNERS * OWNERS + 1}")
    assert len(page.tasks) == 20


async def _page_since(journal: Journal, _rows: int) -> None:
    await journal.page("user-1", None, 20, None, time.time() - 3600)


async def _repeat(journal: Journal, _rows: int) -> None:
    # One row in ten is of this request: somebody makes it every ten minutes. The last one answers, but for the first.
    await submit(journal, key="key 0")


async def _rare(journal: Journal, _rows: int) -> None:
    await journal.page("user-1", Status.FAILED, 20, None)


async def _sweep(journal: Journal, _rows: int) -> None:
    await journal.changes()
    await journal.tend(time.time())


CALLS: dict[str, Call] = {
    "find, as get_task does": _find,
    "find an unknown id": _find_nothing,
    "list_tasks, first page": _first_page,
    "list_tasks, deep page": _deep_page,
    "list_tasks, a status nobody has": _rare,
    "list_tasks, of the last hour": _page_since,
    "sweep (changes and leases)": _sweep,
    "submit": submit,
    "a repeat that buys nothing": _repeat,
}


# ------------------------------------------------------------------------------------------------- a journal


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Journal]:
    """A journal until the block ends."""
    journal = open_journal(url, folder, ACCOUNT)
    try:
        yield journal
    finally:
        await journal.aclose()


async def fill(url: str, folder: Path, rows: int) -> None:
    """So many finished tasks, a minute apart, all with bodies of the usual size."""
    async with opened(url, folder) as journal:
        await submit(journal, name="first")
    statement = COPY.format(rows=rows, owners=OWNERS)
    if url:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(statement.encode())
            db.execute("ANALYZE tasks")  # which the server does by itself within a minute
        return
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as file, file:
        file.execute(statement)


class Places:
    """Where new journals are made."""

    def __init__(self, folder: Path, server: Database | None) -> None:
        """`server` is the PostgreSQL; None for SQLite in `folder`."""
        self._folder = folder
        self._server = server

    def new(self) -> tuple[str, Path]:
        """The URL and the folder of a journal that is not there yet."""
        return (self._server.new() if self._server else ""), self._folder / uuid.uuid4().hex


@contextlib.contextmanager
def places(engine: str) -> Iterator[Places]:
    """Until the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mj-journal-")))
        server = stack.enter_context(database()) if engine == "postgres" else None
        if server:
            server.execute("ALTER SYSTEM SET fsync = on")
            server.execute("SELECT pg_reload_conf()")
        yield Places(folder, server)


# ------------------------------------------------------------------------------------------------- processes


async def work(what: str, url: str, folder: Path, seconds: float) -> None:
    """The body of a worker: the milliseconds of each call, a line each."""
    async with opened(url, folder) as journal:
        await CALLS[what](journal, SMALL)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        times, until = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            await CALLS[what](journal, SMALL)
            times.append((time.perf_counter() - began) * 1000)
    print(" ".join(f"{one:.3f}" for one in times))


def crowd(what: str, url: str, folder: Path, processes: int, seconds: float) -> list[float]:
    """The same call from so many processes at once; the milliseconds of every call."""
    command = [sys.executable, __file__, "--work", what, url, str(folder), str(seconds)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    pipes = [(one.stdin, one.stdout) for one in workers if one.stdin and one.stdout]
    for _, said in pipes:
        assert said.readline() == "ready\n"
    for ask, _ in pipes:
        ask.write("\n")
        ask.flush()
    times = [float(one) for worker in workers for one in worker.communicate(timeout=seconds + 60)[0].split()]
    assert all(worker.returncode == 0 for worker in workers)
    return times


def p(percent: int, times: list[float]) -> float:
    """A percentile."""
    return quantiles(times, n=100)[percent - 1]


async def by_processes(engine: str, seconds: float) -> None:
    """How much several processes get done together."""
    with places(engine) as where:
        url, folder = where.new()
        await fill(url, folder, SMALL)
        for processes in (1, 2, 4):
            submits = crowd("submit", url, folder, processes, seconds)
            finds = crowd("find, as get_task does", url, folder, processes, seconds)
            print(
                f"{engine:9} {processes} processes   submits/s {len(submits) / seconds:7.0f}"
                f"   p50 {p(50, submits):6.2f} ms   p99 {p(99, submits):6.2f} ms"
                f"     finds/s {len(finds) / seconds:7.0f}   p50 {p(50, finds):5.2f} ms   p99 {p(99, finds):5.2f} ms",
                flush=True,
            )


# ------------------------------------------------------------------------------------------------- size


async def by_size(engine: str, rows: int, calls: int) -> list[str]:
    """The same calls at a small and at a large journal, in turn; what misses the target."""
    missed = []
    with places(engine) as where:
        sizes = {SMALL: where.new(), rows: where.new()}
        began = time.perf_counter()
        for size, (url, folder) in sizes.items():
            await fill(url, folder, size)
        print(f"{engine}: {SMALL} and {rows} finished tasks, made in {time.perf_counter() - began:.0f} s", flush=True)
        async with contextlib.AsyncExitStack() as stack:
            journals = {size: await stack.enter_async_context(opened(*place)) for size, place in sizes.items()}
            for name, call in CALLS.items():
                small, large = await _queue_order(call, journals, calls)
                ratio = p(99, large) / p(99, small)
                print(
                    f"{engine:9} {name:32} {SMALL}: p50 {p(50, small):6.2f} p99 {p(99, small):6.2f} ms   "
                    f"{rows}: p50 {p(50, large):6.2f} p99 {p(99, large):6.2f} ms   p99 ratio {ratio:.2f}",
                    flush=True,
                )
                if ratio > TARGET:
                    missed.append(f"{engine}, {name}: p99 {ratio:.2f} times as slow, allowed are {TARGET}")
    return missed


async def _queue_order(call: Call, journals: dict[int, Journal], calls: int) -> list[list[float]]:
    times: dict[int, list[float]] = {size: [] for size in journals}
    for turn in range(calls + 20):
        for size, journal in journals.items():
            began = time.perf_counter()
            await call(journal, size)
            if turn >= 20:  # before, it warms up
                times[size].append((time.perf_counter() - began) * 1000)
    return list(times.values())


async def main() -> int:
    """Both tables."""
    parser = argparse.ArgumentParser(description="the journal's speed: by processes, and by size")
    parser.add_argument("--quick", action="store_true", help="5,000 rows, a fifth of a second a figure")
    parser.add_argument("--engine", choices=["sqlite", "postgres"], action="append", help="only this one")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure of the first table")
    parser.add_argument("--calls", type=int, default=2000, help="for each figure of the second table")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.work:
        what, url, folder, seconds = wanted.work
        await work(what, url, Path(folder), float(seconds))
        return 0
    rows, seconds, calls = (5_000, 0.2, 100) if wanted.quick else (wanted.rows, wanted.seconds, wanted.calls)
    missed = []
    for engine in wanted.engine or ["sqlite", "postgres"]:
        await by_processes(engine, seconds)
    for engine in wanted.engine or ["sqlite", "postgres"]:
        missed += await by_size(engine, rows, calls)
    for line in missed:
        print(f"MISSED  {line}")
    return 1 if missed and not wanted.quick else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
