"""The deployment files: read by the linters of their kind, held to the settings that exist, and what they run is run.

No engine is needed. `tests/support/image.py` goes further, by hand: it carries out the whole Dockerfile in
a folder of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, environment
from image import Step, read_dockerfile
from ruamel.yaml import YAML

from mj_mcp.app import DEFAULT_TIMINGS
from mj_mcp.archive.store import STOP_SECONDS
from mj_mcp.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 30.0

DEPLOYMENT = ["Dockerfile", "deploy/compose.yaml", "deploy/mj-mcp.service", "docs/deploy.md"]
OTHERS = {"MJ_SITE"}
"""Names that begin like a setting and are none. One that has become a setting leaves this list."""

_WATCH_WRITES = """
import os, sys
def seen(event, args):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        paths.append(args[0])
    elif event in {"os.mkdir", "os.rename", "os.remove", "sqlite3.connect"}:
        paths.append(os.fsdecode(args[0]))
paths = []
sys.addaudithook(seen)
import atexit, json
atexit.register(lambda: os.write(2, (json.dumps({"event": "writes", "paths": paths}) + "\\n").encode()))
"""


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return read_dockerfile(ROOT / "Dockerfile")


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / "deploy/compose.yaml").read_text())
    return found


def _lint(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    _lint(BIN / "hadolint", "--no-color", "--failure-threshold", "style", ROOT / "Dockerfile")


def test_the_compose_file_is_one_by_the_schema_of_compose_files() -> None:
    _lint(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "deploy/compose.yaml")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="only systemd can read its units")
def test_the_unit_passes_systemd_and_is_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "mj-mcp.service"
    unit.write_text((ROOT / "deploy/mj-mcp.service").read_text().replace("/opt/mj-mcp/bin/mj-mcp", sys.executable))
    _lint("systemd-analyze", "verify", "--man=no", unit)
    _lint("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)


@pytest.mark.parametrize("name", DEPLOYMENT)
def test_only_settings_that_exist_are_set(name: str) -> None:
    known = {f"MJ_{field.upper()}" for field in Settings.model_fields}
    named = set(re.findall(r"\bMJ_[A-Z_]*[A-Z]\b", (ROOT / name).read_text()))
    assert named - known - OTHERS == set()
    assert OTHERS & known == set()


def test_the_guide_names_the_metrics_and_log_events_that_there_are() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "mj_mcp").rglob("*.py"))
    metrics = set(re.findall(r'"(mj_mcp\.[a-z.]+)",', (ROOT / "mj_mcp/telemetry/meters.py").read_text()))
    assert len(metrics) == 7
    assert set(re.findall(r"^\| `(mj_mcp\.[a-z.]+)`", guide, flags=re.MULTILINE)) == metrics
    alarms = guide.partition("## Alerts")[2].partition("\n## ")[0]
    events = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", alarms))
    assert len(events) > 10
    assert {event for event in events if f'"{event}"' not in code} == set()
    assert set(re.findall(r"`(mj_mcp\.[a-z.]+)`", alarms)) <= metrics


@pytest.mark.parametrize("name", DEPLOYMENT)
def test_each_way_to_deploy_says_where_the_public_url_is_set(name: str) -> None:
    """Without it the server does not start where others can reach it, or its links are dead."""
    assert "MJ_PUBLIC_URL=http" in (ROOT / name).read_text().replace(": ", "=")


def test_a_stop_has_the_time_that_submits_in_flight_need() -> None:
    unit = (ROOT / "deploy/mj-mcp.service").read_text()
    needed = DEFAULT_TIMINGS.grace + STOP_SECONDS
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > needed
    replicas = [service for service in _compose()["services"].values() if service["image"] == "mj-mcp"]
    assert len(replicas) == 2
    for replica in replicas:
        assert int(replica["stop_grace_period"].removesuffix("s")) > needed
        assert replica["read_only"] is True
        assert replica["tmpfs"][0].startswith("/tmp:")
        assert "data:/data" in replica["volumes"]


def test_the_image_runs_as_nobody_in_particular_and_keeps_only_its_volumes(steps: list[Step]) -> None:
    last = {step.word: step.rest for step in steps}
    assert last["USER"] == "10001:10001"
    assert json.loads(last["VOLUME"]) == ["/data", "/tmp"]
    assert [step.rest for step in steps if step.word == "FROM"][-1] == "python:3.12-slim"


def test_the_images_command_serves_is_healthy_and_writes_to_its_volumes_only(steps: list[Step], tmp_path: Path) -> None:
    with _container(steps, tmp_path) as box:
        assert box.check() == 0
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(PATIENCE) == 0
        assert box.check() != 0
    [line] = [line for line in box.lines() if line["event"] == "writes"]
    written = {path for path in line["paths"] if path != "/dev/null"}
    assert any(path.endswith("journal.db") for path in written)
    assert {path for path in written if str(tmp_path / "data") not in path} == set()


@dataclass
class _Box:
    """The image's command as a process of this machine."""

    process: subprocess.Popen[bytes]
    log: Path
    health: list[str]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def check(self) -> int:
        """What the image's health check ends with."""
        return subprocess.run(self.health, capture_output=True, timeout=PATIENCE, check=False).returncode


@contextmanager
def _container(steps: list[Step], tmp_path: Path) -> Iterator[_Box]:
    """Its CMD in its ENV, on loopback and a free port, in the folder that an engine would start it in."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_WATCH_WRITES)
    last = {step.word: step for step in steps}
    ours = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(hook), "MJ_DATA_DIR": str(tmp_path / "data")}
    env = last["ENV"].pairs() | environment("http://127.0.0.1:9", tmp_path) | ours | {"MJ_API_KEY": KEY}
    command = json.loads(last["CMD"].rest.replace("0.0.0.0", "127.0.0.1").replace('"8080"', '"0"'))
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=env, cwd="/", stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        box = _Box(process, log, [])
        url = _listening(box)
        _, _, check = last["HEALTHCHECK"].rest.partition("CMD ")
        box.health = json.loads(check.replace("127.0.0.1:8080", url).replace('"python"', json.dumps(sys.executable)))
        yield box
    finally:
        process.kill()
        process.wait()


def _listening(box: _Box) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and box.process.poll() is None:
        for line in box.lines():
            if line["event"] == "http_listening":
                return re.findall(r"//([^/]+)/", line["url"])[0]  # type: ignore[no-any-return]
        time.sleep(0.05)
    raise AssertionError(box.log.read_text())
