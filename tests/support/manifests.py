"""Writes what package formats want to know of this server, from the code: `make docs`.

Each format gets one JSON file. All start the server from the folder in which they lie, so a package never runs another
version than its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from readme import ROOT, SERVER_JSON, repository, variable

from mj_mcp import __version__
from mj_mcp.cli.hosts import NAME
from mj_mcp.server.tools import build_tools
from mj_mcp.settings import Settings

PACKAGE = "mj-mcp"
TITLES = {"api_key": "API key", "base_url": "URL of the proxy"}
"""What a package asks its user for: these settings, by these names."""


def _server() -> dict[str, Any]:
    return dict(json.loads(SERVER_JSON.read_text(encoding="utf-8")))


def _about() -> dict[str, Any]:
    """What every format has in the same words."""
    server = _server()
    return {
        "name": PACKAGE,
        "version": __version__,
        "description": server["description"],
        "author": {"name": PACKAGE, "url": repository(server)},
        "license": "MIT",
        "keywords": ["midjourney", "image-generation", "mcp"],
    }


def _meaning(name: str) -> str:
    return (Settings.model_fields[name].description or "").replace("`", "")


def _default(name: str) -> str:
    return str(Settings.model_fields[name].default)


def _asked() -> dict[str, dict[str, Any]]:
    """The questions, as Claude Desktop and Claude Code both want them."""
    asked: dict[str, dict[str, Any]] = {
        name: {"type": "string", "title": title, "description": _meaning(name)} for name, title in TITLES.items()
    }
    asked["api_key"] |= {"sensitive": True, "required": True}
    asked["base_url"] |= {"default": _default("base_url")}
    return asked


def _given(pattern: str) -> dict[str, str]:
    """The environment of the server: the answers, as the format writes them."""
    return {variable(name): pattern.format(name=name, variable=variable(name)) for name in TITLES}


def _from_folder(folder: str) -> dict[str, Any]:
    """uv builds the package in this folder and keeps what it built."""
    return {"command": "uvx", "args": ["--from", folder, PACKAGE, "serve"]}


def mcp_bundle() -> dict[str, Any]:
    """The manifest of an MCP bundle: Claude Desktop brings uv, asks, and keeps the key in the system's key store."""
    about = _about()
    return {
        "manifest_version": "0.4",
        **about,
        "display_name": _server()["title"],
        "repository": {"type": "git", "url": about["author"]["url"]},
        "documentation": f"{about['author']['url']}#readme",
        "support": f"{about['author']['url']}/issues",
        "server": {
            "type": "uv",
            "entry_point": "mj_mcp/__main__.py",
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--directory", "${__dirname}", PACKAGE, "serve"],
                "env": _given("${{user_config.{name}}}"),
            },
        },
        "tools": [
            {"name": tool.name, "description": tool.description}
            for tool in build_tools(spends=True, saves=True, view=True)
        ],
        "prompts_generated": True,
        "compatibility": {
            "platforms": ["darwin", "linux", "win32"],
            "runtimes": {"python": ">=3.11"},
        },
        "user_config": _asked(),
    }


def claude_plugin() -> dict[str, Any]:
    """A plugin of Claude Code: the server, and the skill in `skills/`."""
    about = _about()
    server = _from_folder("${CLAUDE_PLUGIN_ROOT}") | {"env": _given("${{user_config.{name}}}")}
    return {
        **about,
        "repository": about["author"]["url"],
        "mcpServers": {NAME: server},
        "userConfig": _asked(),
    }


def claude_marketplace() -> dict[str, Any]:
    """The list of plugins in this repository: one. Its version stands in the plugin."""
    about = _about()
    entry = {"name": PACKAGE, "source": "./", "description": about["description"]}
    return {"name": PACKAGE, "description": about["description"], "owner": about["author"], "plugins": [entry]}


def gemini_extension() -> dict[str, Any]:
    """An extension of Gemini CLI. An answer that was not given is empty, as an unset variable is."""
    about = _about()
    env = {variable(name): f"${{{variable(name)}:-{_default(name) if name == 'base_url' else ''}}}" for name in TITLES}
    settings: Sequence[dict[str, Any]] = [
        {"name": title, "description": _meaning(name), "envVar": variable(name), "sensitive": name == "api_key"}
        for name, title in TITLES.items()
    ]
    return {
        **{name: about[name] for name in ("name", "version", "description")},
        "mcpServers": {NAME: _from_folder("${extensionPath}") | {"env": env}},
        "settings": settings,
    }


def agent_plugin() -> dict[str, Any]:
    """The manifest of an Agent Plugin (agent-plugins.org)."""
    about = _about()
    schema = "https://agent-plugins.org/schemas/1.0.0/plugin.schema.json"
    return {"$schema": schema, **about, "repository": about["author"]["url"]}


def agent_plugin_servers() -> dict[str, Any]:
    """The server of the Agent Plugin. The format has no place for a key: the client's environment has it."""
    schema = "https://agent-plugins.org/schemas/1.0.0/mcp.schema.json"
    return {"$schema": schema, "mcpServers": {NAME: {"type": "stdio", **_from_folder("${PLUGIN_ROOT}")}}}


MANIFESTS: dict[str, Callable[[], dict[str, Any]]] = {
    "packaging/mcpb/manifest.json": mcp_bundle,
    ".claude-plugin/plugin.json": claude_plugin,
    ".claude-plugin/marketplace.json": claude_marketplace,
    "gemini-extension.json": gemini_extension,
    "plugin.json": agent_plugin,
    "mcp.json": agent_plugin_servers,
}
"""Every file and what is in it."""


def text_of(manifest: dict[str, Any]) -> str:
    """The file as it is written."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    for name, manifest in MANIFESTS.items():
        path: Path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(manifest()), encoding="utf-8")


if __name__ == "__main__":
    main()
