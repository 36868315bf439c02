"""The README and server.json say what the code does: their tables are generated, and their commands exist."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import click
import pytest
import readme

import mj_mcp
from mj_mcp.cli.commands import main
from mj_mcp.errors import ERRORS
from mj_mcp.server.render import NEXT_STEPS
from mj_mcp.settings import Settings

ROOT = readme.ROOT
TEXT = readme.README.read_text(encoding="utf-8")
SERVER: dict[str, Any] = json.loads(readme.SERVER_JSON.read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_tables_are_those_of_the_code() -> None:
    assert readme.with_tables(TEXT) == TEXT, "a table of README.md is stale: run `make docs`"


def test_a_stale_table_is_seen() -> None:
    assert readme.with_tables(TEXT.replace("| `reroll` |", "| `redo` |")) == TEXT


def test_a_lost_marker_is_seen() -> None:
    with pytest.raises(ValueError, match="markers of tools"):
        readme.with_tables(TEXT.replace("<!-- end of tools -->", ""))


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


def test_every_command_named_in_the_readme_exists() -> None:
    """`mj-mcp X` in code, with each --option that stands on its line."""
    named = re.findall(r"(?:^    |`)mj-mcp((?: [a-z]+)*)(?![-a-z])([^`\n]*)", TEXT, re.MULTILINE)
    assert isinstance(main, click.Group)
    assert {words.split()[0] for words, _ in named if words} == set(main.commands)
    for words, rest in named:
        options = options_of(words)
        assert options is not None, f"mj-mcp{words}"
        given = re.sub(r'"[^"]*"', "", rest)  # a prompt has flags of its own
        assert set(re.findall(r"--[a-z-]+", given)) <= options, f"mj-mcp{words}{rest}"


def test_every_command_that_results_advise_exists() -> None:
    named = re.findall(r"`mj-mcp ([a-z ]+)`", " ".join(NEXT_STEPS.values()))
    assert named
    assert [words for words in named if options_of(words) is None] == []


def test_every_make_target_named_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z]+)", TEXT, re.MULTILINE)) <= targets


def test_every_variable_named_in_the_readme_is_a_setting() -> None:
    known = {readme.variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bMJ_[A-Z_]+\b", TEXT)) == known


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_json_block_can_be_pasted() -> None:
    blocks = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        hosts = json.loads(block)
        (server,) = (hosts.get("mcpServers") or hosts.get("servers")).values()
        assert server["env"].keys() == {"MJ_API_KEY"}


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


NEEDED = ("$schema", "name", "description", "version", "packages")
NEEDED_OF_A_PACKAGE = ("registryType", "identifier", "transport")


def wrong_in(server: dict[str, Any]) -> list[str]:
    """The rules of the registry's schema 2025-12-11, as far as this file meets them."""
    top = {"$schema", "name", "title", "description", "version", "packages", "repository", "websiteUrl"}
    wrong = [f"unknown field {name}" for name in server.keys() - top]
    wrong += [f"no {name}" for name in NEEDED if not server.get(name)]
    if server.get("$schema") != "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json":
        wrong.append("another schema")
    if not re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", server.get("name", "")) or len(server["name"]) > 200:
        wrong.append("name is no reverse-DNS name with one slash")
    wrong += [f"{name} is longer than 100" for name in ("title", "description") if len(server.get(name, "")) > 100]
    for package in server.get("packages", []):
        wrong += [f"package without {name}" for name in NEEDED_OF_A_PACKAGE if name not in package]
        if not re.fullmatch(r"\d+\.\d+\.\d+(?:[-+.a-z0-9]*)", package.get("version", "")):
            wrong.append("package version is no exact release")
        if package.get("transport", {}).get("type") not in {"stdio", "streamable-http", "sse"}:
            wrong.append("unknown transport")
        for variable in package.get("environmentVariables", []):
            wrong += _wrong_variable(variable)
    return wrong


def _wrong_variable(variable: dict[str, Any]) -> list[str]:
    kinds: dict[str, type] = {"name": str, "description": str, "isRequired": bool, "isSecret": bool, "default": str}
    wrong = [f"unknown field {name}" for name in variable.keys() - kinds.keys()]
    wrong += [] if variable.get("name") else ["variable without name"]
    return wrong + [
        f"{name} is no {kinds[name]}" for name in kinds if not isinstance(variable.get(name), kinds[name] | None)
    ]


def test_server_json_keeps_the_registrys_rules() -> None:
    assert wrong_in(SERVER) == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "mj-mcp"},
        {"description": "x" * 101},
        {"description": ""},
        {"$schema": "https://example.com"},
        {"license": "MIT"},
        {"packages": []},
        {"packages": [{"registryType": "pypi", "identifier": "mj-mcp", "version": "1.0.0"}]},
        {"packages": [{**SERVER["packages"][0], "version": "latest"}]},
        {"packages": [{**SERVER["packages"][0], "environmentVariables": [{"name": "A", "default": 5}]}]},
    ],
)
def test_the_rules_see_what_is_wrong(change: dict[str, Any]) -> None:
    assert wrong_in(SERVER | change) != []


def test_no_committed_text_holds_a_machines_path() -> None:
    for path in (readme.README, readme.SERVER_JSON, ROOT / "Makefile", ROOT / "constraints.txt"):
        assert not re.search(r"/(?:root|home|Users|tmp|work)/", path.read_text(encoding="utf-8")), path
