"""Random lives over one journal: whatever happens in whatever order, M1 to M3 hold after each step.

The real studio with its journal, watch and submits, against the simulator over real HTTP, in one event loop that
runs only inside a rule. A death drops the studio: nothing more of it reaches the file, and the kernel lets go of
its process lock.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import KEY
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from lives import PATIENCE, Subject, broken_promises, rows, subject_of

from mj_mcp.app import Timings, open_studio
from mj_mcp.errors import MjError, StorageUnavailable
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.prompts import Options
from mj_mcp.settings import read_settings
from mj_mcp.simulator import Simulator, faults
from mj_mcp.studio import Call, Studio
from mj_mcp.tasks import Kind

pytestmark = pytest.mark.slow

T = TypeVar("T")

PROMPTS = ["a mug", "a cup", "a jug"]
FAULTS = {
    "reset before": faults.reset_before_accept(),
    "reset after": faults.reset_after_accept(),
    "502 after": faults.status(502, accept=True),
    "half": faults.half_body(),
    "hang": faults.hang(),
    "no id": faults.result_as("missing"),
    "refused": faults.code(4),
    "busy": faults.code(23),
}


class MortalStorage(Sqlite):
    """The real storage, which can die: from then on nothing is written, and its lock file stays behind, unlocked."""

    dead = False

    def _transact(self, *work: Any) -> Any:
        if self.dead:
            raise StorageUnavailable("this process is dead")
        return super()._transact(*work)

    def die(self) -> None:
        self.dead = True
        if self._lock._descriptor is not None:
            os.close(self._lock._descriptor)
            self._lock._descriptor = None


class Lives(RuleBasedStateMachine):
    """One data folder, one proxy, and one server life after another."""

    dialect: Any = "gateway"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.jumped = 0.0
        self.orphans: list[str] = []
        self.sim = Simulator(
            dialect=self.dialect,
            key=KEY,
            job_seconds=None,
            deterministic_ids=True,
            on_charge=lambda _charge: self.check_row(),
        )
        self.run(self.sim.__aenter__())
        self.storages: list[MortalStorage] = []
        self.start()

    def now(self) -> float:
        return time.time() + self.jumped

    def open_journal(self) -> SqlJournal:
        self.storages.append(MortalStorage(self.home / "data"))
        return SqlJournal(self.storages[-1], "an account", self.now)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self.runner.run(bounded())

    def check_row(self) -> None:
        charge = self.sim.ledger[-1]
        if not any(row["status"] == "submitting" for row in rows(self.home)):
            self.orphans.append(charge.task_id)

    # --- lives

    def start(self) -> None:
        environment = read_settings(
            api_key=KEY,
            base_url=self.sim.url,
            data_dir=self.home / "data",
            output_dir=self.home / "pictures",
            archive=False,
            max_open_tasks=1000,
            poll_seconds=0.5,
        )

        async def begin() -> None:
            opened: asyncio.Future[Studio] = asyncio.get_running_loop().create_future()

            async def live() -> None:
                async with open_studio(
                    environment, timings=Timings(grace=0.0), now=self.now, journal=self.open_journal()
                ) as studio:
                    opened.set_result(studio)
                    await asyncio.Event().wait()

            self.life = asyncio.create_task(live())
            self.studio = await opened

        self.run(begin())

    async def end(self) -> None:
        self.life.cancel()
        with suppress(asyncio.CancelledError):
            await self.life

    @rule()
    def kill(self) -> None:
        self.storages[-1].die()
        self.run(self.end())
        self.start()

    @rule()
    def restart(self) -> None:
        self.run(self.end())
        self.start()

    # --- callers

    async def ask(self, subject: Subject, work: Coroutine[Any, Any, Any]) -> None:
        """Any answer is fine but one that calls a charged submit refused; the promises are the invariants.

        Another subject may be charged meanwhile: a POST goes on when the time of its caller is over.
        """
        paid = self.charges(subject)
        try:
            await work
        except MjError as failure:
            if self.charges(subject) > paid:
                assert failure.code == "unconfirmed", f"charged, and answered {failure.code}"  # noqa: PT017

    def charges(self, subject: Subject) -> int:
        return sum(subject_of(charge) == subject for charge in self.sim.ledger)

    async def buy(self, prompt: str, seconds: float) -> None:
        async def work() -> None:
            call = Call(wait_seconds=seconds)
            await self.studio.wait(call, await self.studio.imagine(call, prompt, Options()))

        await self.ask(("imagine", prompt, None), work())

    @rule(prompt=st.sampled_from(PROMPTS))
    def generate(self, prompt: str) -> None:
        """Asked again while the first may be open: what `finish` ends may be bought again, by its own words."""
        self.run(self.buy(self.fresh(prompt), 0.05))

    def fresh(self, prompt: str) -> str:
        """The request's next edition, once the last one is over: then an identical one is a new purchase."""
        edition = sum(
            str(row["prompt"]).startswith(prompt) and row["status"] in {"succeeded", "failed", "refused", "abandoned"}
            for row in rows(self.home)
            if row["kind"] == "imagine"
        )
        return f"{prompt} {edition}"

    @rule(prompt=st.sampled_from(PROMPTS))
    def two_at_once(self, prompt: str) -> None:
        async def both() -> None:
            words = self.fresh(prompt)
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(self.buy(words, 0.05))

        self.run(both())

    @rule(prompt=st.sampled_from(PROMPTS), steps=st.integers(1, 12))
    def cancel(self, prompt: str, steps: int) -> None:
        async def leave() -> None:
            call = asyncio.create_task(self.buy(self.fresh(prompt), 5))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call

        self.run(leave())

    @rule(
        kind=st.sampled_from([Kind.UPSCALE, Kind.VARIATION, Kind.REROLL]),
        number=st.integers(1, 4),
        shorthand=st.booleans(),
    )
    def change(self, kind: Kind, number: int, shorthand: bool) -> None:
        done = [row["task_id"] for row in rows(self.home) if row["status"] == "succeeded" and row["kind"] != "upscale"]
        made = {(row["kind"], row["parent_id"], row["index"]) for row in rows(self.home) if not is_open(row)}
        index = None if kind is Kind.REROLL else number
        free = [task_id for task_id in done if (kind, task_id, index) not in made]
        if free:

            async def work() -> None:
                call = Call(wait_seconds=0.05)
                bought = await self.studio.change(call, kind, free[0], index, shorthand=shorthand)
                await self.studio.wait(call, bought)

            self.run(self.ask((kind.value, free[0], index), work()))

    # --- the world

    @rule(name=st.sampled_from(sorted(FAULTS)))
    def fault(self, name: str) -> None:
        self.sim.inject("submit", FAULTS[name])

    @rule(seconds=st.sampled_from([-7200.0, -1.0, 9.0, 700.0, 90_000.0]))
    def clock_jump(self, seconds: float) -> None:
        self.jumped += seconds

    @rule()
    def finish(self) -> None:
        """Every job at the proxy ends, and the server comes to see it."""
        known = [row["task_id"] for row in rows(self.home) if row["task_id"] and is_open(row)]

        async def fetch() -> None:
            for task_id in known:
                if task_id in self.sim.jobs:
                    self.sim.finish(task_id)
                with suppress(MjError):
                    await self.studio.recall(Call(wait_seconds=2), task_id)

        self.run(fetch())

    # --- the promises

    @invariant()
    def both_books_agree(self) -> None:
        assert broken_promises(self.sim, self.home) == []
        assert self.orphans == []

    def teardown(self) -> None:
        try:
            self.run(self.end())
            self.run(self.sim.__aexit__())
        finally:
            self.runner.close()
            self.folder.cleanup()


def is_open(row: dict[str, Any]) -> bool:
    return row["status"] in {"submitting", "unconfirmed", "queued", "processing", "stalled"}


class LivesOnClassic(Lives):
    dialect = "classic"


class LivesOnPlus(Lives):
    dialect = "plus"


class LivesOnNewapi(Lives):
    dialect = "newapi"


STEPS = settings(max_examples=30, stateful_step_count=30, print_blob=True, suppress_health_check=list(HealthCheck))
FEWER = settings(STEPS, max_examples=10)

TestLives = Lives.TestCase
TestLives.settings = STEPS
TestLivesOnClassic, TestLivesOnPlus, TestLivesOnNewapi = (
    LivesOnClassic.TestCase,
    LivesOnPlus.TestCase,
    LivesOnNewapi.TestCase,
)
for one in (TestLivesOnClassic, TestLivesOnPlus, TestLivesOnNewapi):
    one.settings = FEWER
