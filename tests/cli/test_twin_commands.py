"""`mj-mcp imagine`, `upscale`, `vary`, `reroll`, `wait`, `save`, `usage`: the tools for scripts, by the same rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from commands import run
from conftest import IMAGE_EDGE, KEY, environment
from lives import rows
from terminals import Terminal

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

KINDS = ["imagine", "upscale", "variation", "reroll"]


def quick(**more: Any) -> Simulator:
    """A proxy whose jobs take a moment."""
    return Simulator(key=KEY, job_seconds=0.2, image_edge=IMAGE_EDGE, **more)


async def command(sim: Simulator, home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return await run(home, *arguments, env=environment(sim.url, home, **extra))


async def test_a_whole_job_from_the_command_line(tmp_path: Path) -> None:
    async with quick() as sim:
        drawn = await command(sim, tmp_path, "imagine", "a red mug --ar 3:2")
        assert (drawn.returncode, drawn.stderr) == (0, "")
        first, *pictures = drawn.stdout.splitlines()
        grid = first.removeprefix("task ")
        assert [line.split()[0] for line in pictures] == ["1", "2", "3", "4"]
        assert sim.submits()[0].json["prompt"] == "a red mug --ar 3:2"
        for change in (("upscale", grid, "2"), ("vary", grid, "3"), ("reroll", grid)):
            done = await command(sim, tmp_path, *change)
            assert (done.returncode, done.stderr) == (0, "")
        assert [row["kind"] for row in reversed(rows(tmp_path))] in (KINDS, KINDS[::-1])
        assert len(sim.ledger) == 4
        saved = await command(sim, tmp_path, "save", grid, "--index", "2", "--name", "mug")
        assert saved.stdout == f"{tmp_path / 'pictures' / 'mug-2.png'}\n"
        assert Path(saved.stdout.strip()).is_file()
        files = await command(sim, tmp_path, "save", grid, "--json")
        assert [json.loads(line)["index"] for line in files.stdout.splitlines()] == [1, 2, 3, 4]
        used = await command(sim, tmp_path, "usage")
        assert "Today (UTC): 4 jobs" in used.stdout
        used = await command(sim, tmp_path, "usage", "--json")
        assert json.loads(used.stdout)["today"] == {**dict.fromkeys(KINDS, 1), "total": 4}
        assert len(sim.ledger) == 4


async def test_the_same_command_buys_once_unless_it_says_so(tmp_path: Path) -> None:
    async with quick() as sim:
        once = await command(sim, tmp_path, "imagine", "a mug", "--json")
        again = await command(sim, tmp_path, "imagine", "a mug", "--json")
        task, same = json.loads(once.stdout), json.loads(again.stdout)
        assert (same["task_id"], task["status"], len(sim.ledger)) == (task["task_id"], "succeeded", 1)
        assert "Nothing new was bought" in again.stderr
        other = await command(sim, tmp_path, "imagine", "a mug", "--allow-duplicate")
        assert (other.returncode, len(sim.ledger)) == (0, 2)


async def test_a_script_submits_leaves_and_collects(sim: Simulator, tmp_path: Path) -> None:
    """Its jobs move only when the test says so."""
    ids = []
    for prompt in ("a cup", "a jug"):
        done = await command(sim, tmp_path, "imagine", prompt, "--wait", "0", "--json")
        assert done.returncode == 0
        ids.append(json.loads(done.stdout)["task_id"])
    open_still = await command(sim, tmp_path, "wait", *ids, "--wait", "1")
    assert (open_still.returncode, len(open_still.stdout.splitlines())) == (3, 2)
    longer = await command(sim, tmp_path, "imagine", "a cup", "--wait", "1")
    assert (longer.returncode, "is not charged again" in longer.stderr) == (3, True)
    sim.finish(ids[0])
    one = await command(sim, tmp_path, "wait", *ids, "--any", "--json")
    assert one.returncode == 0
    assert [json.loads(line)["status"] == "succeeded" for line in one.stdout.splitlines()] == [True, False]
    sim.fail(ids[1], "no jugs")
    both = await command(sim, tmp_path, "wait", *ids)
    assert (both.returncode, both.stdout.splitlines()[-1]) == (1, f"task {ids[1]} is failed: no jugs")
    unknown = await command(sim, tmp_path, "wait", "404404", "--wait", "0")
    assert (unknown.returncode, "nobody knows 404404" in unknown.stderr) == (1, True)
    assert len(sim.ledger) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("imagine", "a mug --arr 3:2"), 1, "--ar"),
        (("imagine", ""), 1, "`prompt`"),
        (("upscale", "404404", "1"), 1, "404404"),
        (("upscale", "404404", "7"), 2, "INDEX"),
        (("imagine",), 2, "PROMPT"),
        (("save", "404404"), 1, "404404"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_bought(
    arguments: tuple[str, ...], code: int, said: str, sim: Simulator, tmp_path: Path
) -> None:
    done = await command(sim, tmp_path, *arguments)
    assert (done.returncode, done.stdout, said in done.stderr) == (code, "", True)
    assert "Traceback" not in done.stderr
    assert sim.submits() == []


async def test_errors_are_json_where_json_is_asked_for(sim: Simulator, tmp_path: Path) -> None:
    sim.inject("submit", faults.code(24))
    done = await command(sim, tmp_path, "imagine", "a bad word", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "prompt_refused")
    sim.inject("submit", faults.reset_after_accept())
    done = await command(sim, tmp_path, "imagine", "a mug", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (4, "unconfirmed")
    shown = await command(sim, tmp_path, "tasks", "show", error["submission_id"])
    assert "unconfirmed" in shown.stdout
    assert sim.fired == {"code_24": 1, "reset_after_accept": 1}


async def test_the_limits_hold_for_commands_too(tmp_path: Path) -> None:
    async with quick() as sim:
        assert (await command(sim, tmp_path, "imagine", "one", MJ_DAILY_TASK_LIMIT="1")).returncode == 0
        over = await command(sim, tmp_path, "imagine", "two", "--json", MJ_DAILY_TASK_LIMIT="1")
        assert (over.returncode, json.loads(over.stdout)["error"]["code"]) == (1, "limit_reached")
        barred = await command(sim, tmp_path, "imagine", "three", MJ_READ_ONLY="1")
        assert (barred.returncode, "MJ_READ_ONLY" in barred.stderr) == (1, True)
        assert len(sim.ledger) == 1


@pytest.mark.slow
async def test_a_bar_moves_on_a_terminal_and_ctrl_c_loses_nothing(sim: Simulator, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "imagine", "a mug", env=environment(sim.url, tmp_path, MJ_POLL_SECONDS="0.5"))
    await anyio.to_thread.run_sync(terminal.until, "%")
    with anyio.fail_after(60):
        while not sim.ledger:  # noqa: ASYNC110 - another process submits
            await anyio.sleep(0.05)
    terminal.type("\x03")
    assert await anyio.to_thread.run_sync(terminal.end) == 1
    assert "`mj-mcp tasks` shows what was submitted" in terminal.plain
    sim.finish(sim.ledger[0].task_id)
    again = await command(sim, tmp_path, "imagine", "a mug")
    assert (again.returncode, len(sim.ledger)) == (0, 1)
