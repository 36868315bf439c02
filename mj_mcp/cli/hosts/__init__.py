"""The hosts that `mj-mcp install` knows, and how each is configured.

`table.py` lists them as data, `edits.py` changes their files, `programs.py` runs their own commands. Prints nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

NAME = "midjourney"
"""The name of our entry in every host."""

Format = Literal["json", "toml", "yaml"]


@dataclass(frozen=True, slots=True)
class Launch:
    """How a host starts the server."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The entry as most hosts write it. A part without content is left out."""
        whole = {"command": self.command, "args": list(self.args), "env": dict(self.env)}
        return {name: value for name, value in whole.items() if value}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the hosts' files are on this machine."""

    system: str
    """As `platform.system()`: Linux, Darwin or Windows."""
    home: Path
    folders: Mapping[str, str]
    which: Callable[[str], str | None]
    """The path of a program, as `shutil.which`."""

    def expand(self, path: str) -> Path:
        """A path of the table. `{config}` is the system's folder for settings; `{NAME:path}` a variable or a path."""
        first, _, rest = path.partition("/")
        if first == "~":
            return self.home / rest
        name, _, default = first.strip("{}").partition(":")
        if name == "config":
            return self._config() / rest
        return Path(self.folders.get(name) or self.home / default) / rest

    def _config(self) -> Path:
        if self.system == "Windows":
            return Path(self.folders.get("APPDATA") or self.home / "AppData" / "Roaming")
        if self.system == "Darwin":
            return self.home / "Library" / "Application Support"
        return Path(self.folders.get("XDG_CONFIG_HOME") or self.home / ".config")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A host's file, and where our entry is in it."""

    path: str
    windows: str = ""
    mac: str = ""
    key: str
    format: Format = "json"
    entry: Callable[[Launch], dict[str, Any]] = Launch.as_json
    ours_to_write: bool = True
    """False where the host keeps much else in the file and writes it all the time."""

    def on(self, machine: Machine) -> Path:
        """The path on this machine."""
        special = {"Windows": self.windows, "Darwin": self.mac}.get(machine.system)
        return machine.expand(special or self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A host's own commands.

    `...env` stands for one `--env NAME=VALUE` for each variable, `...command` and `...args` for what starts the server,
    and `...json` for all of it as JSON.
    """

    name: str
    add: tuple[str, ...]
    remove: tuple[str, ...] = ()
    replaces: bool = True
    """Whether adding replaces an entry of the same name."""

    def adding(self, launch: Launch) -> list[str]:
        """The arguments that add our entry."""
        parts = {
            "...env": [part for name, value in launch.env.items() for part in ("--env", f"{name}={value}")],
            "...command": [launch.command],
            "...args": list(launch.args),
            "...json": [json.dumps({"name": NAME, **launch.as_json()})],
        }
        return [part for word in self.add for part in parts.get(word, [word])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host: its own commands where it has them, else its file. `then` says what a person does afterwards."""

    id: str
    title: str
    file: ConfigFile
    program: Program | None = None
    link: Callable[[Launch], str] | None = None
    then: str
    note: str = ""

    def is_found(self, machine: Machine) -> bool:
        """Whether the host seems to be installed: its program is on the path, or its folder exists."""
        has_program = self.program is not None and machine.which(self.program.name) is not None
        return has_program or self.file.on(machine).exists() or self._has_folder(machine)

    def _has_folder(self, machine: Machine) -> bool:
        folder = self.file.on(machine).parent
        return folder != machine.home and folder.exists()


def base64_link(start: str) -> Callable[[Launch], str]:
    """A link whose configuration is base64 of JSON, as Cursor and LM Studio read it."""

    def link(launch: Launch) -> str:
        packed = base64.b64encode(json.dumps(launch.as_json()).encode()).decode()
        return f"{start}?name={NAME}&config={quote(packed, safe='')}"

    return link


def vscode_link(launch: Launch) -> str:
    """A link whose whole query is JSON, as VS Code reads it."""
    return f"vscode:mcp/install?{quote(json.dumps({'name': NAME, **launch.as_json()}), safe='')}"
