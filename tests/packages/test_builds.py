"""The wheel, the sdist and the MCP bundle hold what they need, and run where nothing else of ours is installed.

They are built and installed as a user does it, so these tests need the package registry or what uv has kept of it.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from bundles import OUTSIDE, UV, build, needs_npm_packages, pack
from readme import ROOT

from mj_mcp import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DATA = {"mj_mcp/py.typed", "mj_mcp/server/views/view.html", "mj_mcp/server/views/browse.html"}
"""What is no module, and is read at run time."""
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


def environment(home: Path) -> dict[str, str]:
    """No setting of ours and nothing of this Python; uvx takes the versions that were tested."""
    kept = {name: value for name, value in OUTSIDE.items() if not name.startswith(("MJ_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "MJ_DATA_DIR": str(home), "UV_CONSTRAINT": str(ROOT / "constraints.txt")}


def committed_modules() -> set[str]:
    listed = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mj_mcp").rglob("*.py")}
    assert len(listed) > 100
    return listed


def test_the_wheel_holds_the_package_its_data_and_its_license(built: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(built[1]).namelist())
    assert names >= DATA | committed_modules() | {"mj_mcp/skills/midjourney/SKILL.md"}
    info = f"mj_mcp-{__version__}.dist-info"
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"mj_mcp", info}


def test_the_sdist_holds_the_package_and_nothing_that_only_lies_beside_it(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names >= DATA | committed_modules()
    beside = {name for name in names if not name.startswith("mj_mcp/")}
    skill = "skills/midjourney/SKILL.md"
    texts = {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md"}
    assert beside == {*texts, "pyproject.toml", "server.json", skill}


@pytest.mark.parametrize("which", [0, 1], ids=["sdist", "wheel"])
def test_uvx_runs_it_in_an_environment_of_its_own(built: tuple[Path, Path], which: int, tmp_path: Path) -> None:
    command = [str(UV), "tool", "run", "--quiet", "--isolated", "--from", str(built[which]), "mj-mcp"]
    ran = subprocess.run(
        [*command, "--version"], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split()[-1] == __version__


def test_the_bundle_is_packed_and_a_host_can_start_what_it_holds(tmp_path: Path) -> None:
    needs_npm_packages()
    folder = tmp_path / "installed"
    zipfile.ZipFile(pack(tmp_path)).extractall(folder)
    server = json.loads((folder / "manifest.json").read_text())["server"]
    assert (folder / server["entry_point"]).is_file()
    config = server["mcp_config"]
    given = {"__dirname": str(folder), "user_config.api_key": "test-key", "user_config.base_url": "http://127.0.0.1:9"}
    args, env = (json.loads(_filled(json.dumps(config[part]), given)) for part in ("args", "env"))
    assert env == {"MJ_API_KEY": "test-key", "MJ_BASE_URL": "http://127.0.0.1:9"}
    ran = subprocess.run(
        [UV, *args],
        input=json.dumps(INITIALIZE) + "\n",
        env=environment(tmp_path) | env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout)["result"]["serverInfo"]["version"] == __version__, ran.stderr


def _filled(text: str, given: dict[str, str]) -> str:
    """The text as a host fills it in."""
    for name, value in given.items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text
    return text
