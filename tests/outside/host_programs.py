"""The real command-line hosts, as npm has them, with a home of their own and no network but loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

INSTALLED = Path(sys.prefix) / "clis" / "node_modules" / ".bin"
SECONDS = 120

_LOOPBACK_ONLY = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def needs(program: str) -> None:
    """The gate fails without it; elsewhere the test is skipped."""
    if (INSTALLED / program).exists():
        return
    if os.environ.get("CI"):
        raise AssertionError(f"{program} is missing: run `make clis-install`")
    pytest.skip(f"{program} is missing: `make clis-install` brings it from npm")


def loopback_only() -> tuple[str, ...]:
    """What to put before a command so that it reaches this machine alone; nothing where the system cannot do that."""
    tried = shutil.which("unshare") and subprocess.run([*_LOOPBACK_ONLY, "true"], check=False, capture_output=True)
    return _LOOPBACK_ONLY if tried and tried.returncode == 0 else ()


async def run_beside(home: Path, command: Sequence[str], **env: str) -> tuple[int, str]:
    """A command to its end, with these hosts on its path; its exit code and all that it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MJ_", "XDG_"))}
    path = os.pathsep.join([str(INSTALLED), os.environ["PATH"]])
    given = {**kept, "HOME": str(home), "PATH": path, "GEMINI_CLI_TRUST_WORKSPACE": "true", **env}
    with anyio.fail_after(SECONDS):
        done = await anyio.run_process(
            [*loopback_only(), *command],
            env=given,
            cwd=home,
            check=False,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
    return done.returncode, done.stdout.decode(errors="replace")
