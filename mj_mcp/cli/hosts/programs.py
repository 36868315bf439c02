"""Runs a host's own command, and finds our own.

Owns the only subprocess of the package. Never shows the arguments, since they hold the key.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS = 60.0
"""How long a host's command may take. The real ones take 1 to 5 s."""


def run_program(path: str, arguments: list[str]) -> str | None:
    """Run it without a terminal. Returns None if it worked, else the last thing it said."""
    try:
        done = subprocess.run(  # noqa: S603 - a host's program, found on the person's path; no shell
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {SECONDS:g} s"
    except OSError as failure:
        return failure.strerror or "it cannot be started"
    if not done.returncode:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit code {done.returncode}"


def can_run(path: str, arguments: list[str]) -> bool:
    """Whether these arguments reach the program. A `.cmd` of Windows is read by its shell, which keeps no quotes."""
    return not (path.lower().endswith((".cmd", ".bat")) and any(set('"%&|<>^!') & set(part) for part in arguments))


def own_command() -> tuple[str, ...]:
    """What a host starts: the full path, since hosts do not see a shell's path."""
    python = Path(sys.executable)
    script = python.with_name("mj-mcp.exe" if python.suffix == ".exe" else "mj-mcp")
    return (str(script),) if script.exists() else (str(python), "-m", "mj_mcp")


def is_temporary(command: str) -> bool:
    """Whether it lies in an environment that `uvx` or `pipx run` made and may remove."""
    parts = Path(command).parts
    return "archive-v0" in parts or ("pipx" in parts and ".cache" in parts)
