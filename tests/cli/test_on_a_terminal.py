"""What a person sees on a terminal: who waits, tables that fit, bars that move, colours only where they are wanted."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import anyio
import pytest
from commands import run
from conftest import KEY, environment
from terminals import Terminal

from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX"),
]

COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9]m")


@pytest.mark.parametrize("arguments", [(), ("serve",), ("serve", "--demo")])
def test_who_starts_it_by_hand_is_told_that_it_waits_and_can_end_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Ctrl-C is all that is typed: stdin stays open."""
    terminal = Terminal(tmp_path, *arguments, env={"MJ_LOG_LEVEL": "debug"})
    said = terminal.until("serving")
    assert "waits for a host" in said
    assert "mj-mcp install HOST" in said
    terminal.type("\x03")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.plain


def test_a_terminal_is_served_like_a_pipe(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.until("Ctrl-C")
    terminal.type('{"jsonrpc": "2.0", "id": 7, "method": "ping"}\n')
    assert '"id":7' in terminal.until('"result"').replace('"id": 7', "")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0


def test_the_doctor_reports_every_bad_setting(tmp_path: Path) -> None:
    bad = {"MJ_POLL_SECONDS": "x", "MJ_MAX_OPEN_TASKS": "0", "MJ_IMAGE_FORMAT": "gif", "MJ_DATA_DIRR": "/x"}
    terminal = Terminal(tmp_path, "doctor", env=bad)
    assert terminal.end() == 1
    words = " ".join(terminal.plain.split())
    assert "MJ_POLL_SECONDS is not usable: it must be a number" in words
    assert "MJ_MAX_OPEN_TASKS is not usable: it must be at least 1" in words
    assert "MJ_IMAGE_FORMAT is not usable: it must be webp, jpeg or png" in words
    assert "MJ_DATA_DIRR is no setting; did you mean MJ_DATA_DIR?" in words
    assert "mj-mcp demo" in words


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_no_line_is_wider_than_the_terminal(columns: int, sim: Simulator, tmp_path: Path) -> None:
    env = environment(sim.url, tmp_path)
    for arguments in (("doctor",), ("status",), ("install", "--list")):
        terminal = Terminal(tmp_path, *arguments, env=env, columns=columns)
        assert await anyio.to_thread.run_sync(terminal.end) == 0
        lines = [line for line in terminal.plain.splitlines() if not line.startswith(("Connect", "Correct"))]
        assert max(map(len, lines)) <= columns


async def test_colours_are_left_out_where_nobody_wants_them(sim: Simulator, tmp_path: Path) -> None:
    env = environment(sim.url, tmp_path)
    in_colour = Terminal(tmp_path, "doctor", env=env)
    assert await anyio.to_thread.run_sync(in_colour.end) == 0
    assert COLOUR.search(in_colour.screen)
    plain = Terminal(tmp_path, "doctor", env={**env, "NO_COLOR": "1"})
    assert await anyio.to_thread.run_sync(plain.end) == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain.screen)
    assert "\x1b" not in (await run(tmp_path, "doctor", env=env)).stdout


@pytest.mark.slow
def test_the_demos_bars_move_and_it_says_what_comes_next(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "demo")
    assert terminal.end() == 0
    shown = {int(number) for number in re.findall(r"generate_image +\S+ +(\d+) %", terminal.plain)}
    assert {0, 100} < shown, "it moved"
    assert terminal.plain.splitlines()[-1].startswith("Connect it: mj-mcp install HOST")
    assert len(list((tmp_path / "mj-demo").glob("*-sheet.png"))) == 5


def test_an_interrupted_question_for_the_key_changes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "install", "cursor", env={"MJ_API_KEY": KEY})
    terminal.until("not shown): ")  # the space comes once the echo is off, which discards what was typed before
    terminal.type("\x03")
    assert terminal.end() == 1
    assert "Traceback" not in terminal.plain
    assert not (tmp_path / ".cursor").exists()


def test_tables_and_dates_are_for_people_on_a_terminal_and_for_programs_in_a_file(tmp_path: Path) -> None:
    assert Terminal(tmp_path, "tokens", "add", "ada").end() == 0
    terminal = Terminal(tmp_path, "tokens", "list")
    assert terminal.end() == 0
    head, row = terminal.plain.strip().splitlines()
    assert head.split() == ["CREATED", "NAME", "SCOPES"]
    assert re.match(r"\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d +ada +mj:read mj:spend", row)


async def test_a_server_names_the_variables_that_are_no_settings(tmp_path: Path) -> None:
    done = await run(tmp_path, env={"MJ_API_KEYS": KEY})
    assert (done.returncode, done.stdout) == (0, "")
    assert "MJ_API_KEYS is no setting; did you mean MJ_API_KEY?" in done.stderr
    assert KEY not in done.stderr
