"""Every package format says the same as the code: one version, one address, one way to start the server."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from manifests import MANIFESTS, PACKAGE, claude_plugin, mcp_bundle, text_of
from readme import ROOT, SERVER_JSON, repository

from mj_mcp import __version__
from mj_mcp.cli.commands import main
from mj_mcp.errors import ERRORS
from mj_mcp.server.tools import build_tools

SCHEMAS = ROOT / "tests" / "packages" / "schemas"
SERVER: dict[str, Any] = json.loads(SERVER_JSON.read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SKILL = ROOT / "skills" / "midjourney" / "SKILL.md"


def schema(name: str) -> dict[str, Any]:
    return dict(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def wrong_in(document: dict[str, Any], name: str) -> list[str]:
    checker = jsonschema.validators.validator_for(schema(name))(schema(name))
    return [error.message for error in checker.iter_errors(document)]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == text_of(MANIFESTS[name]()), f"{name} is stale: run `make docs`"


def test_there_is_one_version() -> None:
    versions = {name: json.loads((ROOT / name).read_text()).get("version") for name in MANIFESTS}
    assert [name for name, version in versions.items() if version is None] == [
        ".claude-plugin/marketplace.json",  # where both have one, the plugin's counts
        "mcp.json",  # its plugin.json has it
    ]
    named = {version for version in versions.values() if version}
    named |= {PROJECT["version"], SERVER["version"], *(package["version"] for package in SERVER["packages"])}
    assert named == {__version__}


def test_the_changelog_has_a_section_for_this_version_or_the_next() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads, "no section"
    assert heads[0] == "Unreleased" or __version__ in heads[0], heads[0]


def test_the_address_of_the_code_is_the_one_that_the_servers_name_gives() -> None:
    address = repository(SERVER)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "pyproject.toml", *(ROOT / n for n in MANIFESTS)]
    # What is ours ends in the project's name; other people's addresses may stand in the docs.
    ours = {found for path in pages for found in re.findall(r"https://github\.com/[\w-]+/mj-mcp\b", path.read_text())}
    assert ours == {address}
    assert PROJECT["urls"] == {"Repository": address}


@pytest.mark.parametrize(("file", "name"), [("server.json", "server"), ("plugin.json", "plugin"), ("mcp.json", "mcp")])
def test_a_manifest_keeps_its_schema(file: str, name: str) -> None:
    assert wrong_in(json.loads((ROOT / file).read_text()), name) == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "mj-mcp"},
        {"description": "x" * 101},
        {"description": ""},
        {"packages": [{"registryType": "pypi", "identifier": "mj-mcp", "version": "1.0.0"}]},
        {"packages": [{**SERVER["packages"][0], "version": "latest"}]},
        {"packages": [{**SERVER["packages"][0], "environmentVariables": [{"name": "A", "default": 5}]}]},
        {"remotes": [{"type": "streamable-http"}]},
    ],
)
def test_the_registrys_schema_sees_what_is_wrong(change: dict[str, Any]) -> None:
    assert wrong_in(SERVER | change, "server") != []


def test_server_json_names_its_schema_by_the_address_that_the_schema_has() -> None:
    assert SERVER["$schema"] == schema("server")["$id"]


def test_the_key_is_a_secret_that_is_asked_for_and_never_written_into_a_file() -> None:
    for asked in (mcp_bundle()["user_config"], claude_plugin()["userConfig"]):
        assert asked["api_key"]["sensitive"] is True
        assert "default" not in asked["api_key"]
    (key, address) = json.loads((ROOT / "gemini-extension.json").read_text())["settings"]
    assert (key["envVar"], key["sensitive"], address["sensitive"]) == ("MJ_API_KEY", True, False)


def test_every_manifest_starts_the_command_of_the_package() -> None:
    assert PACKAGE in PROJECT["scripts"]
    assert "serve" in main.commands
    started = [found for name in MANIFESTS for found in _commands(json.loads((ROOT / name).read_text()))]
    assert len(started) == 4
    assert {tuple(args[-2:]) for args in started} == {(PACKAGE, "serve")}


def _commands(part: object) -> list[list[str]]:
    """The arguments of every command in it."""
    if isinstance(part, list):
        return [found for item in part for found in _commands(item)]
    if not isinstance(part, dict):
        return []
    here = [part["args"]] if "command" in part else []
    return here + [found for item in part.values() for found in _commands(item)]


def test_the_skill_names_tools_and_errors_that_exist() -> None:
    text = SKILL.read_text()
    head, name, description = re.fullmatch(
        r"---\n(name: (.+)\ndescription: (.+)\n.*?)---\n.*", text, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    assert (name, len(description) < 1024, "license" in head) == (SKILL.parent.name, True, True)
    tools = {tool["name"]: tool for tool in mcp_bundle()["tools"]}
    known = set(tools) | set(ERRORS) | _arguments() | {"succeeded", "failed", "next"}
    assert set(re.findall(r"`([a-z_]+)`", text)) - known == set()
    assert len(text.splitlines()) <= 60


def _arguments() -> set[str]:
    return {
        name for tool in build_tools(spends=True, saves=True, view=True) for name in tool.parameters["properties"]
    } | {"task_id"}
