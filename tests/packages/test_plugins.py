"""Claude Code and Gemini CLI themselves accept the plugin and the extension, install them, and reach the server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from bundles import OUTSIDE, UV
from host_programs import INSTALLED, needs, run_beside
from manifests import MANIFESTS
from readme import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

TRIES = 6


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """What a host copies of the repository, without what lies in a developer's folder."""
    folder = tmp_path / "code"
    for name in [*MANIFESTS, "pyproject.toml", "README.md", "LICENSE", "skills", "mj_mcp"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


def start(folder: Path) -> None:
    """Starts the server as the hosts do. The hosts reach this machine alone, so uv must have all that it needs."""
    env = {**OUTSIDE, "UV_CONSTRAINT": str(ROOT / "constraints.txt")}
    subprocess.run([UV, "tool", "run", "--quiet", "--from", folder, "mj-mcp", "--version"], env=env, check=True)


def cache_of_uv() -> str:
    asked = subprocess.run([UV, "cache", "dir"], env=OUTSIDE, capture_output=True, text=True, check=True)
    return asked.stdout.strip()


async def ran(home: Path, *command: str) -> str:
    code, said = await run_beside(
        home,
        command,
        PATH=os.pathsep.join([str(INSTALLED), str(UV.parent), os.environ["PATH"]]),
        UV_CACHE_DIR=cache_of_uv(),
        UV_CONSTRAINT=str(ROOT / "constraints.txt"),
        UV_OFFLINE="1",
    )
    assert code == 0, said
    return said


async def test_claude_code_validates_and_installs_the_plugin_and_reaches_the_server(code: Path, tmp_path: Path) -> None:
    needs("claude")
    start(code)
    assert "Validation passed" in await ran(tmp_path, "claude", "plugin", "validate", "--strict", str(code))
    await ran(tmp_path, "claude", "plugin", "marketplace", "add", str(code))
    await ran(tmp_path, "claude", "plugin", "install", "mj-mcp@mj-mcp", "--config", "api_key=canary-key")
    for _ in range(TRIES):
        said = await ran(tmp_path, "claude", "mcp", "list")
        if "✔ Connected" in said:
            break
    assert "midjourney" in said
    assert "✔ Connected" in said
    assert "canary-key" not in said
    assert "canary-key" not in (tmp_path / ".claude" / "settings.json").read_text()


async def test_claude_code_refuses_a_broken_plugin(code: Path, tmp_path: Path) -> None:
    needs("claude")
    manifest = code / ".claude-plugin" / "plugin.json"
    manifest.write_text(manifest.read_text().replace('"name": "mj-mcp"', '"name": ""', 1))
    refused, _ = await run_beside(tmp_path, ["claude", "plugin", "validate", "--strict", str(manifest)])
    assert refused != 0


async def test_gemini_cli_validates_and_installs_the_extension_and_lists_its_server(code: Path, tmp_path: Path) -> None:
    """Whether it connects is not judged: it waits 5 s for `uvx` to start, which a busy machine does not keep."""
    needs("gemini")
    assert "successfully validated" in await ran(tmp_path, "gemini", "extensions", "validate", str(code))
    await ran(tmp_path, "gemini", "extensions", "install", str(code), "--consent", "--skip-settings")
    start(tmp_path / ".gemini" / "extensions" / "mj-mcp")
    said = await ran(tmp_path, "gemini", "mcp", "list")
    assert "midjourney (from mj-mcp)" in said
    assert "mj-mcp serve" in said
