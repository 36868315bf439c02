"""Money: never paid twice, never lost, and doubt is called doubt (DESIGN: M1, M2, M3 and R1).

The short form of `benchmarks/money.py`: the same kills, fewer of them, through the SDK's client.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import KEY, Caller
from lives import PATIENCE, Life, broken_promises, live, outcome_of, rows, rows_of

from mj_mcp.simulator import Charge, Fault, Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

KILLS = 20
PLENTY = {"MJ_MAX_OPEN_TASKS": "1000", "MJ_PROXY_DIALECT": "auto"}
SEED = 20_261

LOST = [
    faults.reset_before_accept(),
    faults.reset_after_accept(),
    faults.close_before_accept(),
    faults.close_after_accept(),
    faults.status(502, accept=True),
    faults.status(500, accept=True),
    faults.status(504, accept=False),
    faults.html(200, accept=True),
    faults.html(503, accept=True),
    faults.wrong_json(b"{}", accept=True),
    faults.wrong_json(b"null", accept=True),
    faults.wrong_json(b"", accept=True),
    faults.wrong_json(faults.deep(), accept=True),
    faults.result_as("missing"),
    faults.result_as(None),
    faults.half_body(),
]
"""After each of these nobody but the proxy's own records can tell whether the submit was charged."""

KEPT = [
    faults.delay(0.05),
    faults.delay(0.05, before_accept=True),
    faults.drip_body(0.0005),
    faults.result_as("int"),
    faults.result_as("list"),
    faults.code(22, accept=True),
    faults.code(21, accept=True),
]
"""The answer is late or odd, but it is an answer."""

MOMENTS = ("soon", "at the POST", "at the charge", "after the charge", "after the answer")

KILL_FAULTS = [
    faults.reset_before_accept(),
    faults.reset_after_accept(),
    faults.status(502, accept=True),
    faults.half_body(),
    faults.hang(),
    faults.delay(0.05),
    faults.delay(0.05, before_accept=True),
]


def named(fault: Fault) -> str:
    return f"{fault.name}{'' if fault.accept else ' unaccepted'}"


# --- the kill loop


@pytest.mark.timeout(600)  # sixty starts of a server, also on a busy machine
@pytest.mark.parametrize("dialect", ["gateway", "classic", "plus", "newapi"])
async def test_whenever_the_server_is_killed_around_a_post_both_books_agree(dialect: Any, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    waiting = dice.sample(KILL_FAULTS, len(KILL_FAULTS))
    died: list[str] = []
    repeated = 0
    victim: list[Life] = []
    orphans: list[Charge] = []

    def on_charge(charge: Charge) -> None:
        if not rows_of(tmp_path, charge):
            orphans.append(charge)
        if died and died[-1] == "at the charge" and victim:
            victim[-1].kill()

    async with Simulator(dialect=dialect, key=KEY, job_seconds=None, on_charge=on_charge) as sim:
        previous: str | None = None
        for number in range(KILLS + 1):
            async with live(sim, tmp_path, **PLENTY) as life:
                sim.clear_faults()
                if previous is not None:
                    known = [row for row in rows(tmp_path) if row["prompt"] == previous]
                    result = await life.call("generate_image", prompt=previous, wait_seconds=0)
                    assert outcome_of(result) in {"queued", "unconfirmed"}, f"kill {number}: {result.content}"
                    repeated += bool(known)
                if number == KILLS:
                    break
                previous = f"picture {number}"
                moment = MOMENTS[number % len(MOMENTS)]
                # At these moments the fault is sure to meet a POST.
                if moment in {"at the charge", "after the answer"} and waiting:
                    sim.inject("submit", waiting.pop())
                elif moment == "at the POST":
                    sim.inject("submit", faults.delay(0.05, before_accept=True))
                victim.append(life)
                died.append(moment)
                await kill_around(sim, life, previous, moment, dice)
                victim.clear()
        await fire_the_rest(sim, tmp_path)
        assert broken_promises(sim, tmp_path) == []
        assert orphans == []
        assert waiting == []
        assert repeated >= KILLS // 2, "most kills must come after the claim, or nothing is shown"
        assert {named(fault).split()[0] for fault in KILL_FAULTS} <= set(sim.fired)
        assert len(sim.ledger) >= KILLS // 2
        statuses = {row["status"] for row in rows(tmp_path)}
        assert {"queued"} <= statuses <= {"queued", "unconfirmed"}
        if dialect in {"classic", "plus"}:
            charged = [row["status"] for charge in sim.ledger for row in rows_of(tmp_path, charge)]
            assert set(charged) == {"queued"}, "what was charged is found by its state"
        else:
            assert "unconfirmed" in statuses


async def fire_the_rest(sim: Simulator, home: Path) -> None:
    """A kill may come before its fault has begun. Those faults meet a POST of their own, so that each one is seen."""
    sim.clear_faults()
    left = [fault for fault in KILL_FAULTS if fault.name not in sim.fired]
    async with live(sim, home, **PLENTY) as life:
        for fault in left:
            sim.inject("submit", fault)
            await life.call("generate_image", prompt=f"for {fault.name}", wait_seconds=1)
        life.kill()
    async with live(sim, home, **PLENTY) as life:
        for fault in left:
            result = await life.call("generate_image", prompt=f"for {fault.name}", wait_seconds=0)
            assert outcome_of(result) in {"queued", "unconfirmed"}


async def kill_around(sim: Simulator, life: Life, prompt: str, moment: str, dice: random.Random) -> None:
    posts, paid = len(sim.submits()), len(sim.ledger)
    answered = anyio.Event()

    async def submit() -> None:
        result = await life.call_or_die("generate_image", prompt=prompt, wait_seconds=0)
        assert result is None or outcome_of(result) in {"queued", "unconfirmed", "submitting"}
        answered.set()

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        match moment:
            case "soon":
                await anyio.sleep(dice.uniform(0, 0.05))
            case "at the POST":
                await sim.until(lambda: len(sim.submits()) > posts, PATIENCE)
            case "after the charge":
                await sim.until(lambda: len(sim.ledger) > paid, PATIENCE)
                await anyio.sleep(dice.uniform(0, 0.01))
            case _:
                # A hang is never answered, and "at the charge" kills by itself or, with no charge, not at all.
                with anyio.move_on_after(1.0 if sim.faults_left() else PATIENCE):
                    await sim.until(lambda: len(sim.submits()) > posts, PATIENCE)
                with anyio.move_on_after(1.0):
                    await answered.wait()
        life.kill()


# --- M1, M2, M3 on every fault


@pytest.mark.parametrize("fault", LOST, ids=named)
async def test_a_lost_answer_is_called_doubt_and_the_repeated_call_posts_nothing(
    fault: Fault, connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    sim.inject("submit", fault)
    async with connect(sim) as caller:
        first = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
        assert first["code"] == "unconfirmed"
        again = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["code"], again["submission_id"]) == ("unconfirmed", first["submission_id"])
        task = await caller.task("get_task", task_id=first["submission_id"], wait_seconds=0)
        assert task["status"] == "unconfirmed"
    assert len(sim.submits()) == 1
    assert len(sim.ledger) == fault.accept
    assert sim.fired[fault.name] == 1
    assert broken_promises(sim, tmp_path) == []


@pytest.mark.parametrize("fault", KEPT, ids=named)
async def test_a_late_or_odd_answer_is_taken_and_the_repeated_call_finds_its_task(
    fault: Fault, connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    sim.inject("submit", fault)
    async with connect(sim) as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert first["task_id"] == sim.ledger[0].task_id
        again = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["task_id"], again["duplicate_of_open_task"]) == (first["task_id"], True)
    assert len(sim.submits()) == len(sim.ledger) == 1
    assert sim.fired[fault.name] == 1
    assert broken_promises(sim, tmp_path) == []


async def test_a_hanging_submit_is_one_submit_however_often_it_is_asked_for(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    sim.inject("submit", faults.hang())
    async with connect(sim) as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0.1)
        assert (first["status"], first["task_id"]) == ("submitting", None)
        again = await caller.task("generate_image", prompt="a mug", wait_seconds=0.1)
        assert (again["submission_id"], again["status"]) == (first["submission_id"], "submitting")
        await sim.stop_listening(abort=True)
        waited = await caller.task("get_task", task_id=first["submission_id"], wait_seconds=PATIENCE)
        assert waited["status"] == "unconfirmed"
    assert len(sim.submits()) == len(sim.ledger) == sim.fired["hang"] == 1
    assert broken_promises(sim, tmp_path) == []


async def test_another_is_paid_for_only_when_asked_for(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        second = await caller.task("generate_image", prompt="a mug", wait_seconds=0, allow_duplicate=True)
        third = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
    assert second["task_id"] != first["task_id"]
    assert third["duplicate_of_open_task"]
    assert third["task_id"] in {first["task_id"], second["task_id"]}
    assert len(sim.ledger) == 2


async def test_at_the_moment_of_every_charge_its_row_is_in_the_file(connect: Connect, tmp_path: Path) -> None:
    seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    def on_charge(charge: Charge) -> None:
        found = rows_of(tmp_path, charge)
        seen.append((charge.endpoint, [(row["status"], row["task_id"]) for row in found]))

    async with Simulator(key=KEY, job_seconds=None, on_charge=on_charge) as sim, connect(sim) as caller:
        for prompt, fault in (("one", None), ("two", faults.reset_after_accept()), ("three", faults.half_body())):
            if fault:
                sim.inject("submit", fault)
            await caller.call("generate_image", prompt=prompt, wait_seconds=0)
        parent = sim.ledger[0].task_id
        sim.finish(parent)
        await caller.task("get_task", task_id=parent, wait_seconds=PATIENCE)
        await caller.task("upscale_image", task_id=parent, index=2, wait_seconds=0)
        await caller.task("vary_image", task_id=parent, index=3, wait_seconds=0)
        await caller.task("reroll", task_id=parent, wait_seconds=0)
        assert sim.fired == {"reset_after_accept": 1, "half_body": 1}
    claimed = [("submitting", None)]
    assert seen == [(endpoint, claimed) for endpoint in ["imagine"] * 3 + ["change"] * 3]


# --- R1


async def test_a_restart_after_a_kill_polls_every_open_task_within_ten_seconds(tmp_path: Path) -> None:
    count = 40
    async with Simulator(key=KEY, job_seconds=None) as sim:
        async with live(sim, tmp_path, MJ_MAX_OPEN_TASKS="1000", MJ_POLL_SECONDS="60") as life:
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(
                        life.client.call_tool, "generate_image", {"prompt": f"{number}", "wait_seconds": 0}
                    )
            life.kill()
        left = {charge.task_id for charge in sim.ledger}
        assert len(left) == count
        before = len(sim.requests)
        async with live(sim, tmp_path, MJ_POLL_SECONDS="60"):
            await sim.until(lambda: left <= {seen.path.split("/")[-2] for seen in sim.requests[before:]}, 10.0)
