"""Writes docs/screens.md: what the commands print, one after the other, with the simulator as the proxy.

A script (`make screens`), and what a test holds the page against. What differs from run to run (ids, times, ports and
folders) is written as one example of its kind and length.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import tempfile
from pathlib import Path

from commands import run
from readme import DOCS
from terminals import Terminal

from mj_mcp.simulator import Simulator

PAGE = DOCS / "screens.md"
COLUMNS = 100
HEAD = f"""# Screens

What the commands print on a terminal of {COLUMNS} columns, one after the other, with the built-in simulator as the
proxy (those with progress bars as in a file). `make screens` writes this page, and a test holds it.
"""
COMMANDS = (
    "doctor",
    'imagine "a red mug --ar 3:2"',
    "upscale {id} 2",
    "save {id} --index 2 --name mug",
    "tasks",
    "tasks show {id}",
    "usage",
    "install zed --demo --print",
    "status",
    'demo "a paper boat"',
)
WITH_BARS = ("demo", "imagine", "upscale")

_DATE = "27 Nov 2026, 15:04"
_EXAMPLES = (
    (r"\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d$", _DATE),
    (r"\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d +", f"{_DATE}  "),
    (r"SUBMITTED +", f"{'SUBMITTED':{len(_DATE)}}  "),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8080"),
    (r"(?<=account          )\w{32}", "cc53138db8b2ff05d8d3a1ea52cce1a2"),
    (r"(?<=polls            )\d+", "4"),
    (r"(?<=unseen_seconds   )[\d.]+", "0.5"),
)
"""What is shown in the place of what differs. A day of one digit makes its column narrower."""
_IDS = {r"\b\d{16}\b": "420674947522{:04}", r"\bsub_\w{32}\b": "sub_3652add3633f49e69cc2fccb28b{:05}"}
"""The same for ids, which are numbered as they appear."""


async def page() -> str:
    """The page as it is written now."""
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(key="any", speed=15, image_edge=256) as simulator:
            proxy = {"MJ_BASE_URL": simulator.url, "MJ_API_KEY": "any", "MJ_POLL_SECONDS": "0.5"}
            env = {**proxy, "TZ": "UTC", "PATH": folder}  # with no host on it
            screens = []
            for command in COMMANDS:
                words = command.format(id=simulator.ledger[0].task_id if simulator.ledger else "")
                screens.append(f"```console\n$ mj-mcp {words}\n{await _screen(Path(folder), words, env)}\n```\n")
    return f"{HEAD}\n{_with_examples(chr(10).join(screens), folder)}"


async def _screen(home: Path, words: str, env: dict[str, str]) -> str:
    arguments = shlex.split(words)
    if arguments[0] in WITH_BARS:
        said = (await run(home, *arguments, env=env)).stdout
    else:
        terminal = Terminal(home, *arguments, env=env, columns=COLUMNS)
        await asyncio.to_thread(terminal.end)
        said = terminal.plain
    return "\n".join(line.rstrip() for line in said.strip("\n").splitlines())


def _with_examples(text: str, home: str) -> str:
    text = text.replace(home, "~").replace(str(Path(sys.executable).parent), "~/mj-mcp/.venv/bin")
    for pattern, example in _EXAMPLES:
        text = re.sub(pattern, example, text, flags=re.MULTILINE)
    for pattern, first in _IDS.items():
        for number, found in enumerate(dict.fromkeys(re.findall(pattern, text)), 1):
            text = text.replace(found, first.format(number))
    return text


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(page()), encoding="utf-8")
