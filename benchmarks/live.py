"""The schedule at work: real jobs in the simulator at real speed, beside a replay of the very same job times.

    python benchmarks/live.py [--jobs 120] [--at-once 60] [--one-by-one] [--seed N] | --quick

A real client buys them from the real server process over stdio: so many at once, and the next ones when all have ended
(with `--one-by-one`, each end makes room for the next). The simulator knows when each job was really done and when each
poll came, so delay and polls are measured outside the program under test. Then the same times go through `replay.py`,
with several draws of what is left to chance: the two should agree, and what the live run adds is the cost of a real
process. `--quick` is for CI.

Every call waits as long as the server allows, and nobody calls `get_task`: both the end of a wait and a caller who
asks bring a poll of their own, and here every poll is to be the schedule's. Exits 1 when a job did not succeed, was
charged twice, or was polled after its end; never by time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from replay import Replay, Row, Seen, fixed_row, row

from mj_mcp.simulator import Simulator

KEY = "bench-key"
MEDIAN, SIGMA = 30.0, 0.35
LONGEST_WAIT = 600
REPLAYS = 20


@dataclass(frozen=True)
class Plan:
    """How much is run. `speed` divides job times and the pace alike."""

    jobs: int
    at_once: int
    one_by_one: bool
    seed: int
    speed: float = 1.0

    @property
    def poll(self) -> float:
        """The fixed loop's pace, in seconds."""
        return max(0.5, 5.0 / self.speed)

    def waves(self, items: Sequence[float]) -> list[list[float]]:
        """Those that are bought at once, wave by wave."""
        size = self.jobs if self.one_by_one else self.at_once
        return [list(items[k : k + size]) for k in range(0, len(items), size)]


async def buy(client: Client, jobs: Iterator[int]) -> None:
    """Buy one picture after the other, waiting for each."""
    for k in jobs:
        result = await client.call_tool("generate_image", {"prompt": f"mug {k}", "wait_seconds": LONGEST_WAIT})
        status = (result.structured_content or {}).get("status")
        if status != "succeeded":
            print(f"job {k}: {status}, {result.content[:1]}")


@asynccontextmanager
async def server(simulator: Simulator, plan: Plan, folder: str) -> AsyncIterator[Client]:
    """A client of a server process that has never seen a job."""
    env = {
        "MJ_API_KEY": KEY,
        "MJ_BASE_URL": simulator.url,
        "MJ_DATA_DIR": folder,
        "MJ_OUTPUT_DIR": folder,
        "MJ_POLL_SECONDS": str(plan.poll),
        "MJ_MAX_OPEN_TASKS": str(plan.at_once),
        "MJ_ARCHIVE": "0",
    }
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "mj_mcp"], env=env)
    with tempfile.TemporaryFile("w") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            yield client


async def run(simulator: Simulator, plan: Plan) -> None:
    """All jobs, `at_once` at a time."""
    numbers = iter(range(plan.jobs))
    size = plan.jobs if plan.one_by_one else plan.at_once
    with tempfile.TemporaryDirectory() as folder:
        async with server(simulator, plan, folder) as client:
            for _ in range(plan.jobs // size):
                wave = islice(numbers, size)
                async with asyncio.TaskGroup() as group:
                    for _ in range(plan.at_once):
                        group.create_task(buy(client, wave if plan.one_by_one else islice(wave, 1)))


def measured(simulator: Simulator) -> tuple[list[Seen], list[str]]:
    """What the simulator saw of each job, in the order of the charges; and what went wrong."""
    seen, wrong = [], []
    for charge in simulator.ledger:
        job, polls = simulator.jobs[charge.task_id], [look.at for look in simulator.polls(charge.task_id)]
        # A poll that came just before the end may have been answered just after it.
        after = [at for at in polls if job.ends_at is not None and at >= job.ends_at] or polls[-1:]
        if len(after) != 1 or job.ends_at is None or job.seconds is None:
            wrong.append(f"job {charge.seq}: {len(polls)} polls, {len(after)} of them after its end, which asks for 1")
            continue
        seen.append((job.seconds, max(0.0, after[0] - job.ends_at), len(polls)))
    return seen, wrong + [f"charged twice: {charge.body}" for charge in simulator.duplicates()]


def show(name: str, found: Row, note: str = "") -> None:
    """One line of the table."""
    print(f"{name:24}{found.delay:8.2f}{found.late:8.2f}{found.polls:8.2f}  {note}")


def compare(plan: Plan, live: list[Seen]) -> None:
    """The table: the live run, the replays and the fixed loop, on the same jobs."""
    waves = plan.waves([seconds for seconds, _, _ in live])
    at_once = plan.at_once if plan.one_by_one else 0
    replays = [Replay(waves, random.Random(seed), at_once, poll=plan.poll).run() for seed in range(REPLAYS)]
    cold = plan.at_once if len(waves) > 1 else 0
    for name, part in (("first wave", slice(0, cold)), ("the others" if cold else "all", slice(cold, None))):
        if not live[part]:
            continue
        means = [row(jobs[part]).delay for jobs in replays]
        print(f"{name:24}{'delay s':>8}{'p95 s':>8}{'polls':>8}")
        show("live", row(live[part]))
        between = f"single replays: {min(means):.2f} to {max(means):.2f} s"
        show(f"replay, mean of {REPLAYS}", row([job for jobs in replays for job in jobs[part]]), between)
        show(f"fixed loop of {plan.poll:g} s", fixed_row(live[part], plan.poll))


async def main() -> int:
    """Run, measure, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="sixteen jobs, eight times as fast")
    parser.add_argument("--jobs", type=int, default=120)
    parser.add_argument("--at-once", type=int, default=60)
    parser.add_argument("--one-by-one", action="store_true", help="each end makes room for the next")
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    plan = Plan(given.jobs, given.at_once, given.one_by_one, given.seed)
    if given.quick:
        plan = Plan(16, 8, one_by_one=False, seed=given.seed, speed=8.0)
    began = time.monotonic()
    async with Simulator(key=KEY, seed=plan.seed, speed=plan.speed, image_edge=64) as simulator:
        await run(simulator, plan)
        live, wrong = measured(simulator)
    print(
        f"{plan.jobs} jobs, {plan.at_once} at once, log-normal of median {MEDIAN / plan.speed:g} s and sigma {SIGMA}, "
        f"seed {plan.seed}, no more polls than each {plan.poll:g} s; {time.monotonic() - began:.0f} s"
    )
    if not wrong and len(live) != plan.jobs:
        wrong.append(f"{len(live)} jobs were charged, not {plan.jobs}")
    for line in wrong:
        print(line)
    if not wrong:
        compare(plan, live)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
