"""The commands as a person runs them: processes, exit codes, and the words on the terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import anyio
import pytest
from authority import AUDIENCE, Authority
from commands import bare, run
from conftest import KEY, environment

from mj_mcp import __version__
from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PNG = b"\x89PNG\r\n\x1a\n"


# --- serve


@pytest.mark.parametrize("arguments", [("usage",), ("tasks", "abandon", "sub_1")])
async def test_without_a_key_a_command_ends_with_one_clear_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = await run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mj-mcp: MJ_API_KEY is not set")
    assert "mj-mcp demo" in line


async def test_a_bad_setting_is_named_and_not_shown(tmp_path: Path) -> None:
    done = await run(tmp_path, env={"MJ_API_KEY": f"{KEY}\u00fc"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mj-mcp: MJ_API_KEY is not usable")
    assert KEY not in done.stderr


async def test_a_host_that_closes_stdin_ends_the_server_in_good_order(tmp_path: Path) -> None:
    done = await run(tmp_path, env=environment("http://127.0.0.1:9", tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


async def test_the_version_is_printed(tmp_path: Path) -> None:
    done = await run(tmp_path, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"mj-mcp, version {__version__}")


async def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    done = await run(tmp_path, "paint")
    assert done.returncode == 2
    assert "paint" in done.stderr


# --- doctor


def marks(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Each check by its mark; one line each."""
    found = [
        re.fullmatch(r"(ok|FAIL|-) +([a-z ]+): .+", line) for line in done.stdout.partition("\n\n")[0].splitlines()
    ]
    assert all(found), done.stdout
    return {match[2]: match[1] for match in found if match}


WELL = {"settings": "ok", "proxy": "ok", "key": "ok", "journal": "ok", "output folder": "ok"}


async def examine(sim: Simulator, home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """The doctor's visit. Whatever it finds, it spends nothing and shows no key."""
    done = await run(home, "doctor", env=environment(sim.url, home, **extra))
    assert sim.ledger == []
    assert sim.submits() == []
    assert KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("unknown", ["empty", "null", "{}", "204", "404"])
async def test_the_doctor_finds_all_well(unknown: str, sim: Simulator, tmp_path: Path) -> None:
    sim.unknown_answer = unknown  # type: ignore[assignment]
    done = await examine(sim, tmp_path)
    assert (done.returncode, marks(done)) == (0, WELL)
    for folder in ("data", "pictures"):
        assert oct((tmp_path / folder).stat().st_mode & 0o777) == "0o700"


async def test_the_doctor_says_which_journal_it_is_and_never_its_password(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    password = "canary-pass-90d2"
    url = database_url.replace("postgres:@", f"postgres:{password}@")
    assert password in url
    for at, said in {
        "": "ok    journal: SQLite, written and read (no tasks yet)",
        url: f"ok    journal: PostgreSQL at {url.partition('host=')[2].partition('&')[0]}",
        f"postgresql://me:{password}@/db?host={tmp_path}": f"FAIL  journal: PostgreSQL at {tmp_path}",
    }.items():
        done = await run(tmp_path, "doctor", env=environment(sim.url, tmp_path, MJ_DATABASE_URL=at))
        (line,) = [line for line in done.stdout.splitlines() if "journal:" in line]
        assert line.startswith(said)
        assert password not in done.stdout + done.stderr
        assert done.returncode == (1 if "FAIL" in said else 0)
    assert len(sim.submits()) == 0


async def test_the_doctor_works_without_a_key(tmp_path: Path) -> None:
    done = await run(tmp_path, "doctor")
    found = marks(done)
    assert (done.returncode, found) == (1, WELL | {"key": "FAIL", "proxy": "-"})
    assert list(found)[1] == "key", "the cause comes first"
    assert "MJ_API_KEY is not set" in done.stdout


async def test_where_the_path_does_not_find_it_the_next_step_has_its_path(tmp_path: Path) -> None:
    program = shutil.which("mj-mcp", path=str(Path(sys.executable).parent))
    assert program is not None
    for path, called in ((os.defpath, program), (str(Path(program).parent), "mj-mcp")):
        env = bare(tmp_path) | {"PATH": path, "MJ_API_KEY": ""}
        done = await anyio.run_process([program, "usage"], env=env, cwd=tmp_path, check=False)
        assert done.stderr.decode() == f"mj-mcp: MJ_API_KEY is not set. `{called} demo` works without a key.\n"


async def test_the_doctor_sees_a_wrong_key(sim: Simulator, tmp_path: Path) -> None:
    done = await examine(sim, tmp_path, MJ_API_KEY="another-key")
    assert (done.returncode, marks(done)) == (1, WELL | {"key": "FAIL"})
    assert "MJ_API_KEY" in done.stdout
    assert "another-key" not in done.stdout


async def test_the_doctor_sees_a_page_of_html_instead_of_the_proxy(tmp_path: Path) -> None:
    async with Simulator(key=KEY, prefix="/deep/below") as sim:
        wrong = sim.url.removesuffix("/deep/below")
        done = await examine(sim, tmp_path, MJ_BASE_URL=wrong)
        assert (done.returncode, marks(done)) == (1, WELL | {"proxy": "FAIL", "key": "-"})
        assert "MJ_BASE_URL" in done.stdout
        assert "<html" not in done.stdout.lower()
        assert marks(await examine(sim, tmp_path)) == WELL


async def test_the_doctor_sees_a_wrong_path_that_answers_in_json(sim: Simulator, tmp_path: Path) -> None:
    """Such a 404 is like that of a task which is not known, and the proxy says so with 404 as well."""
    sim.unknown_answer = "404"
    assert marks(await examine(sim, tmp_path)) == WELL
    done = await examine(sim, tmp_path, MJ_BASE_URL=f"{sim.url}/wrong")
    assert (done.returncode, marks(done)) == (1, WELL | {"proxy": "FAIL", "key": "-"})
    assert "the path of MJ_BASE_URL is wrong or missing" in done.stdout


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            "https://www.example.com/api/mj/task/77/fetch?x=1",
            "HTTP 301 redirects to https://www.example.com/api: set MJ_BASE_URL to that address",
        ),
        (
            "/login",
            "/login, which is not this API: check MJ_BASE_URL",
        ),
    ],
)
async def test_the_doctor_says_where_a_redirect_leads(location: str, said: str, sim: Simulator, tmp_path: Path) -> None:
    sim.inject("fetch", faults.status(301, headers={"Location": location}))
    done = await examine(sim, tmp_path)
    assert (done.returncode, marks(done)) == (1, WELL | {"proxy": "FAIL", "key": "-"})
    assert said in done.stdout
    assert sim.fired == {"status_301": 1}


async def test_the_doctor_sees_that_nobody_is_there(sim: Simulator, tmp_path: Path) -> None:
    await sim.stop_listening()
    done = await examine(sim, tmp_path)
    assert (done.returncode, marks(done)) == (1, WELL | {"proxy": "FAIL", "key": "-"})


async def test_the_doctor_warns_of_a_key_that_would_travel_in_the_clear(sim: Simulator, tmp_path: Path) -> None:
    done = await examine(sim, tmp_path, MJ_BASE_URL="http://proxy.invalid")
    assert done.returncode == 1
    assert marks(done)["settings"] == "FAIL"
    assert "unencrypted" in done.stdout


@pytest.mark.parametrize(("variable", "check"), [("MJ_DATA_DIR", "journal"), ("MJ_OUTPUT_DIR", "output folder")])
async def test_the_doctor_sees_a_folder_that_cannot_be_written(
    variable: str, check: str, sim: Simulator, tmp_path: Path
) -> None:
    """A file stands where the folder should be: that holds for root, too."""
    (tmp_path / "file").write_text("")
    done = await examine(sim, tmp_path, **{variable: str(tmp_path / "file" / "folder")})
    assert (done.returncode, marks(done)) == (1, WELL | {check: "FAIL"})


async def test_the_doctor_survives_a_data_folder_that_cannot_even_be_asked_about(
    sim: Simulator, tmp_path: Path
) -> None:
    """Its name is too long for a file system: like a folder without permission, but for root, too."""
    done = await examine(sim, tmp_path, MJ_DATA_DIR=str(tmp_path / ("d" * 300)))
    assert (done.returncode, marks(done)) == (1, WELL | {"journal": "FAIL"})


async def test_the_doctor_reads_the_tokens(sim: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    named = {"MJ_HTTP_TOKENS": str(file)}
    none = await examine(sim, tmp_path, **named)
    assert (none.returncode, marks(none)) == (1, WELL | {"tokens": "FAIL"})
    assert "mj-mcp tokens add" in none.stdout
    added = await run(tmp_path, "tokens", "add", "ada", env=environment(sim.url, tmp_path, **named))
    assert added.returncode == 0, added.stderr
    done = await examine(sim, tmp_path, **named)
    assert (done.returncode, marks(done)) == (0, WELL | {"tokens": "ok"})
    assert f"tokens: 1 in {file}" in done.stdout
    file.write_text("{}}")
    broken = await examine(sim, tmp_path, **named)
    assert (broken.returncode, marks(broken)) == (1, WELL | {"tokens": "FAIL"})
    assert "is not a token file" in broken.stdout


async def test_the_doctor_asks_the_issuer_for_its_keys(sim: Simulator, tmp_path: Path) -> None:
    with Authority() as authority:
        extra = {"MJ_AUTH_ISSUER": authority.url, "MJ_AUTH_AUDIENCE": AUDIENCE}
        done = await examine(sim, tmp_path, **extra)
        assert (done.returncode, marks(done)) == (0, WELL | {"issuer": "ok"})
        assert f"issuer: {authority.url}: 2 usable keys" in done.stdout
        authority.published = []
        done = await examine(sim, tmp_path, **extra)
        assert (done.returncode, marks(done)) == (1, WELL | {"issuer": "FAIL"})
        assert "none of its keys can be used" in done.stdout
        done = await examine(sim, tmp_path, **extra | {"MJ_AUTH_ISSUER": f"{authority.url}/elsewhere"})
        assert marks(done)["issuer"] == "FAIL"
        assert "check MJ_AUTH_ISSUER" in done.stdout


async def test_the_doctor_leaves_nothing_in_the_output_folder(sim: Simulator, tmp_path: Path) -> None:
    await examine(sim, tmp_path)
    assert list((tmp_path / "pictures").iterdir()) == []


# --- simulate


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_simulate_serves_until_it_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mj_mcp", "simulate", "--port", "0", "--speed", "50", "--key", "k"]
    async with await anyio.open_process(command, env=bare(tmp_path), stdin=subprocess.DEVNULL) as simulator:
        assert simulator.stderr is not None
        with anyio.fail_after(20):
            said = (await simulator.stderr.receive()).decode()
            url = said.split()[6]
            request = urllib.request.Request(f"{url}/mj/task/none/fetch", headers={"Authorization": "Bearer k"})
            assert await anyio.to_thread.run_sync(_status, request) == 200
            doctor = await run(tmp_path, "doctor", env=environment(url, tmp_path, MJ_API_KEY="k"))
            assert doctor.returncode == 0, doctor.stdout
            simulator.send_signal(number)
            assert await simulator.wait() == 0


async def test_simulate_plays_another_proxy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mj_mcp", "simulate", "--port", "0", "--dialect", "plus"]
    async with await anyio.open_process(command, env=bare(tmp_path), stdin=subprocess.DEVNULL) as simulator:
        assert simulator.stderr is not None
        with anyio.fail_after(20):
            url = (await simulator.stderr.receive()).decode().split()[6]
            request = urllib.request.Request(f"{url}/mj/task/none/fetch", headers={"Mj-Api-Secret": "test-key"})
            assert await anyio.to_thread.run_sync(_status, request) == 204
            simulator.terminate()


def _status(request: urllib.request.Request) -> int:
    with urllib.request.urlopen(request) as answer:
        return int(answer.status)


async def test_simulate_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = await run(tmp_path, "simulate", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("mj-mcp: cannot listen on port")
    assert "Traceback" not in done.stderr


# --- demo


@pytest.mark.slow
async def test_the_demo_makes_pictures_and_leaves_nothing_else(tmp_path: Path) -> None:
    done = await run(tmp_path, "demo", "a red mug", "--out", "here")
    assert done.returncode == 0, done.stderr
    assert_only_pictures(tmp_path, done.stdout)


def assert_only_pictures(home: Path, said: str) -> None:
    here = home / "here"
    pictures = {path.name for path in here.glob("*.png") if not path.stem.endswith("-sheet")}
    assert len(pictures) == 4 + 1 + 4 + 4 + 1
    assert all((here / name).read_bytes().startswith(PNG) for name in pictures)
    assert all(name in said for name in pictures)
    sheets = {path.name for path in here.glob("*-sheet.png")}
    assert len(sheets) == 5
    assert all(name in said for name in sheets)
    sidecars = {f"{name}.json" for name in pictures}
    assert {path.name for path in here.iterdir()} == pictures | sheets | sidecars | {"server.log"}
    assert list((home / "tmp").iterdir()) == []
    assert {path.name for path in home.iterdir()} == {"here", "tmp"}, "nothing in the home folder either"
    log = (here / "server.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log


async def test_the_demo_says_when_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = await run(tmp_path, "demo", "--out", "file/here")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "file/here" in done.stderr
