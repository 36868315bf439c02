"""Replay traces of job times through the schedule and through the fixed loop: `python benchmarks/cadence.py`.

For each trace, and each of its phases, it prints mean and 95th percentile of the delay from "ended" to the poll that
sees it, for the fixed loop and for the schedule, and whether the row keeps its target; and polls over all jobs of the
trace, of which there must be no more than the fixed loop makes. It ends with 1 when a row misses. The second table is
of traces held out: no constant was chosen by them. `--quick` is for CI: one run of a part of the first table, which
judges nothing but the polls.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.pool
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from replay import POLL, Replay, Row, Seen, fixed_row, row
from traces import HELD_OUT, TUNED, Trace

TARGETS = {"steady": 1.8, "cohort": 2.3, "cold": 2.7, "jump": 2.7, "progress": 1.0}
"""Mean delay in seconds. Where jobs fail at once it is the fixed loop's, and for any trace 1.1 times that."""

LATE = {"cohort": POLL + 0.5}


TRACES = {trace.name: trace for trace in TUNED + HELD_OUT}


def play(name: str, seed: int) -> list[Seen]:
    """One run."""
    trace, rng = TRACES[name], random.Random(f"{name}/{seed}")
    waves = trace.waves(rng)
    return Replay(waves, rng, trace.at_once, trace.progress, trace.asked_together).run()


@dataclass(frozen=True)
class Phase:
    """The jobs of one row of the table."""

    target: str
    mine: Row
    loop: Row

    def miss(self) -> str:
        """What is missed by more than the standard error of the mean, "" for nothing."""
        most = TARGETS.get(self.target, self.loop.delay * (1.0 if self.target == "fail" else 1.1))
        if self.target == "cold":  # nothing is known yet, so it is the fixed loop, and so is its luck
            most = max(most, self.loop.delay)
        found = [f"mean > {most:.2f}"] if self.mine.delay - self.mine.error > most else []
        if self.mine.late > LATE.get(self.target, 1e9):
            found.append(f"p95 > {LATE[self.target]}")
        return ", ".join(found)


def phases(trace: Trace, runs: Sequence[list[Seen]]) -> list[Phase]:
    """Its rows, and all jobs together."""
    jobs = [(trace.judged(k), job) for run in runs for k, job in enumerate(run)]
    found = []
    for target in [*dict.fromkeys(name for name, _ in jobs if name != "any"), "any"]:
        part = [job for name, job in jobs if target in {name, "any"}]
        found.append(Phase(target, row(part), fixed_row(part)))
    return found


def show(trace: Trace, runs: Sequence[list[Seen]]) -> int:
    """Print a trace; how many targets it misses."""
    missed = 0
    for phase in phases(trace, runs):
        whole = phase.target == "any"
        polls = phase.mine.polls / phase.loop.polls
        miss = ", ".join(filter(None, [phase.miss(), "more polls than the fixed loop" if whole and polls > 1 else ""]))
        missed += bool(miss)
        figures = f"{phase.loop.delay:6.2f}{phase.loop.late:6.2f} |{phase.mine.delay:6.2f}{phase.mine.late:6.2f}"
        name, kind = (trace.name, "all") if whole else ("", phase.target)
        print(
            f"{name:44} {kind:9}|{figures} |{f'{polls:6.3f}' if whole else '':6} {'FAIL: ' + miss if miss else 'pass'}"
        )
    return missed


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of every fifth trace; only polls are judged")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--only", default="", help="traces whose name holds this")
    given = parser.parse_args()
    start, missed, extra = time.perf_counter(), 0, 0
    seeds = range(given.seed, given.seed + (1 if given.quick else given.runs))
    with multiprocessing.Pool() as pool:
        for title, family in (("tuned with", TUNED[::5] if given.quick else TUNED), ("held out", HELD_OUT)):
            chosen = [trace for trace in family if given.only in trace.name]
            if not chosen or (given.quick and family is HELD_OUT):
                continue
            print(f"{title:44} {'':9}|  fixed loop |    schedule |polls/fixed; mean and p95 of the delay in s")
            played = pool.starmap(play, [(trace.name, seed) for trace in chosen for seed in seeds], chunksize=1)
            for k, trace in enumerate(chosen):
                runs = played[k * len(seeds) : (k + 1) * len(seeds)]
                missed += show(trace, runs)
                extra += phases(trace, runs)[-1].mine.polls > phases(trace, runs)[-1].loop.polls
    print(f"{len(seeds)} runs of each trace; {missed} rows miss their target; {time.perf_counter() - start:.0f} s")
    return int(bool(extra if given.quick else missed))


if __name__ == "__main__":
    sys.exit(main())
