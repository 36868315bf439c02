"""`mj-mcp tasks`: a person sees what was bought, and settles what is in doubt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import KEY, Caller, environment
from lives import PATIENCE, rows

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


async def tasks(sim: Simulator, home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """`mj-mcp tasks ...` to its end."""
    command = [sys.executable, "-m", "mj_mcp", "tasks", *arguments]
    with anyio.fail_after(2 * PATIENCE):
        done = await anyio.run_process(command, env=environment(sim.url, home, **extra), check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


async def refused(sim: Simulator, home: Path, *arguments: str, **extra: str) -> str:
    """A command that changes nothing; its one line of words."""
    before, posts = rows(home), len(sim.submits())
    done = await tasks(sim, home, *arguments, **extra)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mj-mcp: ")
    assert (rows(home), len(sim.submits())) == (before, posts)
    return line


async def lose(caller: Caller, sim: Simulator, prompt: str = "a mug") -> str:
    """A submit whose answer is lost; its submission id."""
    lost = sim.fired["reset_after_accept"]
    sim.inject("submit", faults.reset_after_accept())
    error = await caller.error("generate_image", prompt=prompt, wait_seconds=0)
    assert (error["code"], sim.fired["reset_after_accept"]) == ("unconfirmed", lost + 1)
    assert "mj-mcp tasks" in error["next_step"]
    return str(error["submission_id"])


async def test_an_empty_journal_lists_no_tasks(sim: Simulator, tmp_path: Path) -> None:
    done = await tasks(sim, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "No tasks.\n", "")
    done = await tasks(sim, tmp_path, "--json")
    assert (done.returncode, done.stdout) == (0, "")


async def test_tasks_are_listed_newest_first_and_filtered_and_shown(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        queued = await caller.task("generate_image", prompt="a cup\nwith a handle", wait_seconds=0)
        lost = await lose(caller, sim)
        sim.inject("submit", faults.code(24))
        await caller.error("generate_image", prompt="a bad word", wait_seconds=0)
    before = len(sim.polls())
    done = await tasks(sim, tmp_path)
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert first.split()[2:] == ["unconfirmed", "imagine", "local", lost, "a", "mug"]
    assert second.split()[2:] == ["queued", "imagine", "local", queued["task_id"], "a", "cup", "with", "a", "handle"]
    done = await tasks(sim, tmp_path, "--status", "unconfirmed", "--json")
    (line,) = done.stdout.splitlines()
    assert (json.loads(line)["submission_id"], json.loads(line)["status"]) == (lost, "unconfirmed")
    assert (await tasks(sim, tmp_path, "--limit", "1")).stdout.splitlines() == [first]
    done = await tasks(sim, tmp_path, "--status", "refused")
    assert "a bad word" in done.stdout, "refused submits are kept for audit"
    for handle in (queued["task_id"], queued["submission_id"]):
        done = await tasks(sim, tmp_path, "show", handle, "--json")
        shown: dict[str, Any] = json.loads(done.stdout)
        assert (shown["task_id"], shown["status"]) == (queued["task_id"], "queued")
    done = await tasks(sim, tmp_path, "show", lost)
    assert f"submission_id    {lost}\n" in done.stdout
    assert "failure          unconfirmed: " in done.stdout
    assert len(sim.polls()) == before, "listing and showing ask the proxy nothing"


async def test_an_unknown_id_cannot_be_shown_and_a_wrong_status_is_a_usage_error(
    sim: Simulator, tmp_path: Path
) -> None:
    assert "nope" in await refused(sim, tmp_path, "show", "nope")
    done = await tasks(sim, tmp_path, "--status", "lost")
    assert done.returncode == 2
    assert "unconfirmed" in done.stderr.lower()


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_every_account_is_listed_without_a_key_and_with_one_only_where_asked(
    connect: Connect, sim: Simulator, tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    extra = {"MJ_DATABASE_URL": request.getfixturevalue("database_url")} if engine == "postgres" else {}
    keyless = {"MJ_API_KEY": "", **extra}
    async with connect(sim, **extra) as caller:
        mine = await caller.task("generate_image", prompt="a cup", wait_seconds=0)
    async with connect(sim, MJ_API_KEY=f"{KEY}-2", **extra) as other:
        theirs = await lose(other, sim, "a mug")
    (own,) = (await tasks(sim, tmp_path, **extra)).stdout.splitlines()
    assert own.split()[2:] == ["queued", "imagine", "local", mine["task_id"], "a", "cup"]
    every = await tasks(sim, tmp_path, "--all-accounts", **extra)
    assert (await tasks(sim, tmp_path, **keyless)).stdout == every.stdout
    first, second = (line.split() for line in every.stdout.splitlines())
    assert (first[6], second[1:]) == (theirs, own.split())
    as_json = [json.loads(line) for line in (await tasks(sim, tmp_path, "--json", **keyless)).stdout.splitlines()]
    assert [row["account"][:8] for row in as_json] == [first[0], second[0]]
    assert first[0] != second[0]
    assert "has no task" in await refused(sim, tmp_path, "show", theirs, **extra)
    for options, settings in ((["--all-accounts"], extra), ([], keyless)):
        shown = await tasks(sim, tmp_path, "show", theirs, *options, **settings)
        assert f"account          {as_json[0]['account']}\nsubmission_id    {theirs}\n" in shown.stdout


async def test_an_attached_task_is_checked_by_a_fetch_and_a_running_server_goes_on_with_it(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        lost = await lose(caller, sim)
        (charge,) = sim.ledger
        assert sim.polls() == []
        done = await tasks(sim, tmp_path, "attach", lost, charge.task_id)
        assert (done.returncode, done.stderr) == (0, "")
        assert lost in done.stdout
        assert charge.task_id in done.stdout
        assert sim.polls(charge.task_id)
        again = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["task_id"], again["submission_id"]) == (charge.task_id, lost)
        assert again["duplicate_of_open_task"]
        sim.finish(charge.task_id)
        task = await caller.task("get_task", task_id=lost, wait_seconds=PATIENCE)
        assert (task["task_id"], task["status"], len(task["images"])) == (charge.task_id, "succeeded", 4)
    assert len(sim.submits()) == 1


async def test_a_task_that_has_finished_already_is_attached_with_its_pictures(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        lost = await lose(caller, sim)
    sim.finish(sim.ledger[0].task_id)
    done = await tasks(sim, tmp_path, "attach", lost, sim.ledger[0].task_id)
    assert "its status is succeeded" in done.stdout
    (row,) = rows(tmp_path)
    assert (row["status"], len(row["images"]), row["failure"]) == ("succeeded", 4, None)


async def test_attaching_is_refused_where_the_records_do_not_bear_it_out(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        lost = await lose(caller, sim)
        other = await caller.task("generate_image", prompt="a cup", wait_seconds=0)
    right = sim.ledger[0].task_id
    assert "neither this server nor the proxy" in await refused(sim, tmp_path, "attach", lost, "1234567890123456")
    assert other["submission_id"] in await refused(sim, tmp_path, "attach", lost, other["task_id"])
    assert "queued" in await refused(sim, tmp_path, "attach", other["submission_id"], right)
    assert "no submission" in await refused(sim, tmp_path, "attach", "sub_unknown", right)
    assert "task_id" in await refused(sim, tmp_path, "attach", lost, "../../etc")
    sim.inject("fetch", faults.status(500))
    assert "500" in await refused(sim, tmp_path, "attach", lost, right)
    assert sim.fired["status_500"] == 1


async def test_an_abandoned_submission_frees_its_claim_in_a_running_server(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        lost = await lose(caller, sim)
        again = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["code"], again["submission_id"], len(sim.submits())) == ("unconfirmed", lost, 1)
        done = await tasks(sim, tmp_path, "abandon", lost)
        assert (done.returncode, done.stderr) == (0, "")
        assert lost in done.stdout
        fresh = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert fresh["submission_id"] != lost
        assert (fresh["task_id"], fresh["duplicate_of"]) == (sim.ledger[1].task_id, None)
        assert len(sim.submits()) == 2
        shown = await caller.task("get_task", task_id=lost, wait_seconds=0)
        assert shown["status"] == "abandoned"


async def test_an_abandoned_submission_that_is_found_after_all_is_attached_beside_its_successor(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        lost = await lose(caller, sim)
        await tasks(sim, tmp_path, "abandon", lost)
        fresh = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        done = await tasks(sim, tmp_path, "attach", lost, sim.ledger[0].task_id)
        assert (done.returncode, done.stderr) == (0, "")
    found = {row["submission_id"]: (row["status"], row["task_id"]) for row in rows(tmp_path)}
    assert found == {
        lost: ("queued", sim.ledger[0].task_id),
        fresh["submission_id"]: ("queued", sim.ledger[1].task_id),
    }


async def test_only_what_is_in_doubt_can_be_abandoned(connect: Connect, sim: Simulator, tmp_path: Path) -> None:
    async with connect(sim, MJ_POLL_SECONDS="300") as caller:
        queued = await caller.task("generate_image", prompt="a cup", wait_seconds=0)
        # What another poll would show is written already, so none changes the row meanwhile.
        with anyio.fail_after(PATIENCE):
            while "upstream_status" not in queued:
                queued = await caller.task("get_task", task_id=queued["task_id"], wait_seconds=0)
        assert "queued" in await refused(sim, tmp_path, "abandon", queued["submission_id"])
        assert "no submission" in await refused(sim, tmp_path, "abandon", "sub_unknown")


async def test_a_journal_that_cannot_be_used_is_said_in_one_line(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "journal.db").write_bytes(b"no database at all, but long enough " * 50)
    done = await tasks(sim, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "the journal was broken and is kept as" in line
