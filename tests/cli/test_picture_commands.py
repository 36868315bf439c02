"""`mj-mcp describe` and `mj-mcp blend`: what is sent, what is printed, and that nothing is bought twice."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import IMAGE_EDGE, KEY, environment
from galleries import png
from lives import PATIENCE, rows

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

FLAT = ["classic", "plus", "newapi"]


def proxy(dialect: Any = "plus", seconds: float | None = 0.2, **more: Any) -> Simulator:
    return Simulator(dialect=dialect, key=KEY, job_seconds=seconds, image_edge=IMAGE_EDGE, **more)


async def command(sim: Simulator, home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """`mj-mcp ...` to its end, in a folder with pictures."""
    for number in range(6):
        (home / f"{number}.png").write_bytes(png(number))
    line = [sys.executable, "-m", "mj_mcp", *arguments]
    env = environment(sim.url, home, MJ_PROXY_DIALECT="auto", **extra)
    with anyio.fail_after(2 * PATIENCE):
        done = await anyio.run_process(line, env=env, cwd=home, check=False, stdin=subprocess.DEVNULL)
    return subprocess.CompletedProcess(line, done.returncode, done.stdout.decode(), done.stderr.decode())


def sent(sim: Simulator) -> list[tuple[str, dict[str, Any]]]:
    """The endpoint and the body of every submit, without our mark."""
    return [
        (
            seen.path.removeprefix("/mj/submit/"),
            {name: value for name, value in seen.json.items() if name != "state"},
        )
        for seen in sim.submits()
    ]


def data_url(number: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(number)).decode()}"


@pytest.mark.parametrize("dialect", FLAT)
async def test_a_picture_is_described_in_four_prompts_and_paid_once(dialect: str, tmp_path: Path) -> None:
    async with proxy(dialect) as sim:
        done = await command(sim, tmp_path, "describe", "1.png")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert (len(lines), ["described 4" in lines[3], "described 1" in lines[0]]) == (4, [True, True])
        (tmp_path / "same.png").write_bytes(png(1))
        again = await command(sim, tmp_path, "describe", str(tmp_path / "same.png"))
        assert (again.returncode, again.stdout) == (0, done.stdout)
        assert sent(sim) == [("describe", {"base64": data_url(1)})]
        other = await command(sim, tmp_path, "describe", "2.png", "--json")
        task = json.loads(other.stdout)
        assert (task["status"], task["kind"], task["prompt"]) == ("succeeded", None, "\n".join(lines))
        bought = await command(sim, tmp_path, "describe", "2.png", "--allow-duplicate")
        assert (bought.returncode, len(sim.submits())) == (0, 3)


@pytest.mark.parametrize("dialect", FLAT)
async def test_pictures_are_blended_into_a_grid(dialect: str, tmp_path: Path) -> None:
    async with proxy(dialect) as sim:
        done = await command(sim, tmp_path, "blend", "3.png", "1.png")
        assert (done.returncode, done.stderr) == (0, "")
        assert sent(sim) == [("blend", {"base64Array": [data_url(3), data_url(1)], "dimensions": "SQUARE"})]
        first, *pictures = done.stdout.splitlines()
        (row,) = rows(tmp_path)
        assert (first, row["kind"], len(pictures)) == (f"task {row['task_id']}", "imagine", 4)
        for number, line in enumerate(pictures, 1):
            index, _, path = line.partition("  ")
            assert (index, Path(path).is_file()) == (str(number), True)
        again = await command(sim, tmp_path, "blend", "3.png", "1.png")
        assert (again.stdout, len(sim.submits())) == (done.stdout, 1)
        turned = await command(sim, tmp_path, "blend", "1.png", "3.png")
        assert (turned.returncode, len(sim.submits())) == (0, 2)


async def test_a_picture_of_a_task_is_described_and_blended_by_its_id(tmp_path: Path) -> None:
    async with proxy() as sim:
        await command(sim, tmp_path, "blend", "0.png", "1.png")
        task_id = sim.ledger[0].task_id
        done = await command(
            sim, tmp_path, "blend", f"{task_id}#2", "2.png", f"mj://tasks/{task_id}/images/3", "--json"
        )
        assert json.loads(done.stdout)["prompt"].startswith(f"blend {task_id}#2 upload:")
        assert [url.partition(",")[0] for url in sent(sim)[1][1]["base64Array"]] == ["data:image/png;base64"] * 3
        done = await command(sim, tmp_path, "describe", f"{task_id}#4")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
        done = await command(sim, tmp_path, "describe", f"{task_id}#9")
        assert (done.returncode, done.stdout, "`index` must be one of 1, 2, 3, 4" in done.stderr) == (1, "", True)


async def test_a_wait_that_ends_is_no_failure_and_the_same_command_waits_on(tmp_path: Path) -> None:
    async with proxy(seconds=None) as sim:
        done = await command(sim, tmp_path, "describe", "1.png", "--wait", "0")
        assert (done.returncode, done.stderr) == (0, "")
        (charge,) = sim.ledger
        assert done.stdout.startswith(f"task {charge.task_id} is ")
        done = await command(sim, tmp_path, "describe", "1.png", "--wait", "1")
        assert (done.returncode, "is not charged again" in done.stderr) == (3, True)
        sim.finish(charge.task_id)
        done = await command(sim, tmp_path, "describe", "1.png")
        assert (done.returncode, len(done.stdout.splitlines()), len(sim.submits())) == (0, 4, 1)


async def test_what_cannot_be_described_or_blended_is_said_in_one_line_and_not_bought(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    wrong = {
        (
            "describe",
            "none.png",
        ): '`picture` must be a file that exists, or a picture of a task (`TASK_ID#1`) (got "none',
        ("describe", "text.png"): "`picture` must be a PNG, JPEG, WebP or GIF file that is whole",
        ("describe", "."): "`picture` must be a PNG, JPEG, WebP or GIF file that is whole",
        ("describe", "404404#1"): "404404",
        ("blend", "1.png", "none.png"): "`picture` must be a file that exists",
    }
    async with proxy() as sim:
        for arguments, words in wrong.items():
            done = await command(sim, tmp_path, *arguments)
            (line,) = done.stderr.splitlines()
            assert (done.returncode, done.stdout, line.startswith("mj-mcp: "), words in line) == (1, "", True, True)
        for pictures in (["1.png"], [f"{number}.png" for number in range(6)]):
            done = await command(sim, tmp_path, "blend", *pictures)
            assert (done.returncode, "give 2 to 5 pictures" in done.stderr) == (2, True)
        assert sim.submits() == []


@pytest.mark.parametrize("arguments", [("describe", "1.png"), ("blend", "1.png", "2.png")])
async def test_a_proxy_without_them_says_so_and_is_sent_nothing(
    arguments: tuple[str, ...], sim: Simulator, tmp_path: Path
) -> None:
    done = await command(sim, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this proxy offers upscales, variations and rerolls only" in done.stderr
    assert sim.submits() == []


async def test_a_lost_answer_is_in_doubt_and_the_same_command_buys_nothing(tmp_path: Path) -> None:
    async with proxy("newapi") as sim:
        sim.inject("describe", faults.reset_after_accept())
        for _ in range(2):
            done = await command(sim, tmp_path, "describe", "1.png")
            (row,) = rows(tmp_path)
            assert (done.returncode, row["status"]) == (4, "unconfirmed")
            assert f"`mj-mcp tasks show {row['submission_id']}` shows it" in done.stderr
        assert (sim.fired["reset_after_accept"], len(sim.submits())) == (1, 1)


async def test_a_failure_is_said_with_its_reason(tmp_path: Path) -> None:
    sim: Simulator = proxy(on_charge=lambda charge: sim.fail(charge.task_id, "the picture is not allowed"))
    async with sim:
        done = await command(sim, tmp_path, "blend", "1.png", "2.png")
    (row,) = rows(tmp_path)
    said = f"mj-mcp: task {row['task_id']} failed: the picture is not allowed\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
