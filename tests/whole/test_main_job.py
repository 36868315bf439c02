"""The main job through a real client over stdio: every tool, resource and prompt, to the letter.

Every test speaks to the server as a process on pipes, in both generations of the protocol, and to a simulated
proxy over real HTTP. A job moves when the test says so; nothing here sleeps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from conftest import KEY, PROTOCOLS, Caller
from mcp_types import ResourceTemplateReference, TextContent, TextResourceContents
from views import DATE, Like, Near, finished, grid, row, texts, view

from mj_mcp import __version__
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and asyncio pipes are of POSIX"),
]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@both_protocols
async def test_every_tool_sends_the_specified_request_and_answers_in_the_published_shape(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    async with spawn(sim, protocol=protocol) as caller:

        async def buy(tool: str, path: str, body: dict[str, Any], arguments: dict[str, Any], **known: Any) -> str:
            """Submit, see the answer, let the job finish, see what `get_task` says of it. Returns its id."""
            result = await caller.call(tool, **arguments, wait_seconds=0)
            task_id = sim.ledger[-1].task_id
            sent.append((path, body))
            assert not result.is_error
            assert [block.type for block in result.content] == ["text"]
            assert task_id in texts(result)
            assert "get_task" in texts(result)
            assert result.structured_content == view(task_id=task_id, prompt="a mug --ar 3:2", **known)
            assert result.structured_content["message"] == texts(result)
            pictures = 1 if known["kind"] == "upscale" else 4
            sim.finish(task_id)
            result = await caller.call("get_task", task_id=task_id, wait_seconds=10)
            assert not result.is_error
            assert result.structured_content == finished(sim, task_id, pictures, prompt="a mug --ar 3:2", **known)
            assert [block.type for block in result.content] == ["text", "image"]
            assert ("1 picture" if pictures == 1 else "4 pictures") in texts(result)
            assert "a mug --ar 3:2" in texts(result)
            return task_id

        imagined = await buy(
            "generate_image",
            "/mj/submit/imagine",
            {"prompt": "a mug --ar 3:2"},
            {"prompt": "a mug", "aspect_ratio": "3:2"},
            kind="imagine",
        )
        of_grid = {"parent_id": imagined}
        await buy(
            "upscale_image",
            "/mj/submit/change",
            {"taskId": imagined, "action": "UPSCALE", "index": 2},
            {"task_id": imagined, "index": 2},
            kind="upscale",
            index=2,
            **of_grid,
        )
        varied = await buy(
            "vary_image",
            "/mj/submit/change",
            {"taskId": imagined, "action": "VARIATION", "index": 4},
            {"task_id": imagined, "index": 4},
            kind="variation",
            index=4,
            **of_grid,
        )
        await buy(
            "reroll",
            "/mj/submit/change",
            {"taskId": imagined, "action": "REROLL"},
            {"task_id": imagined},
            kind="reroll",
            **of_grid,
        )
        for content, kind, index in [
            (f"{varied} U1", "upscale", 1),
            (f"{varied} V3", "variation", 3),
            (f"{varied} R", "reroll", None),
        ]:
            await buy(
                "simple_change",
                "/mj/submit/simple-change",
                {"content": content},
                {"content": content},
                kind=kind,
                index=index,
                parent_id=varied,
            )
        seen_large = await caller.call("view_image", task_id=varied, index=2)
        saved = await caller.task("save_images", task_id=varied, indexes=[1, 3])
        listed = await caller.call("list_tasks", limit=2)
        older = await caller.task("list_tasks", limit=100, cursor=(listed.structured_content or {})["next_cursor"])

    assert [block.type for block in seen_large.content] == ["text", "image"]
    assert saved == {
        "message": Like("(?s)Picture 1: /.+Picture 3: /.+"),
        "task_id": varied,
        "files": [
            {
                "index": index,
                "path": Like("/.+"),
                "bytes": Near(100, 1e7),
                "sha256": Like("[0-9a-f]{64}"),
                "media_type": "image/png",
            }
            for index in (1, 3)
        ],
    }
    assert [(seen.method, seen.path, seen.query, seen.json) for seen in sim.submits()] == [
        ("POST", path, "", body) for path, body in sent
    ]
    for seen in sim.submits() + sim.polls():
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        assert seen.headers["user-agent"] == f"mj-mcp/{__version__}"
        assert (seen.headers.get("content-type") == "application/json") is (seen.method == "POST")
    for seen in sim.polls():
        assert (seen.method, seen.body, seen.query) == ("GET", b"", "")

    ids = [charge.task_id for charge in reversed(sim.ledger)]
    assert listed.structured_content is not None
    assert set(listed.structured_content) == {"message", "tasks", "next_cursor"}
    assert [task["task_id"] for task in listed.structured_content["tasks"]] == ids[:2]
    assert listed.structured_content["tasks"][0] == {
        "task_id": ids[0],
        "kind": "reroll",
        "status": "succeeded",
        "prompt": "a mug --ar 3:2",
        "parent_id": varied,
        "image_count": 4,
        "submitted_at": DATE,
        "finished_at": DATE,
    }
    assert [block.type for block in listed.content] == ["text"]
    assert [task["task_id"] for task in older["tasks"]] == ids[2:]
    assert older["next_cursor"] is None
    assert not sim.duplicates()


@both_protocols
async def test_resources_prompts_and_completions_show_the_same_tasks(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        task_id = await grid(sim, caller)
        other = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        shown = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        client = caller.client
        (recent,) = (await client.read_resource("mj://tasks")).contents
        (one,) = (await client.read_resource(f"mj://tasks/{task_id}")).contents
        with pytest.raises(Exception, match="knows a task 404404"):
            await client.read_resource("mj://tasks/404404")
        template = ResourceTemplateReference(type="ref/resource", uri="mj://tasks/{task_id}")
        every = (await client.complete(template, {"name": "task_id", "value": ""})).completion
        some = (await client.complete(template, {"name": "task_id", "value": task_id[:9]})).completion
        make = await client.get_prompt("make_picture", {"brief": "a blue mug"})
        catch_up = await client.get_prompt("catch_up")
        listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
        templates = [item.uri_template for item in (await client.list_resource_templates()).resource_templates]

    assert isinstance(recent, TextResourceContents)
    assert isinstance(one, TextResourceContents)
    assert (recent.mime_type, one.mime_type) == ("application/json", "application/json")
    expected = finished(sim, task_id, prompt="a mug")
    assert shown == expected
    assert json.loads(one.text) == expected
    assert json.loads(recent.text) == {
        "message": "2 tasks, newest first: 1 queued, 1 succeeded.",
        "tasks": [row(view(task_id=other["task_id"], prompt="a jug")), row(expected)],
    }
    assert listed == {"mj://tasks", "ui://mj/view.html", "skill://midjourney/SKILL.md"}
    assert "mj://tasks/{task_id}" in templates
    assert every.values == [other["task_id"], task_id]
    assert some.values == [task_id]
    assert [type(message.content) for message in make.messages + catch_up.messages] == [TextContent, TextContent]
    assert "a blue mug" in str(make.messages[0].content)
    assert "list_tasks" in str(catch_up.messages[0].content)
