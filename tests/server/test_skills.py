"""The skill as hosts find it: listed, read, and the same file in the checkout, the wheel and the plugins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from conftest import Caller
from mcp.shared.exceptions import MCPError
from mcp_types import Request, RequestParams, Result, TextResourceContents
from pydantic import ConfigDict
from ruamel.yaml import YAML

from mj_mcp.server.skills import SKILL_FILE, SKILL_URI, frontmatter
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


class Params(RequestParams):
    uri: str | None = None


class SkillRequest(Request[Params, str]):
    method: str
    params: Params


class AnyResult(Result):
    model_config = ConfigDict(extra="allow")


async def ask(caller: Caller, method: str, uri: str | None = None) -> dict[str, Any]:
    answer = await caller.client.session.send_request(SkillRequest(method=method, params=Params(uri=uri)), AnyResult)
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meta"})


async def test_the_skill_is_listed_with_the_digest_of_the_file_that_is_read(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        listed = await ask(caller, "skills/list")
        got = await ask(caller, "skills/get", SKILL_URI)
        (contents,) = (await caller.client.read_resource(SKILL_URI)).contents
    assert isinstance(contents, TextResourceContents)
    raw = contents.text.encode()
    (skill,) = listed["skills"]
    assert got["skill"] == skill
    assert (listed["resultType"], listed["cacheScope"]) == ("complete", "public")
    assert skill["resources"] == [
        {"uri": SKILL_URI, "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}", "size": len(raw)}
    ]
    assert contents.mime_type == "text/markdown"
    assert raw == SKILL_FILE.read_bytes()


def test_the_fields_are_what_a_reader_of_yaml_finds() -> None:
    text = SKILL_FILE.read_text(encoding="utf-8")
    found = frontmatter(text)
    assert found == YAML(typ="safe").load(text.split("---\n")[1])
    assert f"skill://{found['name']}/SKILL.md" == SKILL_URI


async def test_an_unknown_skill_is_refused_with_the_one_that_there_is(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        with pytest.raises(MCPError, match=re.escape(f"there is {SKILL_URI}")) as raised:
            await ask(caller, "skills/get", "skill://other/SKILL.md")
    assert raised.value.code == -32602


async def test_the_extension_is_declared(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        assert "io.modelcontextprotocol/skills" in (caller.client.server_capabilities.extensions or {})
