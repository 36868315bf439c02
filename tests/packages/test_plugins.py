"""Claude Code and Gemini CLI themselves accept the plugin and the extension, install them, and know the server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from host_programs import needs, run_beside
from manifests import MANIFESTS
from readme import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """What a host copies of the repository, without what lies in a developer's folder."""
    folder = tmp_path / "code"
    for name in [*MANIFESTS, "pyproject.toml", "README.md", "LICENSE", "skills", "mj_mcp"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


async def ran(home: Path, *command: str) -> str:
    code, said = await run_beside(home, command)
    assert code == 0, said
    return said


async def test_claude_code_validates_and_installs_the_plugin(code: Path, tmp_path: Path) -> None:
    needs("claude")
    assert "Validation passed" in await ran(tmp_path, "claude", "plugin", "validate", "--strict", str(code))
    await ran(tmp_path, "claude", "plugin", "marketplace", "add", str(code))
    await ran(tmp_path, "claude", "plugin", "install", "mj-mcp@mj-mcp")
    assert "mj-mcp@mj-mcp" in await ran(tmp_path, "claude", "plugin", "list")


async def test_claude_code_refuses_a_broken_plugin(code: Path, tmp_path: Path) -> None:
    needs("claude")
    manifest = code / ".claude-plugin" / "plugin.json"
    manifest.write_text(manifest.read_text().replace('"name": "mj-mcp"', '"name": ""', 1))
    refused, _ = await run_beside(tmp_path, ["claude", "plugin", "validate", "--strict", str(manifest)])
    assert refused != 0


async def test_gemini_cli_validates_and_installs_the_extension(code: Path, tmp_path: Path) -> None:
    needs("gemini")
    assert "successfully validated" in await ran(tmp_path, "gemini", "extensions", "validate", str(code))
    await ran(tmp_path, "gemini", "extensions", "install", str(code), "--consent", "--skip-settings")
    said = await ran(tmp_path, "gemini", "extensions", "list")
    assert "mj-mcp" in said
    assert "midjourney" in said, "its server"
