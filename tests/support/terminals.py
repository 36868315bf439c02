"""`mj-mcp ...` on a terminal: a pseudo-terminal on stdin, stdout and stderr, as a person has it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from commands import bare

SECONDS = 60.0
_LEAD = """
import fcntl, os, signal, sys, termios
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the one whose Ctrl-C reaches the command, even if the tests themselves ignore it."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command that runs on a terminal of its own."""

    def __init__(self, home: Path, *arguments: str, env: Mapping[str, str] | None = None, columns: int = 80) -> None:
        self._ours, theirs = os.openpty()
        self.screen = ""
        given = {**bare(home), "TERM": "xterm", "COLUMNS": str(columns), **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LEAD, sys.executable, "-m", "mj_mcp", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=given,
            cwd=home,
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        """Type it. "\\x03" is Ctrl-C."""
        os.write(self._ours, text.encode())

    def until(self, words: str) -> str:
        """Read until these words are on the screen."""
        while words not in self.plain:
            if not self._read():
                raise AssertionError(f"the command ended without {words!r}:\n{self.plain}")
        return self.plain

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        code = self.process.wait(SECONDS)
        os.close(self._ours)
        return code

    @property
    def plain(self) -> str:
        """The screen's text without colours and movements of the cursor."""
        return _CONTROL.sub("", self.screen).replace("\r\n", "\n")

    def _read(self) -> bool:
        deadline = time.monotonic() + SECONDS
        while not select.select([self._ours], [], [], 0.1)[0]:
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"nothing more within {SECONDS:g} s:\n{self.plain}")
        try:
            read = os.read(self._ours, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.screen += read.decode(errors="replace")
        return bool(read)
