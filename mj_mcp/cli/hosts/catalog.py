"""The hosts as data: their files, their commands, their links.

Claude Code, Codex and Gemini CLI are tried with the real programs (`make clis`). The others are written from their
public documentation and are not run here.
"""

from __future__ import annotations

from typing import Any

from mj_mcp.cli.hosts import NAME, ConfigFile, Host, Launch, Program, base64_link, vscode_link


def _typed(launch: Launch) -> dict[str, Any]:
    """The entry as VS Code writes it."""
    return {"type": "stdio", **launch.as_json()}


def _goose(launch: Launch) -> dict[str, Any]:
    """The entry as Goose writes it. Its limit for one call is `timeout`, in seconds."""
    return {
        "enabled": True,
        "type": "stdio",
        "name": NAME,
        "description": "Midjourney pictures",
        "cmd": launch.command,
        "args": list(launch.args),
        "envs": dict(launch.env),
        "timeout": 300,
    }


HOSTS = (
    Host(
        id="claude-desktop",
        title="Claude Desktop",
        file=ConfigFile(path="{config}/Claude/claude_desktop_config.json", key="mcpServers"),
        then="Quit Claude Desktop and start it again.",
    ),
    Host(
        id="claude-code",
        title="Claude Code",
        file=ConfigFile(path="{CLAUDE_CONFIG_DIR:}/.claude.json", key="mcpServers", ours_to_write=False),
        program=Program(
            name="claude",
            add=(
                "mcp",
                "add",
                "--scope",
                "user",
                "--transport",
                "stdio",
                NAME,
                "...env",
                "--",
                "...command",
                "...args",
            ),
            remove=("mcp", "remove", "--scope", "user", NAME),
            replaces=False,
        ),
        then="Start a new session; /mcp shows the server.",
    ),
    Host(
        id="cursor",
        title="Cursor",
        file=ConfigFile(path="~/.cursor/mcp.json", key="mcpServers"),
        link=base64_link("cursor://anysphere.cursor-deeplink/mcp/install"),
        then="Open Cursor Settings, MCP, and switch midjourney on.",
    ),
    Host(
        id="vscode",
        title="VS Code",
        file=ConfigFile(path="{config}/Code/User/mcp.json", key="servers", entry=_typed),
        program=Program(name="code", add=("--add-mcp", "...json")),
        link=vscode_link,
        then="Run `MCP: List Servers` from the Command Palette and start midjourney.",
    ),
    Host(
        id="codex",
        title="Codex",
        file=ConfigFile(path="{CODEX_HOME:.codex}/config.toml", key="mcp_servers", format="toml"),
        program=Program(
            name="codex",
            add=("mcp", "add", NAME, "...env", "--", "...command", "...args"),
            remove=("mcp", "remove", NAME),
        ),
        then="Start a new session; /mcp shows the server.",
    ),
    Host(
        id="gemini-cli",
        title="Gemini CLI",
        file=ConfigFile(path="~/.gemini/settings.json", key="mcpServers"),
        program=Program(
            name="gemini",
            # Without `--` it would read the server's options as its own.
            add=("mcp", "add", "--scope", "user", "...env", NAME, "...command", "--", "...args"),
            remove=("mcp", "remove", "--scope", "user", NAME),
        ),
        then="Start a new session in a trusted folder; /mcp shows the server.",
    ),
    Host(
        id="windsurf",
        title="Windsurf",
        file=ConfigFile(path="~/.codeium/windsurf/mcp_config.json", key="mcpServers"),
        then="Press Refresh in the MCP settings of Cascade.",
    ),
    Host(
        id="zed",
        title="Zed",
        file=ConfigFile(
            path="{XDG_CONFIG_HOME:.config}/zed/settings.json",
            windows="{config}/Zed/settings.json",
            mac="~/.config/zed/settings.json",
            key="context_servers",
        ),
        then="Open the Agent Panel's settings: midjourney has a green dot.",
    ),
    Host(
        id="lm-studio",
        title="LM Studio",
        file=ConfigFile(path="~/.lmstudio/mcp.json", key="mcpServers"),
        link=base64_link("lmstudio://add_mcp"),
        then="Open a chat and switch mcp/midjourney on under Program, Integrations.",
    ),
    Host(
        id="goose",
        title="Goose",
        file=ConfigFile(
            path="~/.config/goose/config.yaml",
            windows="{config}/Block/goose/config/config.yaml",
            key="extensions",
            format="yaml",
            entry=_goose,
        ),
        then="Start a new session.",
    ),
    Host(
        id="jetbrains",
        title="JetBrains (Junie)",
        file=ConfigFile(path="~/.junie/mcp/mcp.json", key="mcpServers"),
        then="Open Settings, Tools, Junie, MCP Settings.",
        note="For AI Assistant, paste the same text under Settings, Tools, AI Assistant, Model Context Protocol.",
    ),
)

BY_ID = {host.id: host for host in HOSTS}
