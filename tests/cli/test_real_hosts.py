"""`mj-mcp install` with the real programs of Claude Code, Codex and Gemini CLI: what they list is what we installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from host_programs import needs, run_beside

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

OURS = (sys.executable, "-m", "mj_mcp")


TRIES = 6
"""A host waits a few seconds for the start of a server, which a busy machine may not keep."""


async def listed(home: Path, program: str, shows: str = "") -> str:
    """What the host lists; asked again until it `shows` that it reached the server."""
    for _ in range(TRIES):
        code, said = await run_beside(home, [program, "mcp", "list"])
        assert code == 0, said
        if shows in said:
            break
    return said


@pytest.mark.parametrize(
    ("host", "program", "shows"),
    [
        ("claude-code", "claude", "✔ Connected"),  # it starts the server and asks for its tools
        ("codex", "codex", "enabled"),
        ("gemini-cli", "gemini", "serve --demo"),  # it starts the server, too, but waits 5 s for it and no longer
    ],
)
async def test_a_host_lists_the_server_that_was_installed(host: str, program: str, shows: str, tmp_path: Path) -> None:
    needs(program)
    code, said = await run_beside(tmp_path, [*OURS, "install", host, "--demo"])
    assert (code, "midjourney is connected" in said) == (0, True), said
    (line,) = [line for line in (await listed(tmp_path, program, shows)).splitlines() if "midjourney" in line]
    assert "serve --demo" in line
    assert shows in line
    code, said = await run_beside(tmp_path, [*OURS, "status", host])
    assert said.split()[:3] == [host, "connected", "(demo)"]

    key = {"MJ_API_KEY": "canary-key", "MJ_DAILY_TASK_LIMIT": "7"}
    code, said = await run_beside(tmp_path, [*OURS, "install", host, "--key-from-env", "--no-check"], **key)
    assert (code, "canary-key" in said) == (0, False), said
    assert "--demo" not in await listed(tmp_path, program), "it replaced the demo"
    code, said = await run_beside(tmp_path, [*OURS, "status", host])
    assert said.split()[:2] == [host, "connected"]

    code, said = await run_beside(tmp_path, [*OURS, "uninstall", host])
    assert (code, "midjourney is removed" in said) == (0, True), said
    assert "midjourney" not in (await listed(tmp_path, program)).replace(str(tmp_path), "")


async def test_codex_starts_it_with_the_key_and_the_settings(tmp_path: Path) -> None:
    needs("codex")
    key = {"MJ_API_KEY": "canary-key", "MJ_DAILY_TASK_LIMIT": "7"}
    await run_beside(tmp_path, [*OURS, "install", "codex", "--key-from-env", "--no-check"], **key)
    code, said = await run_beside(tmp_path, ["codex", "mcp", "get", "midjourney", "--json"])
    assert code == 0, said
    assert json.loads(said[said.index("{") :])["transport"]["env"] == key
