"""The extensions, judged by a client that we did not write: the command line of the official Inspector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import KEY, environment, log_lines
from inspectors import INSPECTOR, MODULES

from mj_mcp.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

IN_CI = bool(os.environ.get("CI"))
JOB_SECONDS = 5.0


async def inspect(home: Path, sim_url: str, *words: str) -> Any:
    """What the Inspector prints, from a server of its own on pipes. The server's log is `server.log`."""
    if not MODULES.exists():
        assert not IN_CI, "the Inspector is missing: run `make views-install`"
        pytest.skip("the Inspector is missing: `make views-install` brings it from npm")
    log = home / "server.log"
    server = ["/bin/sh", "-c", 'exec "$0" -m mj_mcp 2>>"$1"', sys.executable, str(log)]
    given = [word for name, value in environment(sim_url, home).items() for word in ("-e", f"{name}={value}")]
    done = await anyio.run_process(
        [*INSPECTOR, "--cli", "--quiet", "--protocol-era", "modern", *given, *words, "--", *server],
        env={"PATH": os.defpath, "HOME": str(home)},
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


async def test_the_inspector_takes_a_handle_and_shows_the_pictures_of_a_job_that_outlasts_the_call(
    tmp_path: Path,
) -> None:
    async with Simulator(key=KEY, job_seconds=JOB_SECONDS, image_edge=64) as sim:
        words = ("--method", "tools/call", "--tool-name", "generate_image", "--tool-args-json", '{"prompt": "a mug"}')
        result = await inspect(tmp_path, sim.url, *words)
        assert len(sim.ledger) == 1
    assert result["structuredContent"]["status"] == "succeeded"
    assert [block["type"] for block in result["content"]] == ["text", "image"]
    calls = log_lines(tmp_path / "server.log", "tool_call")
    assert [(call["tool"], call["status"]) for call in calls] == [("generate_image", "queued")]


async def test_the_inspector_verifies_the_skill(tmp_path: Path, sim: Simulator) -> None:
    report = await inspect(tmp_path, sim.url, "--method", "skills/list", "--verify")
    assert (report["uri"], report["outcome"]) == ("skill://midjourney/SKILL.md", "verified")
