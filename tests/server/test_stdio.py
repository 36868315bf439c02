"""The server's own transport on pipes: how it ends, what it keeps off the wire, and how much it takes and holds."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from pipes import PATIENCE, SERVER, host
from typing import Any

import anyio
import anyio.to_thread
import pytest
from conftest import KEY, LOAD_SECONDS, environment
from lives import rows

from mj_mcp.server.stdio import UNREAD_BYTES
from mj_mcp.simulator import Simulator

if sys.platform == "win32":
    pytest.skip("there the SDK's own transport serves", allow_module_level=True)

pytestmark = pytest.mark.anyio

ENDS_SECONDS = 1.0


# --- how it ends


@pytest.mark.parametrize("by", [None, signal.SIGTERM, signal.SIGINT], ids=["EOF", "SIGTERM", "SIGINT"])
async def test_the_end_closes_everything_within_a_second_also_while_somebody_waits(
    by: signal.Signals | None, sim: Simulator, tmp_path: Path
) -> None:
    def life() -> float:
        with host(sim, tmp_path) as here:
            here.greet()
            task_id = here.buy()
            here.send("tools/call", name="get_task", arguments={"task_id": task_id, "wait_seconds": 600})
            here.ask("ping")
            while rows(tmp_path)[0]["holder"] is None:  # watched: there is something to give back
                time.sleep(0.02)
            began = time.monotonic()
            if by is None:
                assert here.process.stdin is not None
                here.process.stdin.close()
            else:
                here.process.send_signal(by)
            assert here.process.wait(PATIENCE) == 0
            return time.monotonic() - began

    assert await anyio.to_thread.run_sync(life) <= ENDS_SECONDS + LOAD_SECONDS
    # The journal gives its leases back only when it is closed in good order.
    assert [(row["status"], row["holder"]) for row in rows(tmp_path)] == [("queued", None)]
    assert "Traceback" not in (tmp_path / "server.log").read_text()


async def test_a_client_that_reads_no_more_ends_the_server_in_good_order(sim: Simulator, tmp_path: Path) -> None:
    def life() -> int:
        with host(sim, tmp_path) as here:
            here.greet()
            here.buy()
            assert here.process.stdout is not None
            here.process.stdout.close()
            with suppress(BrokenPipeError):
                while here.process.poll() is None:
                    here.send("ping")
            return here.process.wait(PATIENCE)

    assert await anyio.to_thread.run_sync(life) == 0
    assert [row["holder"] for row in rows(tmp_path)] == [None]
    assert "Traceback" not in (tmp_path / "server.log").read_text()


# --- what stays off the wire

STRAYS = """
import os, subprocess, sys, threading, time
from pathlib import Path
from mj_mcp.cli.commands import main

def litter():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    print("stray-print", flush=True)
    os.write(1, b"stray-write\\n")
    subprocess.run(["/bin/sh", "-c", "echo stray-child; cat; echo stray-read"], check=True)
    Path(sys.argv[1]).unlink()

threading.Thread(target=litter, daemon=True).start()
main(args=[])
"""


async def test_what_others_print_or_read_never_touches_the_protocol(sim: Simulator, tmp_path: Path) -> None:
    sign = tmp_path / "now"

    def life() -> list[bytes]:
        with host(sim, tmp_path, ["-c", STRAYS, str(sign)]) as here:
            here.greet()
            sign.touch()
            until = time.monotonic() + PATIENCE
            while sign.exists() and time.monotonic() < until:  # the child that reads stdin ends at once
                here.ask("ping")
            assert not sign.exists()
            here.ask("tools/list")
            assert here.process.stdin is not None
            assert here.process.stdout is not None
            here.process.stdin.close()
            return here.lines + here.process.stdout.readlines()

    lines = await anyio.to_thread.run_sync(life)
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in lines)
    log = (tmp_path / "server.log").read_text()
    for stray in ("stray-print", "stray-write", "stray-child", "stray-read"):
        assert log.count(stray) == 1


# --- how much


async def test_messages_of_several_megabytes_pass_in_both_directions(tmp_path: Path) -> None:
    def life(sim: Simulator) -> tuple[dict[str, Any], dict[str, Any]]:
        with host(sim, tmp_path) as here:
            here.greet()
            task_id = here.buy()
            sim.finish(task_id)
            here.ask("tools/call", name="get_task", arguments={"task_id": task_id, "wait_seconds": PATIENCE})
            refused = here.ask("tools/call", name="get_task", arguments={"task_id": "x" * (5 << 20)})
            return refused["result"], here.ask("resources/read", uri=f"mj://tasks/{task_id}/images/1")["result"]

    async with Simulator(key=KEY, job_seconds=None, image_edge=1024) as sim:
        sim.pictures_are("noise")
        refused, read = await anyio.to_thread.run_sync(life, sim)
    assert refused["_meta"]["io.github.mj-mcp/error"]["code"] == "invalid_request"
    assert len(json.dumps(refused)) < 4096
    (picture,) = read["contents"]
    assert picture["mimeType"] == "image/png"
    data = base64.b64decode(picture["blob"])
    assert data.startswith(b"\x89PNG")
    assert len(data) > 2 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.slow
async def test_a_client_that_does_not_read_is_not_read_from_either(sim: Simulator, tmp_path: Path) -> None:
    requests = 3000
    filler = {"filler": "x" * 8000}  # as long as the answer, so that the pipe itself holds but a few

    def life() -> tuple[int, int, int]:
        with host(sim, tmp_path) as here:
            here.greet()
            each = len(json.dumps(here.ask("tools/list")))
            before = here.resident_bytes()
            sent = 0

            def flood() -> None:
                nonlocal sent
                for _ in range(requests):
                    here.send("tools/list", _meta=filler)
                    sent += 1

            flooding = threading.Thread(target=flood)
            flooding.start()
            stuck, at = time.monotonic(), -1
            while sent < requests and time.monotonic() - stuck < 3.0:
                if sent != at:
                    stuck, at = time.monotonic(), sent
                time.sleep(0.02)
            held, grown = sent, here.resident_bytes() - before
            # Once it reads again, every answer comes.
            here.read(requests + 2)
            flooding.join()
            return held * each, grown, len(here.lines)

    unread, grown, answers = await anyio.to_thread.run_sync(life)
    assert UNREAD_BYTES / 2 < unread < 2 * UNREAD_BYTES
    assert grown < 4 * UNREAD_BYTES
    assert answers == requests + 2


# --- what is no pipe


async def test_what_is_no_pipe_is_served_by_the_sdks_own_transport(sim: Simulator, tmp_path: Path) -> None:
    client = {"name": "by-hand", "version": "1"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}) + "\n"
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    asked.write_text(line)

    def life(*, as_file: bool) -> dict[str, Any]:
        with asked.open("rb") as stdin, answered.open("wb") as stdout, (tmp_path / "server.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, *SERVER],
                env={**os.environ, **environment(sim.url, tmp_path)},
                stdout=stdout,
                stderr=log,
                timeout=PATIENCE,
                check=False,
                **({"stdin": stdin} if as_file else {"input": line.encode()}),
            )
        assert done.returncode == 0
        answer: dict[str, Any] = json.loads(answered.read_text())
        return answer

    for as_file in (True, False):  # a file on both sides; a pipe in and a file out
        answer = await anyio.to_thread.run_sync(partial(life, as_file=as_file))
        assert answer["result"]["serverInfo"]["name"] == "mj-mcp"
