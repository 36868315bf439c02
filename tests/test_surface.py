"""The published surface: its snapshot, its budget, and the rules that hold for every tool.

A change of a tool shows as a diff of `snapshots/tools.json`; `make snapshots` writes it anew.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
from conftest import Caller
from pydantic import BaseModel

from mj_mcp.server.render import SPENDING_TOOLS
from mj_mcp.server.shapes import FailureView, ImageView, NextCall, TaskView
from mj_mcp.server.tools import build_tools
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import TASKS

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

SNAPSHOT = Path(__file__).parent / "snapshots" / "tools.json"
WRITE = os.environ.get("MJ_WRITE_SNAPSHOTS") == "1"
"""Read at import: no MJ_ variable of a developer's reaches a test itself."""
IN_CI = bool(os.environ.get("CI"))

BUDGET_TOKENS = 3_500
CHARACTERS_PER_TOKEN = 4
"""No tokenizer library ships its vocabulary offline. Four characters a token is what such libraries give for JSON
schemas of English, a little on the high side of the truth."""


@pytest.fixture
async def surface(sim: Simulator, connect: Connect) -> dict[str, Any]:
    """Everything that a client is shown before its first call."""
    async with connect(sim) as caller:
        client = caller.client
        lists: dict[str, Sequence[BaseModel]] = {
            "tools": (await client.list_tools()).tools,
            "resources": (await client.list_resources()).resources,
            "resource_templates": (await client.list_resource_templates()).resource_templates,
            "prompts": (await client.list_prompts()).prompts,
        }
        return {
            "instructions": client.instructions,
            **{
                name: [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
                for name, items in lists.items()
            },
        }


@pytest.fixture
def tools(surface: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tool["name"]: tool for tool in surface["tools"]}


def pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def schemas(schema: object, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within a schema, with its place."""
    if isinstance(schema, dict):
        yield where, schema
        for name, value in schema.items():
            yield from schemas(value, f"{where}/{name}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from schemas(value, f"{where}/{number}")


async def test_the_surface_is_the_committed_one(surface: dict[str, Any]) -> None:
    now = pretty(surface)
    if WRITE:
        assert not IN_CI, "snapshots are written at the desk and reviewed, never by CI"
        SNAPSHOT.write_text(now, encoding="utf-8")
    committed = SNAPSHOT.read_text(encoding="utf-8")
    lines = difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "now", lineterm="", n=4)
    assert now == committed, "\n".join(["the published surface changed; if it should: make snapshots", *lines])


async def test_the_list_of_tools_keeps_to_its_budget(surface: dict[str, Any]) -> None:
    """It is paid for in every conversation."""
    text = json.dumps(surface["tools"], ensure_ascii=False, separators=(",", ":"))
    tokens = len(text) / CHARACTERS_PER_TOKEN
    assert tokens <= BUDGET_TOKENS, f"about {tokens:.0f} tokens"


async def test_instructions_keep_to_a_budget(surface: dict[str, Any]) -> None:
    assert len(surface["instructions"]) <= 2_000


async def test_every_tool_has_a_title_and_says_whether_it_costs(tools: dict[str, dict[str, Any]]) -> None:
    for name, tool in tools.items():
        assert tool["title"], name
        assert tool["description"].endswith("Costs money." if name in SPENDING_TOOLS else "Free."), name
        assert len(tool["description"]) <= 300, name


async def test_every_annotation_is_given_and_true(tools: dict[str, dict[str, Any]]) -> None:
    for name, tool in tools.items():
        spends = name in SPENDING_TOOLS
        assert tool["annotations"] == {
            "readOnlyHint": not spends and name != "save_images",
            "destructiveHint": False,
            "idempotentHint": not spends,
            "openWorldHint": True,
        }, name


async def test_every_input_field_has_a_description(tools: dict[str, dict[str, Any]]) -> None:
    for name, tool in tools.items():
        for field, schema in tool["inputSchema"]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


async def test_no_input_schema_lets_an_unknown_argument_pass(tools: dict[str, dict[str, Any]]) -> None:
    assert {name: tool["inputSchema"].get("additionalProperties") for name, tool in tools.items()} == dict.fromkeys(
        tools, False
    )


def test_the_sdks_argument_model_is_still_where_we_close_it() -> None:
    """`fn_metadata.arg_model` is no published API: what it forbids is what a call really refuses."""
    for tool in build_tools(spends=True, saves=True):
        assert tool.fn_metadata.arg_model.model_config["extra"] == "forbid"
        with pytest.raises(ValueError, match=r"extra_forbidden|not permitted"):
            tool.fn_metadata.validate_arguments({"no_such_argument": 1})


async def test_an_unknown_argument_is_refused_by_name_and_nothing_is_bought(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        for tool in (await caller.client.list_tools()).tools:
            error = await caller.error(tool.name, no_such_argument=1)
            assert error["code"] == "invalid_request"
            assert "no_such_argument" in error["message"]
    assert sim.requests == []


async def test_every_schema_is_valid_and_typed_all_the_way_down(tools: dict[str, dict[str, Any]]) -> None:
    for name, tool in tools.items():
        for side in ("inputSchema", "outputSchema"):
            jsonschema.Draft202012Validator.check_schema(tool[side])
            for where, schema in schemas(tool[side]["properties"]):
                if where.count("/") == 1:
                    assert "type" in schema, f"{name} {side}{where} has no type"


async def test_no_schema_refers_or_repeats_itself_in_titles(tools: dict[str, dict[str, Any]]) -> None:
    """Some hosts do not follow `$ref`; titles that repeat a field's name are paid for and say nothing."""
    for name, tool in tools.items():
        for side in ("inputSchema", "outputSchema"):
            for where, schema in schemas(tool[side]):
                assert "$ref" not in schema, f"{name} {side}{where}"
                assert not isinstance(schema.get("title"), str), f"{name} {side}{where}"


async def test_the_schema_of_tasks_names_every_published_field(tools: dict[str, dict[str, Any]]) -> None:
    published = tools["get_task"]["outputSchema"]
    assert set(published["properties"]) == set(TaskView.model_fields)
    assert set(published["required"]) == set(TaskView.model_fields)
    assert set(published["properties"]["images"]["items"]["properties"]) == set(ImageView.model_fields)
    assert set(published["properties"]["next"]["items"]["properties"]) == set(NextCall.model_fields)
    assert set(published["properties"]["failure"]["properties"]) == set(FailureView.model_fields)
    assert set(tools["list_tasks"]["inputSchema"]["properties"]["status"]["enum"]) == {*TASKS, None}


async def test_results_are_what_the_output_schemas_promise(
    sim: Simulator, connect: Connect, tools: dict[str, dict[str, Any]]
) -> None:
    async with connect(sim, MJ_POLL_SECONDS="0.5") as caller:
        grid = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(grid["task_id"])
        of_grid = {"task_id": grid["task_id"]}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("get_task", {**of_grid, "wait_seconds": 10}),
            ("upscale_image", {**of_grid, "index": 2, "wait_seconds": 0}),
            ("vary_image", {**of_grid, "index": 3, "wait_seconds": 0}),
            ("reroll", {**of_grid, "wait_seconds": 0}),
            ("simple_change", {"content": f"{grid['task_id']} U1", "wait_seconds": 0}),
            ("list_tasks", {"limit": 2}),
            ("view_image", {**of_grid, "index": 4}),
            ("save_images", of_grid),
        ]
        results = [("generate_image", grid)] + [(tool, await caller.task(tool, **given)) for tool, given in calls]
    assert {tool for tool, _ in results} == set(tools)
    of_pictures = {"view_image", "save_images"}
    for tool, content in results:
        closed = {"additionalProperties": False} if tool in of_pictures else {}
        jsonschema.validate(content, tools[tool]["outputSchema"] | closed)
        for task in content.get("tasks", [] if tool in of_pictures else [content]):
            jsonschema.validate(task, tools["get_task"]["outputSchema"] | {"additionalProperties": False})


async def test_next_names_only_calls_that_the_schemas_accept(
    sim: Simulator, connect: Connect, tools: dict[str, dict[str, Any]]
) -> None:
    async with connect(sim) as caller:
        begun = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(begun["task_id"])
        done = await caller.task("get_task", task_id=begun["task_id"], wait_seconds=10)
    assert [call["tool"] for call in begun["next"]] == ["get_task"]
    assert [call["tool"] for call in done["next"]] == [
        "view_image",
        "save_images",
        "upscale_image",
        "vary_image",
        "reroll",
    ]
    for call in begun["next"] + done["next"]:
        jsonschema.validate(call["arguments"], tools[call["tool"]]["inputSchema"])


async def test_a_read_only_server_offers_and_proposes_nothing_that_spends(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(task["task_id"])
    async with connect(sim, MJ_READ_ONLY="1") as caller:
        offered = {tool.name for tool in (await caller.client.list_tools()).tools}
        assert offered == {"get_task", "list_tasks", "view_image", "save_images"}
        done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
        assert done["status"] == "succeeded"
        assert [call["tool"] for call in done["next"]] == ["view_image", "save_images"]
        for tool, arguments in (("generate_image", {"prompt": "another"}), ("reroll", {"task_id": task["task_id"]})):
            refused = await caller.error(tool, **arguments)
            assert refused["code"] == "limit_reached"
            assert "this server is read-only (MJ_READ_ONLY)" in refused["message"]
            assert tool in refused["message"]
    assert len(sim.ledger) == 1
