"""The cadence at work: real jobs in the simulator at real speed, beside a replay of the very same job times.

    python benchmarks/live.py [--jobs 60] [--at-once 10] [--seed N] | --quick

A real client buys them from the real server process over stdio; each end makes room for the next. The simulator knows
when each job was really done and when each look came, so delay and looks are measured outside the program under test.
Then the same times go through `replay.py` in the same order, as many at once, under many jitters, as a watch would
live them: the two should agree, and what the live run adds is the cost of a real process. `--quick` is for CI.

Every call waits as long as the server allows, and nobody calls `get_task`: both the end of a wait and a caller who
asks bring a look of their own, and here every look is to be the cadence's. Exits 1 when a job did not succeed, was
charged twice, or was looked at after its end; never by time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from replay import Row, Seen, cadence_row, fixed_row, replay

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
    seed: int
    speed: float = 1.0

    @property
    def poll(self) -> float:
        """The fixed loop's pace, in seconds."""
        return max(0.5, 5.0 / self.speed)


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
    with tempfile.TemporaryDirectory() as folder:
        async with server(simulator, plan, folder) as client, asyncio.TaskGroup() as group:
            for _ in range(plan.at_once):
                group.create_task(buy(client, numbers))


def measured(simulator: Simulator) -> tuple[list[Seen], list[str]]:
    """What the simulator saw of each job, in the order of the charges; and what went wrong."""
    seen, wrong = [], []
    for charge in simulator.ledger:
        job, looks = simulator.jobs[charge.task_id], [look.at for look in simulator.looks(charge.task_id)]
        after = [at for at in looks if job.ends_at is not None and at >= job.ends_at]
        if len(after) != 1 or job.ends_at is None or job.seconds is None:
            wrong.append(f"job {charge.seq}: {len(looks)} looks, {len(after)} of them after its end, which asks for 1")
            continue
        seen.append((job.seconds, after[0] - job.ends_at, len(looks)))
    return seen, wrong + [f"charged twice: {charge.body}" for charge in simulator.duplicates()]


def show(name: str, row: Row, note: str = "") -> None:
    """One line of the table."""
    print(f"{name:24}{row.delay:8.2f}{row.late:8.2f}{row.looks:8.2f}  {note}")


def compare(plan: Plan, live: list[Seen]) -> None:
    """The table: the live run, the replays and the fixed loop, on the same jobs."""
    print(f"{'':24}{'delay s':>8}{'p95 s':>8}{'looks':>8}")
    row = cadence_row(live)
    show("live", row, f"+- {statistics.stdev(d for _, d, _ in live) / math.sqrt(len(live)):.2f} s by chance")
    times = [seconds for seconds, _, _ in live]
    replays = [replay(times, seed, at_once=plan.at_once, poll=plan.poll, apart=0.0) for seed in range(REPLAYS)]
    means = [cadence_row(jobs) for jobs in replays]
    delays, looks = [mean.delay for mean in means], [mean.looks for mean in means]
    show(
        f"replay, mean of {REPLAYS}",
        cadence_row([job for jobs in replays for job in jobs]),
        f"single replays: {min(delays):.2f} to {max(delays):.2f} s, {min(looks):.2f} to {max(looks):.2f} looks",
    )
    show(f"fixed loop of {plan.poll:g} s", fixed_row(live, plan.poll))
    inside = sum(delay <= row.delay for delay in delays)
    print(f"live delay is larger than that of {inside} of {REPLAYS} replays")


async def main() -> int:
    """Run, measure, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="eight jobs, eight times as fast")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    plan = Plan(8, 4, given.seed, 8.0) if given.quick else Plan(given.jobs, given.at_once, given.seed)
    began = time.monotonic()
    async with Simulator(key=KEY, seed=plan.seed, speed=plan.speed, image_edge=64) as simulator:
        await run(simulator, plan)
        live, wrong = measured(simulator)
    print(
        f"{plan.jobs} jobs, {plan.at_once} at once, log-normal of median {MEDIAN / plan.speed:g} s and sigma {SIGMA}, "
        f"seed {plan.seed}, looks every {plan.poll:g} s at most on average; {time.monotonic() - began:.0f} s"
    )
    print("job times, s:", " ".join(f"{seconds:.1f}" for seconds, _, _ in live))
    if not wrong and len(live) != plan.jobs:
        wrong.append(f"{len(live)} jobs were charged, not {plan.jobs}")
    for line in wrong:
        print(line)
    if not wrong:
        compare(plan, live)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
