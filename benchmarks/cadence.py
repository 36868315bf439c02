"""Replay traces of job times through the learned cadence and through the fixed loop: `python benchmarks/cadence.py`.

For each trace it prints mean and 95th percentile of the delay from "finished" to the look that sees it, and looks per
job, for the fixed loop, for the cadence cold (jobs 1-20, nothing known) and warm (the rest, +- the standard error of
the mean), and two leasts at the fixed loop's looks (see `least.py`): `least` is told the law of every job, and `told`
knows the laws but not when they change. Missed targets end a line. The second table is of traces held out: no constant
of the cadence was chosen by them. `--quick` is for CI: one run of a sixth of the first table.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import multiprocessing.pool
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from least import least, told
from replay import Row, Seen, cadence_row, fixed_row, replay
from traces import FAMILIES, HELD_OUT, JOBS, Trace

COLD = 20


def play(trace: Trace, seed: int) -> list[Seen]:
    """One run of the cadence."""
    return replay(trace.times(seed), seed, at_once=trace.at_once, progress=trace.progress)


def play_told(trace: Trace, seed: int) -> list[Seen]:
    """One run of the same jobs for one who knows the laws."""
    return replay(trace.times(seed), seed, at_once=trace.at_once, learner=told(trace))


@dataclass(frozen=True)
class Line:
    """What the runs of a trace show."""

    trace: Trace
    cold: Row
    warm: Row
    error: float
    loop_cold: Row
    loop_warm: Row
    least: float
    told: float
    looks: float

    def misses(self) -> list[str]:
        """The targets that are missed."""
        rules = [
            (bool(self.trace.progress) and self.warm.delay > 1, "progress > 1 s"),
            (not self.trace.progress and self.warm.delay > 1.2 * self.least, "warm > 1.2 x least"),
            (self.cold.delay > 2, "cold > 2 s"),
            (self.warm.delay > self.loop_warm.delay + 0.005, "warm slower than fixed"),
            (self.cold.delay > self.loop_cold.delay + 0.005, "cold slower than fixed"),
            (self.looks > 1, "more looks than fixed"),
        ]
        return [name for missed, name in rules if missed]

    def show(self) -> None:
        """Print it."""
        rows = "|".join(f"{row.delay:5.2f}{row.late:5.2f}{row.looks:6.2f} " for row in (self.loop_warm, self.cold))
        print(
            f"{self.trace.name:31}|{rows}|{self.warm.delay:5.2f} +-{self.error:.2f}{self.warm.late:5.2f}"
            f"{self.warm.looks:6.2f} |{self.least:5.2f}{self.warm.delay / self.least:6.2f} |{self.told:5.2f}"
            f"{self.warm.delay / self.told:6.2f} |{self.looks:6.3f}  {', '.join(self.misses())}"
        )


def line(trace: Trace, runs: Sequence[list[Seen]], knowing: Sequence[list[Seen]], best: float) -> Line:
    """What the runs of a trace come to."""
    cold, warm = [job for run in runs for job in run[:COLD]], [job for run in runs for job in run[COLD:]]
    row, every = cadence_row(warm), cold + warm
    error = math.sqrt(sum((delay - row.delay) ** 2 for _, delay, _ in warm)) / len(warm)
    return Line(
        trace,
        cadence_row(cold),
        row,
        error,
        fixed_row(cold),
        fixed_row(warm),
        best,
        cadence_row([job for run in knowing for job in run[COLD:]]).delay,
        cadence_row(every).looks / fixed_row(every).looks,
    )


def table(traces: Sequence[Trace], seeds: range, pool: multiprocessing.pool.Pool) -> list[Line]:
    """Play and print some traces."""
    todo = [(trace, seed) for trace in traces for seed in seeds]
    played, knowing = pool.starmap(play, todo, chunksize=1), pool.starmap(play_told, todo, chunksize=1)
    bests = pool.map(least, [[(1 / len(t.laws), law) for law in t.laws] for t in traces], chunksize=1)
    heads = [f"{'fixed loop':^17}", f"{'cold':^17}", f"{'warm':^23}", "least  x   ", "told   x   "]
    print("|".join([f"{'delay mean/p95 s, looks a job':31}", *heads, "looks/fixed"]))
    lines = []
    for k, trace in enumerate(traces):
        part = slice(k * len(seeds), (k + 1) * len(seeds))
        lines.append(line(trace, played[part], knowing[part], bests[k][1]))
        lines[-1].show()
    return lines


def main() -> int:
    """Print the tables; 1 where a trace made more looks than the fixed loop, or was slower when warm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of every sixth trace; judges nothing")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--only", default="", help="traces whose name holds this")
    given = parser.parse_args()
    start = time.perf_counter()
    seeds = range(given.seed, given.seed + (1 if given.quick else given.runs))
    lines: list[Line] = []
    with multiprocessing.Pool() as pool:
        for family in [FAMILIES[::6]] if given.quick else [FAMILIES, HELD_OUT]:
            if chosen := [trace for trace in family if given.only in trace.name]:
                print("held out" if family is HELD_OUT else "families")
                lines += table(chosen, seeds, pool)
    print(f"{len(seeds)} runs of {JOBS} jobs a trace, cold = first {COLD}; {time.perf_counter() - start:.0f} s")
    if given.quick:  # one run says nothing of a few looks in a thousand
        return 0
    return int(any({"warm slower than fixed", "more looks than fixed"} & set(line.misses()) for line in lines))


if __name__ == "__main__":
    sys.exit(main())
