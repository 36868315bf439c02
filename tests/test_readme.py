"""The docs and server.json say what the code does: their tables are generated, and their commands exist."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest
import readme

import mj_mcp
from mj_mcp.cli.commands import main
from mj_mcp.cli.hosts.catalog import BY_ID, HOSTS
from mj_mcp.cli.install import FIRST_SENTENCE
from mj_mcp.errors import ERRORS
from mj_mcp.server.render import NEXT_STEPS
from mj_mcp.settings import Settings

ROOT = readme.ROOT
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (readme.README, *readme.DOCS.glob("*.md"), ROOT / "llms.txt")
}
TEXT = PAGES["README.md"]
SERVER: dict[str, Any] = json.loads(readme.SERVER_JSON.read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", readme.GENERATED, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert readme.with_parts(text, readme.GENERATED[path]) == text, f"a part of {path.name} is stale: run `make docs`"


def test_a_stale_table_is_seen() -> None:
    tools, parts = PAGES["tools.md"], readme.GENERATED[readme.DOCS / "tools.md"]
    assert readme.with_parts(tools.replace("| `reroll` |", "| `redo` |"), parts) == tools
    with pytest.raises(ValueError, match="markers of tools"):
        readme.with_parts(tools.replace("<!-- end of tools -->", ""), parts)


def test_the_readme_is_short() -> None:
    assert TEXT.count("\n") <= 120


def test_no_page_names_a_price() -> None:
    """The operator of a proxy sets it."""
    assert [
        name for name, text in PAGES.items() if re.search(r"[$\u20ac\u00a3\u00a5] ?\d|\d ?(USD|EUR|CNY)", text)
    ] == []


def test_every_setting_has_a_sentence() -> None:
    without = [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")]
    assert without == []


def test_every_error_has_a_sentence_and_advice() -> None:
    assert [code for code, kind in ERRORS.items() if not (kind.__doc__ or "").split("\n")[0].endswith(".")] == []
    assert set(NEXT_STEPS) == set(ERRORS)


def options_of(path: str) -> set[str] | None:
    """The options of a command such as "tasks show"; None when there is no such command."""
    command: click.Command = main
    for name in path.split():
        if not isinstance(command, click.Group) or name not in command.commands:
            return None
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


COMMAND = re.compile(r"(?:^ {4,}|`|\.venv/bin/)mj-mcp((?: [a-z]+(?:-[a-z]+)*)*)(?![-a-z])([^`\n]*)", re.MULTILINE)


def commands_in(text: str) -> list[tuple[str, str]]:
    """Each `mj-mcp X` in code, and the rest of its line. The id of a host is not part of the command."""
    found = []
    for words, rest in COMMAND.findall(text):
        command = words.split()
        while len(command) > 1 and options_of(" ".join(command)) is None:
            command.pop()
        found.append((" ".join(command), rest))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_named_in_a_page_exists_with_its_options(page: str) -> None:
    for words, rest in commands_in(PAGES[page]):
        options = options_of(words)
        assert options is not None, f"mj-mcp {words}"
        given = re.sub(r'"[^"]*"', "", rest).partition("#")[0]  # a prompt has flags of its own
        assert set(re.findall(r"(?<![a-z-])--[a-z-]+", given)) <= options | {"--help"}, f"mj-mcp {words}{rest}"


def test_every_command_has_its_line() -> None:
    assert isinstance(main, click.Group)
    assert {words.split()[0] for words, _ in commands_in(PAGES["commands.md"]) if words} == set(main.commands)


def test_every_host_that_is_named_is_known() -> None:
    named = {word for text in PAGES.values() for word in re.findall(r"mj-mcp (?:un)?install ([a-z][a-z-]+)", text)}
    assert named
    assert named <= set(BY_ID)
    assert [host.id for host in HOSTS if f"| `{host.id}` |" not in PAGES["hosts.md"]] == []
    assert [host.title for host in HOSTS if host.title.partition(" (")[0] not in " ".join(TEXT.split())] == []


@pytest.mark.parametrize(
    ("words", "mark"), [("Cursor", "cursor.com/en/"), ("LM Studio", "lmstudio.ai/"), ("VS Code", "vscode")]
)
def test_a_button_adds_the_simulator(words: str, mark: str) -> None:
    (link,) = re.findall(rf"\[Add to {words}\]\((\S+)\)", TEXT)
    asked = parse_qs(urlsplit(link).query)
    packed = asked["config"][0]
    entry = json.loads(packed if packed.startswith("{") else base64.b64decode(packed))
    assert (mark in link, asked["name"]) == (True, ["midjourney"])
    code = readme.repository(SERVER)
    assert entry == {"command": "uvx", "args": ["--from", f"git+{code}", "mj-mcp", "serve", "--demo"]}


def test_every_line_of_code_in_the_readme_is_one_that_is_checked() -> None:
    """Commands of ours by the tests above, `make demo` by a test of the demo, JSON by the test below."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```") // 2 - 1
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(".venv/bin/mj-mcp ")]
    assert others == [
        f"git clone {readme.repository(SERVER)}",
        f"cd {readme.repository(SERVER).rpartition('/')[2]}",
        "make demo",
        "export MJ_BASE_URL=https://proxy.example",
    ]


def test_the_first_sentence_is_the_one_that_install_proposes() -> None:
    assert f"> {FIRST_SENTENCE}\n" in TEXT


def test_every_command_that_results_advise_exists() -> None:
    named = re.findall(r"`mj-mcp ([a-z ]+)`", " ".join(NEXT_STEPS.values()))
    assert named
    assert [words for words in named if options_of(words) is None] == []


def test_every_make_target_named_in_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE)}
    assert named
    assert named <= targets


def test_every_variable_named_in_a_page_is_a_setting() -> None:
    known = {readme.variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bMJ_[A-Z_]+\b", PAGES["settings.md"])) == known
    named = {found for text in PAGES.values() for found in re.findall(r"\bMJ_[A-Z_]*[A-Z]\b", text)}
    assert named - known == {"MJ_SITE"}, "the compose file's own"


def test_every_module_that_a_developer_is_sent_to_exists() -> None:
    named = set(re.findall(r"`([\w./-]+(?:\.py|/))`", PAGES["develop.md"]))
    assert len(named) > 30
    house = [ROOT, ROOT / "mj_mcp", *(folder for folder in (ROOT / "mj_mcp").iterdir() if folder.is_dir())]
    assert [name for name in sorted(named) if not any((folder / name).exists() for folder in house)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page: str) -> None:
    folder = ROOT if page in {"README.md", "llms.txt"} else readme.DOCS
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page])
    assert [link for link in links if not (folder / link).exists()] == []


def test_every_page_is_linked() -> None:
    for page in ("README.md", "llms.txt"):
        assert [path.name for path in readme.DOCS.glob("*.md") if f"(docs/{path.name})" not in PAGES[page]] == []


def test_the_json_block_can_be_pasted() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    (server,) = json.loads(block)["mcpServers"].values()
    assert server["env"].keys() == {"MJ_API_KEY", "MJ_BASE_URL"}


def test_the_version_is_one() -> None:
    versions = {mj_mcp.__version__, PROJECT["version"], SERVER["version"], SERVER["packages"][0]["version"]}
    assert len(versions) == 1, f"{versions}: run `make docs`"


def test_server_json_is_what_the_code_says() -> None:
    assert readme.with_facts(SERVER) == SERVER, "server.json is stale: run `make docs`"


def test_server_json_names_the_package_and_the_readme_names_the_server() -> None:
    (package,) = SERVER["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", PROJECT["name"])
    assert package["transport"] == {"type": "stdio"}
    assert f"mcp-name: {SERVER['name']}" in TEXT.replace(" -->", "\n").replace("<!-- ", "\n")


def test_the_key_is_required_and_secret() -> None:
    variables = {variable["name"]: variable for variable in SERVER["packages"][0]["environmentVariables"]}
    assert variables["MJ_API_KEY"] | {"description": ""} == {
        "name": "MJ_API_KEY",
        "description": "",
        "isRequired": True,
        "isSecret": True,
    }


def test_no_committed_text_holds_a_machines_path() -> None:
    for path in (
        readme.README,
        ROOT / "llms.txt",
        *readme.DOCS.glob("*.md"),
        readme.SERVER_JSON,
        ROOT / "Makefile",
        ROOT / "constraints.txt",
    ):
        assert not re.search(r"/(?:root|home|Users|tmp|work)/", path.read_text(encoding="utf-8")), path
