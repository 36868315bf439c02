"""`mj-mcp ...` as a process that runs to its end, in an environment without any setting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio


def bare(home: Path) -> dict[str, str]:
    """An environment without any setting, and with temporary files where they can be counted."""
    (home / "tmp").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MJ_", "XDG_"))}
    return {**kept, "HOME": str(home), "TMPDIR": str(home / "tmp")}


async def run(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`mj-mcp ...` to its end, with nothing on stdin."""
    command = [sys.executable, "-m", "mj_mcp", *arguments]
    with anyio.fail_after(60):
        done = await anyio.run_process(
            command, env={**bare(home), **(env or {})}, cwd=home, check=False, stdin=subprocess.DEVNULL
        )
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
