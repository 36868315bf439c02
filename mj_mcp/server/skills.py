"""The skill that a host's model may load: how to work with these tools well (`io.modelcontextprotocol/skills`).

Owns where its file is and how it is listed (SEP-2640; github.com/modelcontextprotocol/ext-skills, stable). The file is
the one that plugins bring: `skills/` of the repository, which the wheel holds beside the package's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, ResourceBinding
from mcp.server.mcpserver.resources import FileResource
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, PaginatedRequestParams, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mj_mcp.errors import shortened

SKILL_URI = "skill://midjourney/SKILL.md"

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDER = _PACKAGE if (_PACKAGE / "skills").is_dir() else _PACKAGE.parent
SKILL_FILE = _FOLDER / "skills" / "midjourney" / "SKILL.md"

_FRESH: dict[str, Any] = {"ttlMs": 300_000, "cacheScope": "public"}
"""It changes with the server's version only, and is the same for every caller."""

Request = ServerRequestContext[Any, Any]


class SkillParams(RequestParams):
    """The parameters of `skills/get`."""

    uri: str


class Skills(Extension):
    """The extension, with one skill of one file."""

    identifier = "io.modelcontextprotocol/skills"

    def resources(self) -> Sequence[ResourceBinding]:
        """The file of the skill."""
        about = frontmatter(SKILL_FILE.read_text(encoding="utf-8"))
        file = FileResource(
            uri=SKILL_URI,
            name=about["name"],
            description=about["description"],
            mime_type="text/markdown",
            path=SKILL_FILE,
            encoding="utf-8",
        )
        return [ResourceBinding(file)]

    def methods(self) -> Sequence[MethodBinding]:
        """`skills/list` and `skills/get`."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        return (
            MethodBinding("skills/list", PaginatedRequestParams, self._list, versions),
            MethodBinding("skills/get", SkillParams, self._get, versions),
        )

    async def _list(self, _ctx: Request, _params: PaginatedRequestParams) -> dict[str, Any]:
        return {"skills": [_entry()], **_FRESH}

    async def _get(self, _ctx: Request, params: SkillParams) -> dict[str, Any]:
        if params.uri != SKILL_URI:
            raise MCPError(INVALID_PARAMS, f"uri: there is no skill {shortened(params.uri)}; there is {SKILL_URI}")
        return {"skill": _entry(), **_FRESH}


def frontmatter(text: str) -> dict[str, str]:
    """The fields at the top of the file, which are plain strings of one line each."""
    lines = text.split("---\n", 2)[1].splitlines()
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def _entry() -> dict[str, Any]:
    raw = SKILL_FILE.read_bytes()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return {
        "uri": SKILL_URI,
        "frontmatter": frontmatter(raw.decode()),
        "resources": [{"uri": SKILL_URI, "digest": digest, "size": len(raw)}],
    }
