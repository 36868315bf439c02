"""Buttons of the proxy: pressed by their newest ids, paid once, refused before anything is sent, and what they make.

The server through a real client; the simulated proxy has the buttons that real ones have.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
from conftest import IMAGE_EDGE, KEY, PROTOCOLS, Caller
from mcp_types import ImageContent, ResourceLink
from views import SUBMISSION, Like, texts

from mj_mcp.app import open_studio
from mj_mcp.server.render import Presentation, task_view
from mj_mcp.server.tools import TOOLS
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator, faults
from mj_mcp.studio import Call, Result
from mj_mcp.tasks import Image, Kind, Status, Task

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

AUTO = {"MJ_PROXY_DIALECT": "auto"}
V7_PICTURE = [
    "Upscale (Subtle)",
    "Upscale (Creative)",
    "Vary (Subtle)",
    "Vary (Strong)",
    "Zoom Out 2x",
    "Zoom Out 1.5x",
    "Custom Zoom",
    "Pan left",
    "Pan right",
    "Pan up",
    "Pan down",
    "Animate (High motion)",
    "Animate (Low motion)",
]


def proxy(dialect: Any = "plus", **habits: Any) -> Simulator:
    return Simulator(dialect=dialect, key=KEY, job_seconds=None, image_edge=IMAGE_EDGE, **habits)


async def made(sim: Simulator, caller: Caller, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool that spends has bought, once it has succeeded."""
    begun = await caller.task(tool, **arguments, wait_seconds=0)
    sim.finish(begun["task_id"])
    done = await caller.task("get_task", task_id=begun["task_id"], wait_seconds=20)
    assert done["status"] == "succeeded"
    return done


async def picture(sim: Simulator, caller: Caller, prompt: str = "a mug") -> dict[str, Any]:
    """One upscaled picture. Its buttons are those that make other things of it."""
    grid = await made(sim, caller, "generate_image", prompt=prompt)
    return await made(sim, caller, "upscale_image", task_id=grid["task_id"], index=2)


def sent(sim: Simulator) -> list[tuple[str, dict[str, Any]]]:
    """Every submit: its endpoint and its body."""
    return [(seen.path.removeprefix("/mj/submit/"), seen.json) for seen in sim.submits()]


def tools_of(task: dict[str, Any]) -> list[str]:
    return [call["tool"] for call in task["next"]]


# --- a press


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_button_is_pressed_by_its_label_with_the_id_that_it_has_now(protocol: str, connect: Connect) -> None:
    async with proxy(changing_buttons=True) as sim, connect(sim, protocol=protocol, **AUTO) as caller:
        grid = await made(sim, caller, "generate_image", prompt="a mug")
        large = await made(sim, caller, "upscale_image", task_id=grid["task_id"], index=2)
        wider = await made(sim, caller, "press_button", task_id=large["task_id"], button="zoom  OUT 2x")
        schemas = {tool.name: tool.output_schema for tool in (await caller.client.list_tools()).tools}
    assert sent(sim) == [
        ("imagine", {"prompt": "a mug", "state": SUBMISSION}),
        (
            "action",
            {
                "taskId": grid["task_id"],
                "customId": Like(r"MJ::JOB::upsample::2::[0-9a-f-]{36}"),
                "state": SUBMISSION,
            },
        ),
        (
            "action",
            {
                "taskId": large["task_id"],
                "customId": Like(r"MJ::Outpaint::50::1::[0-9a-f-]{36}::SOLO"),
                "state": SUBMISSION,
            },
        ),
    ]
    assert (wider["kind"], wider["button"], wider["parent_id"]) == ("button", "zoom OUT 2x", large["task_id"])
    assert wider["prompt"] == "a mug"
    assert len(wider["images"]) == 4
    jsonschema.validate(wider, schemas["get_task"])
    jsonschema.validate(wider, schemas["press_button"])


async def test_a_prompt_that_no_button_asked_for_is_not_sent_and_the_result_says_so(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        wider = await made(sim, caller, "press_button", task_id=large["task_id"], button="Pan up", prompt="a jug")
    assert [endpoint for endpoint, _ in sent(sim)] == ["imagine", "action", "action"]
    assert wider["warnings"] == ["this button asks for no prompt: the one that was given was not used"]


async def test_a_region_cannot_be_chosen_so_its_button_is_not_there(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        error = await caller.error("press_button", task_id=large["task_id"], button="Vary (Region)", prompt="a jug")
    assert error["code"] == "unsupported"
    assert len(sim.submits()) == 2


async def test_results_list_the_buttons_and_propose_only_what_they_offer(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        grid = await made(sim, caller, "generate_image", prompt="a mug")
        large = await made(sim, caller, "upscale_image", task_id=grid["task_id"], index=2)
        wider = await made(sim, caller, "press_button", task_id=large["task_id"], button="Zoom Out 2x")
        again = texts(await caller.call("get_task", task_id=wider["task_id"]))
    free = ["view_image", "save_images"]
    assert "buttons" not in grid
    assert tools_of(grid) == [*free, "upscale_image", "vary_image", "reroll"]
    assert large["buttons"] == V7_PICTURE
    assert tools_of(large) == [*free, "reroll"]
    assert f"More with press_button, which costs money: {', '.join(V7_PICTURE)}." in large["message"]
    assert "reroll costs money." in large["message"]
    assert "by its index" not in large["message"]
    assert tools_of(wider) == [*free, "upscale_image", "vary_image", "reroll"]
    assert again.startswith(
        f'Button {wider["task_id"]} ("Zoom Out 2x" of {large["task_id"]}) has succeeded: 4 pictures'
    )


async def test_a_read_only_server_names_no_button(connect: Connect) -> None:
    async with proxy() as sim:
        async with connect(sim, **AUTO) as caller:
            large = await picture(sim, caller)
        async with connect(sim, **AUTO, MJ_READ_ONLY="1") as caller:
            shown = await caller.task("get_task", task_id=large["task_id"])
    assert shown["buttons"] == V7_PICTURE  # from the journal
    assert tools_of(shown) == ["view_image", "save_images"]
    assert "press_button" not in shown["message"]


async def test_a_dialog_is_answered_with_the_prompt_under_the_same_id(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        press = {"task_id": large["task_id"], "button": "Custom Zoom"}
        refused = await caller.error("press_button", **press)
        bought = len(sim.submits())
        zoomed = await made(sim, caller, "press_button", **press, prompt="a mug on a table --zoom 1.8 --ar 16:9")
    assert refused["code"] == "unsupported"
    assert 'the button "Custom Zoom" asks for a prompt' in refused["message"]
    assert bought == 2
    assert sent(sim)[2:] == [
        (
            "action",
            {"taskId": large["task_id"], "customId": Like(r"MJ::CustomZoom::[0-9a-f-]{36}"), "state": SUBMISSION},
        ),
        ("modal", {"taskId": zoomed["task_id"], "prompt": "a mug on a table --zoom 1.8 --ar 16:9"}),
    ]
    assert zoomed["prompt"] == "a mug on a table --zoom 1.8 --ar 16:9"


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"button": ""}, ["`button` must be the label of a button, 1 to 60 characters"]),
        ({"button": " \n"}, ["`button` must be the label of a button, 1 to 60 characters"]),
        ({"button": "x" * 61}, ["`button` must be at most 60 characters"]),
        ({"button": 7}, ["`button` must be text"]),
        ({}, ["`button` must be given."]),
        (
            {"button": " ", "prompt": "a mug --zoooom 2"},
            ["`button` must be", "`--zoooom` in the prompt is not a Midjourney flag that is known here"],
        ),
        ({"button": "Custom Zoom", "prompt": "a {red, blue} mug"}, ["a `{a, b}` group starts several"]),
        ({"button": "Custom Zoom", "prompt": "a mug --repeat 4"}, ["`--repeat` starts several"]),
    ],
)
async def test_bad_arguments_are_named_all_at_once_and_nothing_is_sent(
    arguments: dict[str, Any], problems: list[str], sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller:
        error = await caller.error("press_button", task_id="1", **arguments)
    assert error["code"] == "invalid_request"
    for problem in problems:
        assert problem in error["message"]
    assert sim.requests == []


# --- paid once


async def test_the_same_press_is_paid_once_however_the_label_is_written(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = (await picture(sim, caller))["task_id"]
        results: list[dict[str, Any]] = []

        async def press(label: str) -> None:
            results.append(await caller.task("press_button", task_id=large, button=label, wait_seconds=0))

        async with anyio.create_task_group() as group:
            for label in ("Pan left", "PAN LEFT", " pan  left "):
                group.start_soon(press, label)
        assert len(sim.ledger) == 3
        sim.finish(sim.ledger[-1].task_id)
        finished = await caller.task("press_button", task_id=large, button="pan left", wait_seconds=20)
        repeated = await caller.task("press_button", task_id=large, button="Pan left")
        assert len(sim.ledger) == 3
        await caller.task("press_button", task_id=large, button="Pan left", allow_duplicate=True, wait_seconds=0)
        await caller.task("press_button", task_id=large, button="Pan right", wait_seconds=0)
        for prompt in ("a mug --zoom 2", "a mug --zoom 1.5"):
            await caller.task("press_button", task_id=large, button="Custom Zoom", prompt=prompt, wait_seconds=0)
    assert len({result["submission_id"] for result in [*results, finished]}) == 1
    assert repeated["duplicate_of"] == finished["submission_id"]
    assert {"tool": "press_button", "arguments": {"task_id": large, "button": "Pan left", "allow_duplicate": True}} in (
        repeated["next"]
    )
    assert len(sim.ledger) == 7


async def test_a_press_is_counted_and_listed_as_what_it_is(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        up = await made(sim, caller, "press_button", task_id=large["task_id"], button="Upscale (Subtle)")
        used = await caller.task("get_usage")
        listed = await caller.call("list_tasks", limit=1)
        refused = await caller.error("press_button", task_id=large["task_id"], button="Dance")
        after = await caller.task("get_usage")
    assert used["today"] == after["today"] == {"imagine": 1, "upscale": 1, "button": 1, "total": 3}
    assert refused["code"] == "unsupported"
    assert listed.structured_content is not None
    (row,) = listed.structured_content["tasks"]
    assert (row["kind"], row["parent_id"], row["image_count"]) == ("button", large["task_id"], 1)
    assert f'button "Upscale (Subtle)" of {large["task_id"]}: a mug, 1 picture' in texts(listed)
    assert "reroll" in tools_of(up)
    assert "upscale_image" not in tools_of(up)


# --- refused before anything is sent


@pytest.mark.parametrize("dialect", ["gateway", "classic"])
async def test_where_the_proxy_has_no_buttons_a_press_is_refused_and_nothing_is_sent(
    dialect: str, connect: Connect
) -> None:
    async with proxy(dialect) as sim, connect(sim, **AUTO) as caller:
        grid = await made(sim, caller, "generate_image", prompt="a mug")
        refused = await caller.error("press_button", task_id=grid["task_id"], button="Zoom Out 2x")
    assert refused["code"] == "unsupported"
    assert refused["next_step"].endswith("Nothing was submitted or charged.")
    assert [endpoint for endpoint, _ in sent(sim)] == ["imagine"]
    assert "press_button" not in grid["message"]


async def test_a_grid_of_v8_has_no_upscale_and_the_refusal_says_what_it_has(connect: Connect) -> None:
    async with proxy(model="8.2") as sim, connect(sim, **AUTO) as caller:
        grid = await made(sim, caller, "generate_image", prompt="a mug")
        refused = await caller.error("upscale_image", task_id=grid["task_id"], index=2)
        short = await caller.error("simple_change", content=f"{grid['task_id']} U2")
        varied = await made(sim, caller, "vary_image", task_id=grid["task_id"], index=2)
    offered = "does not offer an upscale of picture 2; it offers: rerolls, variations"
    assert refused["code"] == short["code"] == "unsupported"
    assert refused["message"] == short["message"] == f"task {grid['task_id']} {offered}"
    assert tools_of(grid) == ["view_image", "save_images", "vary_image", "reroll"]
    assert "vary_image and reroll cost money." in grid["message"]
    assert len(varied["images"]) == 4
    assert [endpoint for endpoint, _ in sent(sim)] == ["imagine", "action"]


async def test_an_upscaled_picture_has_no_variations_and_a_button_is_named_by_what_it_is(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        varied = await caller.error("vary_image", task_id=large["task_id"], index=1)
        dance = await caller.error("press_button", task_id=large["task_id"], button="Dance")
        letter = await caller.error("press_button", task_id=large["parent_id"], button="U3")
    listed = ", ".join(f'"{label}"' for label in V7_PICTURE)
    assert varied["message"].endswith(f"does not offer a variation of picture 1; it offers: rerolls, {listed}")
    assert dance["message"] == f'task {large["task_id"]} has no button "Dance"; it offers: rerolls, {listed}'
    assert letter["message"] == 'ask for an upscale of picture 3 instead of the button "U3"'
    assert len(sim.submits()) == 2


async def test_a_button_that_died_between_the_fetch_and_the_press_is_rejected_and_can_be_pressed_again(
    connect: Connect,
) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = (await picture(sim, caller))["task_id"]
        press = {"task_id": large, "button": "Zoom Out 2x", "wait_seconds": 0}
        renewed = asyncio.Event()
        sim.inject("fetch", faults.held(renewed))
        errors = []

        async def too_late() -> None:
            errors.append(await caller.error("press_button", **press))

        async with anyio.create_task_group() as group:
            group.start_soon(too_late)
            await sim.until(lambda: sim.fired["held"] == 1)
            sim.renew_buttons(large)
            renewed.set()
        assert errors[0]["code"] == "rejected"
        assert len(sim.ledger) == 2
        await caller.task("press_button", **press)
    assert len(sim.ledger) == 3


async def test_a_parent_that_the_proxy_has_forgotten_is_not_sent(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        large = (await picture(sim, caller))["task_id"]
        sim.forget(large)
        error = await caller.error("press_button", task_id=large, button="Zoom Out 2x")
    assert error["code"] == "task_not_found"
    assert len(sim.submits()) == 2


async def test_a_relay_is_asked_for_any_button_but_a_video(connect: Connect) -> None:
    async with proxy("newapi") as sim, connect(sim, **AUTO) as caller:
        large = await picture(sim, caller)
        video = await caller.error("press_button", task_id=large["task_id"], button="Animate (High motion)")
        assert len(sim.submits()) == 2
        zoomed = await made(
            sim, caller, "press_button", task_id=large["task_id"], button="Custom Zoom", prompt="a mug --zoom 2"
        )
    assert video["code"] == "unsupported"
    assert "does not pass on buttons that make videos" in video["message"]
    assert [endpoint for endpoint, _ in sent(sim)[2:]] == ["action", "modal"]
    assert len(zoomed["images"]) == 4


# --- videos


async def test_a_video_is_a_link_with_its_kind_and_nothing_promises_a_picture(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO, MJ_RESOURCE_LINKS="1") as caller:
        large = await picture(sim, caller)
        video = await made(sim, caller, "press_button", task_id=large["task_id"], button="Animate (Low motion)")
        shown = await caller.call("get_task", task_id=video["task_id"])
        waited = await caller.call("wait_for_tasks", task_ids=[video["task_id"], large["task_id"]])
        alone = await caller.call("wait_for_tasks", task_ids=[video["task_id"]])
        listed = texts(await caller.call("list_tasks", limit=1))
        viewed = await caller.error("view_image", task_id=video["task_id"])
        saved = await caller.error("save_images", task_id=video["task_id"])
    assert [image["media_type"] for image in video["images"]] == ["video/mp4"] * 4
    links = [image["url"] for image in video["images"]]
    assert all(re.search(r"/[1-4]\.mp4\?", link) for link in links)
    for number, link in enumerate(links, 1):
        assert f"Video {number}: {link}" in video["message"]
    assert "has succeeded: 4 videos." in video["message"]
    assert "view_image" not in video["message"]
    assert tools_of(video) == ["reroll"]
    assert not [block for block in (*shown.content, *alone.content) if isinstance(block, ImageContent)]
    assert [block.uri for block in shown.content if isinstance(block, ResourceLink)] == links
    assert len([block for block in waited.content if isinstance(block, ImageContent)]) == 1
    assert "Warning" not in texts(waited)
    assert ", 4 videos" in listed
    assert viewed["code"] == saved["code"] == "image_unavailable"
    assert not [seen for seen in sim.requests if ".mp4" in seen.path]


def test_this_servers_links_are_for_pictures_only() -> None:
    images = (Image(1, "https://cdn.example/1.png"), Image(2, "https://cdn.example/2.mp4", "video/mp4"))
    task = Task(submission_id="sub_1", status=Status.SUCCEEDED, updated_at=0.0, task_id="1", images=images)
    shown = task_view(Result(task), None, Presentation(TOOLS, link=lambda _, image: f"https://ours/{image.index}"))
    assert [image["url"] for image in shown["images"]] == ["https://ours/1", "https://cdn.example/2.mp4"]


# --- tasks that were bought elsewhere


async def test_an_adopted_task_has_its_kind_prompt_parent_and_buttons(
    connect: Connect, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    async with proxy() as sim:
        async with connect(sim, **AUTO) as caller:
            large = await picture(sim, caller)
            wider = await made(sim, caller, "press_button", task_id=large["task_id"], button="Zoom Out 2x")
        async with open_studio(settings_for(sim.url, **AUTO, MJ_DATA_DIR=str(tmp_path / "other"))) as studio:
            call = Call(wait_seconds=20)
            adopted = (await studio.recall(call, large["task_id"])).task
            zoomed = (await studio.recall(call, wider["task_id"])).task
            pressed = await studio.press(Call(), large["task_id"], "Pan up")
    assert (adopted.kind, adopted.prompt, adopted.parent_id) == (Kind.UPSCALE, "a mug", large["parent_id"])
    assert list(adopted.buttons) == V7_PICTURE
    assert adopted.offers == (Kind.REROLL,)
    assert (zoomed.kind, zoomed.parent_id) == (Kind.BUTTON, large["task_id"])
    assert zoomed.offers == (Kind.UPSCALE, Kind.REROLL, Kind.VARIATION)
    assert (pressed.task.kind, pressed.task.prompt, pressed.task.button) == (Kind.BUTTON, "a mug", "Pan up")
