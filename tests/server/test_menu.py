"""The prompts that a person picks from a menu, and what is offered for their arguments, through a real client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from conftest import PROTOCOLS, Caller
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, PromptReference, ResourceTemplateReference, TextContent

from mj_mcp.server.menu import MOST_PICTURES, PROMPTS
from mj_mcp.server.tools import TOOLS
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

NEEDED = {"make_picture": "brief", "make_series": "theme", "vary_theme": "theme"}
"""The argument that each prompt cannot do without."""


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def text(caller: Caller, name: str, **arguments: str) -> str:
    """What a prompt tells the model."""
    (message,) = (await caller.client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    return message.content.text


async def refusal(caller: Caller, name: str, arguments: dict[str, str] | None) -> str:
    """The message of a JSON-RPC error about the parameters."""
    with pytest.raises(MCPError) as failure:
        await caller.client.get_prompt(name, arguments)
    assert failure.value.error.code == INVALID_PARAMS
    return failure.value.error.message


async def offered(caller: Caller, prompt: str, argument: str, beginning: str = "") -> list[str]:
    reference = PromptReference(name=prompt)
    return (await caller.client.complete(reference, {"name": argument, "value": beginning})).completion.values


async def finished(sim: Simulator, caller: Caller, prompt: str) -> str:
    """The id of a new grid that has succeeded."""
    begun = await caller.task("generate_image", prompt=prompt, wait_seconds=0)
    sim.finish(begun["task_id"])
    done = await caller.task("get_task", task_id=begun["task_id"], wait_seconds=10)
    assert done["status"] == "succeeded"
    return str(begun["task_id"])


async def test_each_prompt_carries_what_the_person_chose(protocol: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, protocol=protocol) as caller:
        picture = await text(caller, "make_picture", brief="a blue mug for a shop", aspect_ratio="3:2")
        series = await text(caller, "make_series", theme="four birds", count="3", style_reference="42#1", version="7")
        varied = await text(caller, "vary_theme", theme="a lighthouse", picture="42#2")
        looked = await text(caller, "catch_up", since="7d")
    assert "from this brief: a blue mug for a shop\n" in picture
    assert 'Pass aspect_ratio="3:2" in every call' in picture
    assert "a series of 3 Midjourney pictures that look like one set: four birds\n" in series
    assert 'Pass version="7", style_reference=["42#1"] in every call' in series
    assert "Draw the first one alone" not in series
    assert "Make 4 variations on a theme with Midjourney: a lighthouse\n" in varied
    assert 'image_urls=["42#2"]' in varied
    assert 'list_tasks with since="7d"' in looked
    assert "Do not submit anything" in looked
    assert sim.requests == []


async def test_a_series_without_a_style_sets_one_first(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        series = await text(caller, "make_series", theme="four birds")
    assert 'Pass that picture as style_reference=["TASK_ID#INDEX"] in all the others' in series


async def test_prompts_for_several_jobs_ask_before_the_first(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        for name in ("make_series", "vary_theme"):
            said = await text(caller, name, theme="birds", count="5")
            assert "wait for my yes: each of the 5 jobs costs money" in said
            assert said.index("wait for my yes") < said.index("Submit each")


async def test_prompts_name_only_tools_that_there_are(sim: Simulator, connect: Connect) -> None:
    """And the arguments that they tell the model to pass are arguments of `generate_image`."""
    names = {spec.name for spec in TOOLS}
    async with connect(sim) as caller:
        surface = {tool.name: tool for tool in (await caller.client.list_tools()).tools}
        said = " ".join(
            [await text(caller, name, **{NEEDED[name]: "birds"} if name in NEEDED else {}) for name in PROMPTS]
        )
    mentioned = {word.strip(".,()`") for word in said.split() if "_" in word and "=" not in word}
    assert mentioned - {"aspect_ratio"} <= names
    passed = {"aspect_ratio", "version", "style_reference", "image_urls", "no", "wait_seconds"}
    assert passed <= surface["generate_image"].input_schema["properties"].keys()


@pytest.mark.parametrize("arguments", [None, {}, {"brief": "  ", "theme": "\n"}], ids=["none", "empty", "blank"])
@pytest.mark.parametrize("name", NEEDED)
async def test_a_missing_argument_is_named(
    name: str, arguments: dict[str, str] | None, protocol: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, protocol=protocol) as caller:
        assert await refusal(caller, name, arguments) == f"`{NEEDED[name]}` must be given."


async def test_blank_fields_of_a_form_are_left_out(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        filled = await text(caller, "make_picture", brief="a mug", aspect_ratio="", version=" ")
        assert filled == await text(caller, "make_picture", brief="a mug")
        assert await text(caller, "make_picture", brief="null")
        assert await text(caller, "catch_up", since="") == await text(caller, "catch_up")


WRONG: list[tuple[str, dict[str, str], list[str]]] = [
    ("make_series", {"count": "many"}, ["`theme` must be given.", "`count` must be a whole number", '"many"']),
    ("make_series", {"theme": "birds", "count": "9"}, [f"`count` must be between 2 and {MOST_PICTURES}", '"9"']),
    ("make_series", {"theme": "birds", "style_reference": "like that"}, ["`style_reference` must be", '"like that"']),
    ("make_picture", {"aspect_ratio": "wide"}, ["`brief` must be given.", "`aspect_ratio` must be", '"wide"']),
    ("make_picture", {"brief": "a mug", "version": "99"}, ["`version` must be", '"99"']),
    ("make_picture", {"brief": "a" * 4001}, ["`brief` must be at most 4000 characters"]),
    ("make_picture", {"brief": "a mug", "aspectratio": "3:2"}, ["no argument `aspectratio`", "`aspect_ratio`?"]),
    ("vary_theme", {"theme": "a mug", "picture": "a red one"}, ["`picture` must be TASK_ID#INDEX", '"a red one"']),
    ("catch_up", {"since": "yesterday"}, ["`since` must be an age such as 30m", '"yesterday"']),
]
"""A prompt, its arguments, and what the answer says of them."""


async def test_every_wrong_argument_is_named_at_once(protocol: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, protocol=protocol) as caller:
        for name, arguments, problems in WRONG:
            said = await refusal(caller, name, arguments)
            assert [problem for problem in problems if problem not in said] == [], said
    assert sim.requests == []


async def test_an_unknown_prompt_is_answered_with_those_there_are(
    protocol: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, protocol=protocol) as caller:
        said = await refusal(caller, "draw_me", None)
    assert said.startswith("There is no prompt `draw_me`")
    assert said.endswith("The prompts are: make_picture, make_series, vary_theme, catch_up.")


async def test_a_reader_is_offered_only_what_is_free(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_READ_ONLY="1") as caller:
        assert [prompt.name for prompt in (await caller.client.list_prompts()).prompts] == ["catch_up"]
        assert "The prompts are: catch_up." in await refusal(caller, "make_picture", {"brief": "a mug"})


async def test_choices_are_offered_by_what_was_typed(protocol: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, protocol=protocol) as caller:
        assert await offered(caller, "make_picture", "aspect_ratio", "3:") == ["3:2", "3:4"]
        assert "8.1" in await offered(caller, "make_series", "version", "8")
        assert await offered(caller, "vary_theme", "count") == ["2", "3", "4", "5", "6", "7", "8"]
        assert await offered(caller, "catch_up", "since", "7") == ["7d"]
        assert await offered(caller, "make_picture", "brief", "a") == []
        assert await offered(caller, "make_picture", "no_such") == []
        assert await offered(caller, "no_such", "brief") == []


async def test_every_choice_that_is_offered_is_accepted(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        for name, prompt in PROMPTS.items():
            needed = {NEEDED[name]: "birds"} if name in NEEDED else {}
            for argument in prompt.takes:
                for value in argument.suggested:
                    assert value in await text(caller, name, **needed, **{argument.name: value})


async def test_pictures_of_finished_tasks_are_offered(protocol: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim, protocol=protocol, MJ_POLL_SECONDS="0.5") as caller:
        task_id = await finished(sim, caller, "a mug")
        await caller.task("generate_image", prompt="a jug", wait_seconds=0)  # still open, so without pictures
        pictures = [f"{task_id}#{index}" for index in (1, 2, 3, 4)]
        assert await offered(caller, "vary_theme", "picture") == pictures
        assert await offered(caller, "make_series", "style_reference", f"{task_id}#2") == [pictures[1]]
        assert await text(caller, "vary_theme", theme="a mug", picture=pictures[1])
        template = ResourceTemplateReference(uri="mj://tasks/{task_id}/images/{index}")
        asked: dict[str, Any] = {"argument": {"name": "index", "value": ""}}
        found = await caller.client.complete(template, **asked, context_arguments={"task_id": task_id})
        assert found.completion.values == ["1", "2", "3", "4"]
        assert (await caller.client.complete(template, **asked)).completion.values == []
