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

from mj_mcp.server.shapes import FailureView, ImageView, NextCall, TaskView
from mj_mcp.server.tools import SPENDING_TOOLS
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import TASKS

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

SNAPSHOT = Path(__file__).parent / "snapshots" / "tools.json"
WRITE = os.environ.get("MJ_WRITE_SNAPSHOTS") == "1"
"""Read at import: no MJ_ variable of a developer's reaches a test itself."""
IN_CI = bool(os.environ.get("CI"))

BUDGET_TOKENS = 3_700
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
    """Every object within a schema, with its path."""
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


PLAIN_TYPES = {"string", "integer", "number", "boolean", "array", "object"}


async def test_every_schema_is_one_that_every_host_accepts(tools: dict[str, dict[str, Any]]) -> None:
    """Each of these lost a real client: type lists, null, `anyOf`, `additionalProperties`, `$defs`, `enum`."""
    for name, tool in tools.items():
        for side in ("inputSchema", "outputSchema"):
            for where, schema in schemas(tool.get(side, {})):
                if where.endswith("/properties"):
                    continue
                assert schema.get("type", "object") in PLAIN_TYPES, f"{name} {side}{where}"
                refused = {"anyOf", "oneOf", "allOf", "$defs", "$ref", "additionalProperties", "enum", "const"}
                assert refused.isdisjoint(schema), f"{name} {side}{where}"


async def test_an_optional_argument_is_missing_from_required_and_has_no_null(tools: dict[str, dict[str, Any]]) -> None:
    required = {name: tool["inputSchema"].get("required", []) for name, tool in tools.items()}
    assert required == {
        "generate_image": ["prompt"],
        "upscale_image": ["task_id", "index"],
        "vary_image": ["task_id", "index"],
        "reroll": ["task_id"],
        "simple_change": ["content"],
        "press_button": ["task_id", "button"],
        "get_task": ["task_id"],
        "wait_for_tasks": ["task_ids"],
        "list_tasks": [],
        "view_image": [],
        "get_usage": [],
        "save_images": ["task_id"],
    }


async def test_view_image_alone_has_no_output_schema(tools: dict[str, dict[str, Any]]) -> None:
    """Clients that hand the model only structured content would leave its picture out."""
    assert [name for name, tool in tools.items() if "outputSchema" not in tool] == ["view_image"]


async def test_an_unknown_argument_is_refused_by_name_and_nothing_is_bought(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        for tool in (await caller.client.list_tools()).tools:
            error = await caller.error(tool.name, no_such_argument=1)
            assert error["code"] == "invalid_request"
            assert "no_such_argument" in error["message"]
    assert sim.requests == []


async def test_every_schema_is_valid_and_typed_all_the_way_down(tools: dict[str, dict[str, Any]]) -> None:
    for name, tool in tools.items():
        for side in ("inputSchema", "outputSchema") if name != "view_image" else ("inputSchema",):
            jsonschema.Draft202012Validator.check_schema(tool[side])
            for where, schema in schemas(tool[side]["properties"]):
                if where.count("/") == 1:
                    assert "type" in schema, f"{name} {side}{where} has no type"


async def test_no_schema_repeats_itself_in_titles(tools: dict[str, dict[str, Any]]) -> None:
    """Titles that repeat a field's name are paid for and say nothing."""
    for name, tool in tools.items():
        for side in ("inputSchema", "outputSchema"):
            for where, schema in schemas(tool.get(side, {})):
                assert not isinstance(schema.get("title"), str), f"{name} {side}{where}"


async def test_the_schema_of_tasks_names_every_published_field(tools: dict[str, dict[str, Any]]) -> None:
    published = tools["get_task"]["outputSchema"]
    assert set(published["properties"]) == set(TaskView.model_fields)
    assert set(published["required"]) == {"message", "submission_id", "status", "images", "warnings", "next"}
    assert set(published["properties"]["images"]["items"]["properties"]) == set(ImageView.model_fields)
    assert set(published["properties"]["next"]["items"]["properties"]) == set(NextCall.model_fields)
    assert set(published["properties"]["failure"]["properties"]) == set(FailureView.model_fields)
    words = tools["list_tasks"]["inputSchema"]["properties"]["status"]["description"]
    assert all(status in words for status in TASKS)


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
            ("wait_for_tasks", {"task_ids": [grid["task_id"], "nobody-s"], "wait_seconds": 0}),
            ("get_usage", {}),
            ("save_images", of_grid),
        ]
        results = [("generate_image", grid)] + [(tool, await caller.task(tool, **given)) for tool, given in calls]
    # whole/test_buttons.py presses buttons: this proxy has none
    assert {tool for tool, _ in results} | {"view_image", "press_button"} == set(tools)
    closed = {"additionalProperties": False}
    for tool, content in results:
        yields_a_task = set(tools[tool]["outputSchema"]["properties"]) == {"message", "task_id", "status"}
        jsonschema.validate(content, tools[tool]["outputSchema"] | ({} if yields_a_task else closed))
        if yields_a_task:
            jsonschema.validate(content, tools["get_task"]["outputSchema"] | closed)


async def test_a_field_without_a_value_is_left_out(sim: Simulator, connect: Connect) -> None:
    def empty(value: object) -> bool:
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return value is None or any(map(empty, items))

    async with connect(sim) as caller:
        begun = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(begun["task_id"])
        done = await caller.task("get_task", task_id=begun["task_id"], wait_seconds=10)
        listed = await caller.task("list_tasks")
        used = await caller.task("get_usage")
    assert not any(map(empty, [begun, done, listed, used]))
    always = {"message", "submission_id", "status", "images", "warnings", "next"}
    assert always <= begun.keys()
    assert always <= done.keys()


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
        assert offered == {"get_task", "wait_for_tasks", "list_tasks", "view_image", "get_usage", "save_images"}
        done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
        assert done["status"] == "succeeded"
        assert [call["tool"] for call in done["next"]] == ["view_image", "save_images"]
        for tool, arguments in (("generate_image", {"prompt": "another"}), ("reroll", {"task_id": task["task_id"]})):
            refused = await caller.error(tool, **arguments)
            assert refused["code"] == "limit_reached"
            assert "this server is read-only (MJ_READ_ONLY)" in refused["message"]
            assert tool in refused["message"]
    assert len(sim.ledger) == 1
