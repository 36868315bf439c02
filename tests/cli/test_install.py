"""`mj-mcp install`, `status`, `uninstall`: the right file on every system, and only our entry in it changes."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from commands import run
from conftest import KEY, environment
from terminals import Terminal

from mj_mcp.cli.hosts import NAME, Format, Launch, Machine
from mj_mcp.cli.hosts.catalog import BY_ID, HOSTS
from mj_mcp.cli.hosts.edits import BACKUP, CannotEdit, edited, read_entry, write_entry
from mj_mcp.cli.hosts.programs import can_run, is_temporary
from mj_mcp.simulator import Simulator

LAUNCH = Launch("/opt/mj-mcp", ("serve", "--demo"), {"MJ_API_KEY": "a key"})
ENTRY = LAUNCH.as_json()

# --- where the files are

LINUX, MAC, WINDOWS = "Linux", "Darwin", "Windows"
PATHS = {
    "claude-desktop": {
        LINUX: ".config/Claude/claude_desktop_config.json",
        MAC: "Library/Application Support/Claude/claude_desktop_config.json",
        WINDOWS: "AppData/Roaming/Claude/claude_desktop_config.json",
    },
    "claude-code": dict.fromkeys([LINUX, MAC, WINDOWS], ".claude.json"),
    "cursor": dict.fromkeys([LINUX, MAC, WINDOWS], ".cursor/mcp.json"),
    "vscode": {
        LINUX: ".config/Code/User/mcp.json",
        MAC: "Library/Application Support/Code/User/mcp.json",
        WINDOWS: "AppData/Roaming/Code/User/mcp.json",
    },
    "codex": dict.fromkeys([LINUX, MAC, WINDOWS], ".codex/config.toml"),
    "gemini-cli": dict.fromkeys([LINUX, MAC, WINDOWS], ".gemini/settings.json"),
    "windsurf": dict.fromkeys([LINUX, MAC, WINDOWS], ".codeium/windsurf/mcp_config.json"),
    "zed": {
        LINUX: ".config/zed/settings.json",
        MAC: ".config/zed/settings.json",
        WINDOWS: "AppData/Roaming/Zed/settings.json",
    },
    "lm-studio": dict.fromkeys([LINUX, MAC, WINDOWS], ".lmstudio/mcp.json"),
    "goose": {
        LINUX: ".config/goose/config.yaml",
        MAC: ".config/goose/config.yaml",
        WINDOWS: "AppData/Roaming/Block/goose/config/config.yaml",
    },
    "jetbrains": dict.fromkeys([LINUX, MAC, WINDOWS], ".junie/mcp/mcp.json"),
}


def nowhere(program: str) -> None:
    """No program is on the path."""


def machine(home: Path, system: str = LINUX, **folders: str) -> Machine:
    return Machine(system, home, folders, nowhere)


@pytest.mark.parametrize("system", [LINUX, MAC, WINDOWS])
def test_each_host_has_its_file_on_each_system(system: str, tmp_path: Path) -> None:
    found = {host.id: host.file.on(machine(tmp_path, system)) for host in HOSTS}
    assert found == {host: tmp_path / paths[system] for host, paths in PATHS.items()}


def test_variables_move_the_files(tmp_path: Path) -> None:
    moved = machine(tmp_path, LINUX, XDG_CONFIG_HOME="/x", CODEX_HOME="/c", CLAUDE_CONFIG_DIR="/k")
    found = {name: str(BY_ID[name].file.on(moved)) for name in ("vscode", "zed", "codex", "claude-code", "cursor")}
    assert found == {
        "vscode": "/x/Code/User/mcp.json",
        "zed": "/x/zed/settings.json",
        "codex": "/c/config.toml",
        "claude-code": "/k/.claude.json",
        "cursor": str(tmp_path / ".cursor/mcp.json"),
    }
    roaming = machine(tmp_path, WINDOWS, APPDATA="/roaming")
    assert str(BY_ID["claude-desktop"].file.on(roaming)) == "/roaming/Claude/claude_desktop_config.json"


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.id)
def test_an_entry_is_written_read_and_removed(host: Any, tmp_path: Path) -> None:
    path, form, key = host.file.on(machine(tmp_path)), host.file.format, host.file.key
    assert not host.is_found(machine(tmp_path))
    assert write_entry(path, form, key, host.file.entry(LAUNCH)) is None
    assert host.is_found(machine(tmp_path))
    entry = read_entry(path, form, key)
    assert entry is not None
    assert {*entry} & {"command", "cmd"}
    assert (entry.get("command") or entry["cmd"], entry["args"]) == ("/opt/mj-mcp", ["serve", "--demo"])
    assert (entry.get("env") or entry["envs"]) == {"MJ_API_KEY": "a key"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_entry(path, form, key, None)
    assert read_entry(path, form, key) is None


# --- what changes in a file

JSON = """{
    "theme": "dark",   "list": [1, 2.50, 1e3],
    "mcpServers": {
        "other": {"command": "npx", "args": ["-y", "x"]}
    },
    "last": "\\u00fc ü"
}
"""


def test_nothing_but_our_entry_changes_in_json() -> None:
    after = edited(JSON, "json", "mcpServers", ENTRY)
    assert [line for line in JSON.splitlines() if line.rstrip(",") not in after] == []
    added = json.loads(after)
    assert list(added) == ["theme", "list", "mcpServers", "last"]
    assert list(added["mcpServers"]) == ["other", NAME]
    assert '        "midjourney": {\n            "command": "/opt/mj-mcp",\n' in after
    again = edited(after, "json", "mcpServers", {"command": "new"})
    assert json.loads(again)["mcpServers"][NAME] == {"command": "new"}
    assert edited(again, "json", "mcpServers", None) == JSON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        " { } \n",
        "{\n}\n",
        '{"a": 1}',
        '{"mcpServers": {}}',
        '{"mcpServers":{"a":{},"midjourney":{"command":"old"},"z":{}},"b":[]}',
        '{"mcpServers":{"midjourney":{"command":"old"},"z":{}}}',
        '{"mcpServers":{"midjourney":{"command":"old"}}}',
        '\ufeff{"mcpServers": {"x": "}{\\"midjourney\\""}}',
    ],
)
def test_every_shape_of_json_takes_and_loses_our_entry(text: str) -> None:
    before = json.loads(text.removeprefix("\ufeff") or "{}")
    others = {name: value for name, value in before.get("mcpServers", {}).items() if name != NAME}
    added = edited(text, "json", "mcpServers", ENTRY)
    assert added.startswith("\ufeff") == text.startswith("\ufeff")
    assert json.loads(added.removeprefix("\ufeff")) == {**before, "mcpServers": {**others, NAME: ENTRY}}
    removed = edited(added, "json", "mcpServers", None)
    assert json.loads(removed.removeprefix("\ufeff")) == {**before, "mcpServers": others}


TOML = """# my settings
model = "gpt"  # the good one

[mcp_servers.other]
command = "npx"   # kept

[history]
persistence = "none"
"""

YAML = """# my settings
GOOSE_PROVIDER: "openai"  # the good one
extensions:
  developer:
    enabled: true
    args:
    - a
"""


@pytest.mark.parametrize(
    ("text", "form", "key"), [(TOML, "toml", "mcp_servers"), (YAML, "yaml", "extensions")], ids=["toml", "yaml"]
)
def test_comments_and_order_are_kept(text: str, form: Format, key: str) -> None:
    after = edited(text, form, key, ENTRY)
    left = iter(after.splitlines())
    assert [line for line in text.splitlines() if line and line not in left] == []
    assert "/opt/mj-mcp" in after
    removed = edited(after, form, key, None)
    assert [line for line in removed.splitlines() if line] == [line for line in text.splitlines() if line]


def test_line_ends_of_windows_are_kept() -> None:
    after = edited(TOML.replace("\n", "\r\n"), "toml", "mcp_servers", ENTRY)
    assert after.count("\n") == after.count("\r\n")
    assert tomllib.loads(after)["mcp_servers"][NAME] == ENTRY


@pytest.mark.parametrize(
    ("text", "form", "key", "said"),
    [
        ('{\n  // mine\n  "mcpServers": {}\n}', "json", "mcpServers", "comments"),
        ('{"mcpServers": {},}', "json", "mcpServers", "not valid JSON"),
        ("[]", "json", "mcpServers", "not what it is usually"),
        ('{"mcpServers": []}', "json", "mcpServers", "not what it is usually"),
        ("a = [", "toml", "mcp_servers", "not valid TOML"),
        ("a: [", "yaml", "extensions", "not valid YAML"),
        ("a:    1\nb: {c: 1,  d: 2}\n", "yaml", "extensions", "layout"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str, form: Format, key: str, said: str) -> None:
    with pytest.raises(CannotEdit, match=said):
        edited(text, form, key, ENTRY)


def test_one_backup_holds_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(JSON)
    assert write_entry(path, "json", "mcpServers", ENTRY) == tmp_path / f"mcp.json{BACKUP}"
    assert (tmp_path / f"mcp.json{BACKUP}").read_text() == JSON
    assert write_entry(path, "json", "mcpServers", ENTRY) is None, "nothing changes, so nothing is written"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mcp.json", f"mcp.json{BACKUP}"]


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles.json").write_text("{}")
    (tmp_path / "mcp.json").symlink_to("dotfiles.json")
    write_entry(tmp_path / "mcp.json", "json", "mcpServers", ENTRY)
    assert (tmp_path / "mcp.json").is_symlink()
    assert NAME in (tmp_path / "dotfiles.json").read_text()


# --- links and programs


def test_the_links_hold_the_same_entry() -> None:
    for host in ("cursor", "lm-studio"):
        link = BY_ID[host].link
        assert link is not None
        asked = parse_qs(urlsplit(link(LAUNCH)).query)
        assert (asked["name"], json.loads(base64.b64decode(asked["config"][0]))) == ([NAME], ENTRY)
    link = BY_ID["vscode"].link
    assert link is not None
    start, _, packed = link(LAUNCH).partition("?")
    assert (start, json.loads(unquote(packed))) == ("vscode:mcp/install", {"name": NAME, **ENTRY})


def test_a_batch_file_of_windows_gets_no_argument_that_its_shell_would_read() -> None:
    assert can_run("C:\\bin\\claude.cmd", ["--env", "MJ_API_KEY=abc"])
    assert not can_run("C:\\bin\\claude.CMD", ["--env", "MJ_API_KEY=a&calc"])
    assert not can_run("C:\\bin\\code.cmd", ['{"name": "midjourney"}'])
    assert can_run("/usr/bin/code", ['{"name": "midjourney"}'])


def test_a_temporary_environment_is_recognised() -> None:
    assert is_temporary("/home/a/.cache/uv/archive-v0/x1/bin/mj-mcp")
    assert is_temporary("/home/a/.local/pipx/.cache/x1/bin/mj-mcp")
    assert not is_temporary("/home/a/.local/share/uv/tools/mj-mcp/bin/mj-mcp")


# --- the commands

pytestmark = pytest.mark.anyio
CURSOR = Path(".cursor/mcp.json")


def entry_in(home: Path) -> Any:
    return json.loads((home / CURSOR).read_text())["mcpServers"][NAME]


async def test_the_demo_is_installed_without_a_key_and_removed(tmp_path: Path) -> None:
    done = await run(tmp_path, "install", "cursor", "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"midjourney is in {tmp_path / CURSOR}" in done.stdout
    entry = entry_in(tmp_path)
    assert entry == {"command": entry["command"], "args": [*entry["args"][:-2], "serve", "--demo"]}
    assert Path(entry["command"]).is_absolute()
    assert shutil.which(entry["command"])
    shown = await run(tmp_path, "status", "cursor")
    assert shown.stdout.split()[:3] == ["cursor", "connected", "(demo)"]
    gone = await run(tmp_path, "uninstall", "cursor")
    assert (gone.returncode, json.loads((tmp_path / CURSOR).read_text())) == (0, {"mcpServers": {}})
    again = await run(tmp_path, "uninstall", "cursor")
    assert (again.returncode, "has no midjourney" in again.stdout) == (0, True)


async def test_the_key_is_checked_before_anything_is_written(sim: Simulator, tmp_path: Path) -> None:
    wrong = environment(sim.url, tmp_path, MJ_API_KEY="wrong-canary")
    done = await run(tmp_path, "install", "cursor", "--key-from-env", env=wrong)
    assert done.returncode == 1
    assert "FAIL  key" in done.stdout
    assert "nothing was changed" in done.stderr
    assert not (tmp_path / CURSOR).exists()
    done = await run(tmp_path, "install", "cursor", "--key-from-env", "--no-check", env=wrong)
    assert (done.returncode, entry_in(tmp_path)["env"]["MJ_API_KEY"]) == (0, "wrong-canary")
    assert "wrong-canary" not in done.stdout + done.stderr


async def test_the_variables_that_are_set_go_along(sim: Simulator, tmp_path: Path) -> None:
    env = environment(sim.url, tmp_path)
    done = await run(tmp_path, "install", "cursor", "--key-from-env", env={**env, "MJ_NO_SETTING": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert entry_in(tmp_path)["env"] == {name: value for name, value in env.items() if name.startswith("MJ_")}
    assert KEY not in done.stdout
    assert len(sim.submits()) == 0


async def test_without_a_terminal_the_key_is_not_asked_for(tmp_path: Path) -> None:
    done = await run(tmp_path, "install", "cursor")
    assert (done.returncode, "--key-from-env" in done.stderr) == (2, True)
    done = await run(tmp_path, "install", "cursor", "--key-from-env")
    assert (done.returncode, done.stderr) == (2, "mj-mcp: MJ_API_KEY is not set\n")
    done = await run(tmp_path, "install")
    assert (done.returncode, "lm-studio" in done.stderr) == (2, True)


@pytest.mark.slow
async def test_print_changes_nothing_and_shows_no_key(tmp_path: Path) -> None:
    for host in BY_ID:
        done = await run(tmp_path, "install", host, "--print", env={"MJ_API_KEY": KEY, "MJ_SECRET_KEY": KEY * 2})
        assert (done.returncode, done.stderr) == (0, "")
        assert "YOUR_KEY" in done.stdout or host == "lm-studio"
        assert KEY not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"tmp"}


async def test_a_file_with_comments_is_not_changed_and_the_text_to_paste_is_shown(tmp_path: Path) -> None:
    settings = tmp_path / ".config/zed/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('// Zed settings\n{\n  "theme": "One"\n}\n')
    done = await run(tmp_path, "install", "zed", "--demo")
    assert (done.returncode, settings.read_text()) == (1, '// Zed settings\n{\n  "theme": "One"\n}\n')
    assert "it has comments" in done.stderr
    pasted = json.loads(done.stderr.partition("\n\n")[2])
    assert pasted["context_servers"][NAME]["args"][-2:] == ["serve", "--demo"]
    assert [path.name for path in settings.parent.iterdir()] == ["settings.json"]


async def test_a_host_without_a_file_of_ours_is_told_its_command(tmp_path: Path) -> None:
    done = await run(tmp_path, "install", "claude-code", "--demo", env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "claude mcp add --scope user --transport stdio midjourney -- " in done.stderr


async def test_where_the_hosts_own_command_fails_the_file_is_used(tmp_path: Path) -> None:
    codex = tmp_path / "bin" / "codex"
    codex.parent.mkdir()
    codex.write_text('#!/bin/sh\necho "no: $*" >&2\nexit 3\n')
    codex.chmod(0o700)
    env = {"PATH": f"{codex.parent}:/usr/bin:/bin", "MJ_API_KEY": KEY}
    done = await run(tmp_path, "install", "codex", "--key-from-env", "--no-check", env=env)
    assert done.returncode == 0
    assert "`codex` did not work: no: mcp add midjourney" in done.stderr
    assert KEY not in done.stdout + done.stderr
    entry = tomllib.loads((tmp_path / ".codex/config.toml").read_text())["mcp_servers"][NAME]
    assert entry["env"] == {"MJ_API_KEY": KEY}


async def test_an_entry_whose_command_is_gone_is_named(tmp_path: Path) -> None:
    write_entry(tmp_path / CURSOR, "json", "mcpServers", {"command": "/gone/mj-mcp"})
    done = await run(tmp_path, "status", "cursor")
    assert done.stdout.split()[:3] == ["cursor", "broken", "/gone/mj-mcp"]


def test_the_key_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    with_key = {"MJ_BASE_URL": "http://127.0.0.1:9"}
    terminal = Terminal(tmp_path, "install", "cursor", "--no-check", env=with_key)
    terminal.until("not shown): ")
    terminal.type("typed-canary\n")
    assert terminal.end() == 0
    assert "typed-canary" not in terminal.screen
    assert entry_in(tmp_path)["env"] == {"MJ_BASE_URL": "http://127.0.0.1:9", "MJ_API_KEY": "typed-canary"}


def test_a_start_of_the_server_does_not_import_what_only_commands_need() -> None:
    code = "import sys, mj_mcp.cli.commands, mj_mcp.server; print([m for m in sys.argv[1:] if sys.modules.get(m)])"
    heavy = ["rich", "tomlkit", "ruamel.yaml", "mj_mcp.cli.doctor", "mj_mcp.simulator"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
