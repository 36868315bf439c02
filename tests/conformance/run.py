"""Run the official conformance suite against the server over HTTP, twice.

1. The real server with the suite's fixtures (`fixtures.py`): every required scenario has to pass, and each of the Tasks
   extension, which no revision requires (`jobs.py`).
2. The product as it is: what it does not offer is listed in `product-<revision>.yml`, a reason each; a scenario that
   fails beside the list fails the run, and so does one on the list that passes.

`python tests/conformance/run.py FOLDER`: FOLDER is where npm has installed Node and the suite. All on loopback.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
REVISIONS = ("2025-11-25", "2026-07-28")
TASK_SCENARIOS = [
    f"tasks-{name}"
    for name in (
        "lifecycle",
        "capability-negotiation",
        "wire-fields",
        "request-state-removal",
        "mrtr-input",
        "request-headers",
        "dispatch-and-envelope",
        "status-notifications",
        "required-task-error",
        "mrtr-composition",
    )
]
START_SECONDS = 30.0
RUN_SECONDS = 180.0


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """The URL of a server that is ready: the suite would pass many checks against a dead port."""
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "server.log"
        environment = {
            "MJ_API_KEY": "conformance",
            "MJ_BASE_URL": "http://127.0.0.1:9",
            "MJ_DATA_DIR": f"{home}/data",
            "MJ_OUTPUT_DIR": f"{home}/pictures",
            "HOME": home,
        }
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *command, "serve", "--http", "--port", "0"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            yield _url_when_ready(process, log)
        finally:
            process.terminate()
            if process.wait(timeout=START_SECONDS) != 0:
                raise SystemExit(f"the server ended badly:\n{log.read_text()}")


def _url_when_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if urls := [str(line["url"]) for line in lines if line.get("event") == "http_listening"]:
            with urllib.request.urlopen(urls[0].removesuffix("/mcp") + "/readyz", timeout=START_SECONDS) as answer:
                assert answer.status == 200
            return urls[0]
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def passes(folder: Path, url: str, what: str, *options: str) -> bool:
    """Run the scenarios that `options` name; what the suite said is printed when one fails."""
    command = [
        str(folder / "node_modules/node/bin/node"),
        str(folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"),
        *("server", "--url", url, *options),
    ]
    with tempfile.TemporaryDirectory() as results:
        done = subprocess.run(
            command,
            cwd=results,
            env={"PATH": os.defpath, "HOME": results},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
    total = [line for line in done.stdout.splitlines() if line.startswith("Total:")]
    print(f"{what}: {'ok' if done.returncode == 0 else 'FAILED'} ({' '.join(total)}, unscored included)")
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:])
    return done.returncode == 0


def main() -> None:
    """Run everything; exit code 1 when anything failed."""
    folder = Path(sys.argv[1]).resolve()
    good = True
    with serving(str(HERE / "fixtures.py")) as url:
        for revision in REVISIONS:
            good = passes(folder, url, f"{revision}, with fixtures", "--requirements", revision) and good
        for scenario in TASK_SCENARIOS:
            good = passes(folder, url, scenario, "--scenario", scenario) and good
    with serving("-m", "mj_mcp") as url:
        for revision in REVISIONS:
            known = HERE / f"product-{revision}.yml"
            options = ("--requirements", revision, "--expected-failures", str(known))
            good = passes(folder, url, f"{revision}, the product", *options) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
