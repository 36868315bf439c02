"""From the spawn of a server to its answer to `tools/list`, as a ratio to a bare `MCPServer`. Never fails on time."""

from __future__ import annotations

import sys
import tempfile
import time

from pipe import BARE, OURS, Server, report

TARGET = 1.35


def seconds(arguments: list[str], env: dict[str, str]) -> float:
    """One start."""
    began = time.perf_counter()
    with Server(arguments, env) as server:
        server.ask("tools/list")
        return time.perf_counter() - began


def main() -> None:
    """Interleaved, so that a slow moment of the machine meets both."""
    rounds = 2 if "--quick" in sys.argv else 25
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        env = {"MJ_API_KEY": "any", "MJ_BASE_URL": "http://127.0.0.1:9", "MJ_DATA_DIR": folder}
        for _ in range(2):  # byte code and the file cache; the second start finds a journal
            seconds(BARE, env), seconds(OURS, env)
        for _ in range(rounds):
            bare.append(seconds(BARE, env) * 1000)
            ours.append(seconds(OURS, env) * 1000)
    report(f"Start-up: median of {rounds}", "ms", [("spawn to tools/list", bare, ours, TARGET)])


if __name__ == "__main__":
    main()
