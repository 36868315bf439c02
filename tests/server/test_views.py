"""What hosts are told of the view, and the rules that its file keeps. What it does is in `tests/views`."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from conftest import PROTOCOLS, Caller
from mcp_types import TextResourceContents

from mj_mcp.server.views import VIEW_FILE, VIEW_URI
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

EXTENSION = "io.modelcontextprotocol/ui"
WITHOUT = {"view_image", "save_images", "get_usage"}
"""Tools whose answers are no tasks."""


async def metas(caller: Caller) -> dict[str, Any]:
    return {tool.name: tool.meta for tool in (await caller.client.list_tools()).tools}


async def test_every_tool_that_yields_tasks_names_the_view_under_both_keys(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        found = await metas(caller)
    named = {"ui": {"resourceUri": VIEW_URI}, "ui/resourceUri": VIEW_URI}
    assert found == {name: None if name in WITHOUT else named for name in found}
    assert found.keys() > WITHOUT


async def test_the_view_is_served_whole_with_its_type_and_a_csp_without_an_address(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller:
        (contents,) = (await caller.client.read_resource(VIEW_URI)).contents
    assert isinstance(contents, TextResourceContents)
    assert contents.mime_type == "text/html;profile=mcp-app"
    assert contents.text == VIEW_FILE.read_text(encoding="utf-8")
    assert contents.meta is not None
    lists = ("connectDomains", "resourceDomains", "frameDomains", "baseUriDomains")
    assert contents.meta["ui"]["csp"] == {name: [] for name in lists} | {"resourceDomains": ["data:"]}
    assert "domain" not in contents.meta["ui"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_both_generations_are_told_of_the_extension(sim: Simulator, connect: Connect, protocol: str) -> None:
    async with connect(sim, protocol=protocol) as caller:
        capabilities = caller.client.server_capabilities
    assert (capabilities.extensions or {}).get(EXTENSION) == {}


async def test_without_the_view_nothing_names_it_and_the_answers_are_the_same(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(task["task_id"])
        await caller.task("get_task", task_id=task["task_id"], wait_seconds=20)
        with_view = await caller.call("list_tasks")
    async with connect(sim, MJ_VIEW="0") as caller:
        without_view = await caller.call("list_tasks")
        assert set((await metas(caller)).values()) == {None}
        assert EXTENSION not in (caller.client.server_capabilities.extensions or {})
        assert VIEW_URI not in {item.uri for item in (await caller.client.list_resources()).resources}
    assert task["task_id"] in str(with_view.content)
    assert without_view.content == with_view.content
    assert without_view.structured_content == with_view.structured_content


def test_the_file_is_small_and_names_no_address() -> None:
    text = VIEW_FILE.read_text(encoding="utf-8")
    assert len(text.encode()) < 60_000
    assert re.findall(r"""(?:https?:|["'(])//[\w.-]+|@import|url\(|<link|\bimport\b|\bfetch\(|XMLHttp""", text) == []


def test_the_file_writes_text_only_as_text() -> None:
    text = VIEW_FILE.read_text(encoding="utf-8")
    markup = "innerHTML|outerHTML|insertAdjacentHTML|setHTML|document.write|createContextualFragment|DOMParser"
    assert re.findall(rf"{markup}|eval\(|new Function", text) == []
