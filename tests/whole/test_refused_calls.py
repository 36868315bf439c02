"""Calls that we refuse: wrong arguments, parents that cannot be changed, unknown ids, our own limits.

The server runs in this process, behind a real client, against a simulated proxy over real HTTP. Each fault is seen
to have fired, and the proxy's ledger says what was paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from calls import foreign, imagine
from conftest import Caller, error_of

from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


# --- arguments

LONG = "x" * 9000

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("generate_image", {}, "`prompt`"),
    ("generate_image", {"prompt": 5}, "`prompt`"),
    ("generate_image", {"prompt": None}, "`prompt`"),
    ("generate_image", {"prompt": ""}, "`prompt`"),
    ("generate_image", {"prompt": "   "}, "`prompt`"),
    ("generate_image", {"prompt": LONG}, "`prompt`"),
    ("generate_image", {"prompt": "a mug", "aspect": "16:9"}, "did you mean `aspect_ratio`?"),
    ("generate_image", {"prompt": "a mug", "stylise": 5}, "did you mean `stylize`?"),
    ("generate_image", {"promt": "a mug"}, "did you mean `prompt`?"),
    ("generate_image", {"prompt": "a mug", "zzz": 1}, "has no argument `zzz`"),
    ("generate_image", {"prompt": "a mug", "aspect_ratio": "wide"}, "`aspect_ratio`"),
    ("generate_image", {"prompt": "a mug", "aspect_ratio": "0:1"}, "`aspect_ratio`"),
    ("generate_image", {"prompt": "a mug", "version": "99"}, "`version`"),
    ("generate_image", {"prompt": "a mug", "version": "7", "niji": "6"}, "niji"),
    ("generate_image", {"prompt": "a mug", "stylize": 1001}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": -1}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": True}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "stylize": 1.5}, "`stylize`"),
    ("generate_image", {"prompt": "a mug", "chaos": 101}, "`chaos`"),
    ("generate_image", {"prompt": "a mug", "weird": 3001}, "`weird`"),
    ("generate_image", {"prompt": "a mug", "seed": 4294967296}, "`seed`"),
    ("generate_image", {"prompt": "a mug", "quality": 3}, "`quality`"),
    ("generate_image", {"prompt": "a mug", "quality": True}, "`quality`"),
    ("generate_image", {"prompt": "a mug", "raw": "perhaps"}, "`raw`"),
    ("generate_image", {"prompt": "a mug", "image_urls": ["ftp://x/y.png"]}, "`image_urls`"),
    ("generate_image", {"prompt": "a mug", "image_weight": 4, "image_urls": ["https://x.com/y.png"]}, "`image_weight`"),
    ("generate_image", {"prompt": "a mug", "omni_weight": 0}, "`omni_weight`"),
    ("generate_image", {"prompt": "a mug --ar 1:1", "aspect_ratio": "16:9"}, "aspect_ratio"),
    ("generate_image", {"prompt": "a mug --repeat 4"}, "allow_multiple"),
    ("generate_image", {"prompt": "a {red, blue} mug"}, "allow_multiple"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": 601}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": -1}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": True}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "wait_seconds": "soon"}, "`wait_seconds`"),
    ("generate_image", {"prompt": "a mug", "allow_duplicate": "perhaps"}, "`allow_duplicate`"),
    ("upscale_image", {"task_id": "1"}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 0}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 5}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": True}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": 1.5}, "`index`"),
    ("upscale_image", {"task_id": "1", "index": None}, "`index`"),
    ("upscale_image", {"id": "1", "index": 1}, "did you mean `task_id`?"),
    ("vary_image", {"task_id": "1", "index": 5}, "`index`"),
    ("vary_image", {"task_id": 1.5, "index": 5}, "`index`"),
    ("reroll", {"task_id": "1", "index": 1}, "has no argument `index`"),
    *[
        ("reroll", {"task_id": bad}, "`task_id`")
        for bad in ("", "../x", "a b", "a/b", "a?b", "a#b", "..", "é", "x" * 129)
    ],
    *[
        ("simple_change", {"content": bad}, "`content`")
        for bad in ("", "1", "U1", "1 U0", "1 U5", "1 X1", "1 R1", "1 U", "1 U1 2", "1 U11", "1 \uff351")
    ],
    ("simple_change", {"content": "../x U1"}, "`task_id`"),
    ("get_task", {"task_id": "a/b"}, "`task_id`"),
    ("get_task", {"task_id": "1", "wait_seconds": 601}, "`wait_seconds`"),
    ("get_task", {"task_id": "1", "timeout": 5}, "did you mean `wait_seconds`?"),
    ("list_tasks", {"limit": 0}, "`limit`"),
    ("list_tasks", {"limit": 101}, "`limit`"),
    ("list_tasks", {"limit": True}, "`limit`"),
    ("list_tasks", {"status": "done"}, "`status`"),
    ("list_tasks", {"status": "refused"}, "`status`"),
    ("list_tasks", {"cursor": "1; DROP TABLE tasks"}, "`cursor`"),
]


async def test_a_wrong_argument_is_named_and_nothing_is_sent(sim: Simulator, connect: Connect) -> None:
    wrong: list[object] = []
    async with connect(sim) as caller:
        for tool, arguments, says in WRONG:
            result = await caller.call(tool, **arguments)
            error = error_of(result) if result.is_error else {}
            if not (result.is_error and error.get("code") == "invalid_request" and says in error["message"]):
                wrong.append((tool, str(arguments)[:80], says, error or result.content))
            elif len(error["message"]) > 1000 or len(result.content) != 1:
                wrong.append((tool, "a message without measure", error["message"]))
        assert wrong == []
        assert (await caller.task("list_tasks"))["tasks"] == []
    assert sim.requests == []


# --- parents


async def test_a_parent_must_have_succeeded(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        parent = await imagine(caller)
        changes: list[tuple[str, dict[str, Any]]] = [
            ("upscale_image", {"task_id": parent, "index": 1}),
            ("vary_image", {"task_id": parent, "index": 1}),
            ("reroll", {"task_id": parent}),
            ("simple_change", {"content": f"{parent} U1"}),
            ("press_button", {"task_id": parent, "button": "Zoom Out 2x"}),
        ]
        for tool, arguments in changes:
            error = await caller.error(tool, **arguments)
            assert (error["code"], parent in error["message"]) == ("not_ready", True)
        sim.fail(parent)
        await caller.task("get_task", task_id=parent, wait_seconds=10)
        for tool, arguments in changes:
            error = await caller.error(tool, **arguments)
            assert (error["code"], "failed" in error["message"]) == ("invalid_request", True)
    assert (len(sim.submits()), len(sim.ledger)) == (1, 1)


async def test_a_parent_that_has_just_finished_is_polled_before_it_is_refused(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_POLL_SECONDS="60") as caller:
        # After a second without a poll, the next wish for one is granted at once.
        parent = (await caller.task("generate_image", prompt="a mug", wait_seconds=1.2))["task_id"]
        sim.finish(parent)
        assert sim.polls() == []
        task = await caller.task("upscale_image", task_id=parent, index=1, wait_seconds=0)
        assert (task["parent_id"], task["status"]) == (parent, "queued")
    assert len(sim.submits()) == 2


async def test_a_change_can_be_asked_for_by_the_parents_submission_id(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        parent = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(parent["task_id"])
        await caller.task("get_task", task_id=parent["submission_id"], wait_seconds=10)
        await caller.task("reroll", task_id=parent["submission_id"], wait_seconds=0)
        await caller.task("simple_change", content=f"{parent['submission_id']} V1", wait_seconds=0)
    assert [seen.json for seen in sim.submits()[1:]] == [
        {"taskId": parent["task_id"], "action": "REROLL"},
        {"content": f"{parent['task_id']} V1"},
    ]


@pytest.mark.parametrize("answer", ["empty", "null", "{}", "204", "404"])
async def test_an_id_that_nobody_knows_is_fetched_once(answer: Any, sim: Simulator, connect: Connect) -> None:
    sim.unknown_answer = answer
    async with connect(sim) as caller:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("get_task", {"task_id": "404404", "wait_seconds": 5}),
            ("upscale_image", {"task_id": "404404", "index": 1}),
            ("simple_change", {"content": "404404 R"}),
            ("press_button", {"task_id": "404404", "button": "Zoom Out 2x"}),
        ]
        for number, (tool, arguments) in enumerate(calls, start=1):
            assert (await caller.error(tool, **arguments))["code"] == "task_not_found"
            assert len(sim.polls("404404")) == number
        # A submission id is ours alone: the proxy is not asked.
        assert (await caller.error("get_task", task_id=f"sub_{'0' * 32}", wait_seconds=0))["code"] == "task_not_found"
        assert len(sim.requests) == len(calls)
        assert (await caller.task("list_tasks"))["tasks"] == []


async def test_an_id_never_seen_is_fetched_once_and_adopted(sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    async with connect(sim) as caller:
        task = await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert (task["task_id"], task["status"], task["upstream_status"]) == (task_id, "queued", "TASK_STATUS_QUEUED")
        assert (task["kind"], task["prompt"], task["submitted_at"]) == (None, None, None)
        assert len(sim.polls(task_id)) <= 2
        # Ours from now on: listed, watched though nobody waits, and a parent.
        assert [listed["task_id"] for listed in (await caller.task("list_tasks"))["tasks"]] == [task_id]
        await sim.until(lambda: len(sim.polls(task_id)) == 3)
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task["submission_id"], wait_seconds=10)
        assert (done["status"], len(done["images"])) == ("succeeded", 4)
        before = len(sim.polls(task_id))
        await caller.task("get_task", task_id=task_id, wait_seconds=0)
        assert len(sim.polls(task_id)) == before, "what is over is not asked for again"
        await caller.task("upscale_image", task_id=task_id, index=4, wait_seconds=0)
    assert [seen.json for seen in sim.submits()[1:]] == [{"taskId": task_id, "action": "UPSCALE", "index": 4}]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(faults.status(502), "upstream_error"), (faults.html(), "upstream_error"), (faults.status(403), "unauthorized")],
    ids=["502", "page", "403"],
)
async def test_a_fetch_that_fails_adopts_nothing(fault: Fault, code: str, sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    sim.inject("fetch", fault)
    async with connect(sim) as caller:
        assert (await caller.error("get_task", task_id=task_id, wait_seconds=0))["code"] == code
        assert sim.fired == {fault.name: 1}
        assert (await caller.task("list_tasks"))["tasks"] == []


# --- our own limits


async def test_the_limit_of_open_tasks_is_busy_and_ends_with_a_task(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="2") as caller:
        first = await imagine(caller, "a mug")
        await imagine(caller, "a jug")
        error = await caller.error("generate_image", prompt="a jar", wait_seconds=0)
        assert error["code"] == "busy"
        assert error["retry_after_seconds"] > 0
        assert "MJ_MAX_OPEN_TASKS" in error["message"]
        assert len(sim.submits()) == 2
        # What is open already is found all the same.
        same = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (same["task_id"], same["duplicate_of_open_task"]) == (first, True)
        sim.finish(first)
        await caller.task("get_task", task_id=first, wait_seconds=10)
        await imagine(caller, "a jar")
    assert len(sim.submits()) == len(sim.ledger) == 3


async def test_the_ceiling_of_a_day_is_a_persons_to_raise(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_DAILY_TASK_LIMIT="0") as caller:
        error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "limit_reached"
        assert "MJ_DAILY_TASK_LIMIT" in error["message"]
        assert 0 < error["retry_after_seconds"] <= 86400
    assert sim.requests == []


async def test_a_refused_submit_does_not_count_against_the_day(sim: Simulator, connect: Connect) -> None:
    sim.inject("submit", faults.code(24))
    async with connect(sim, MJ_DAILY_TASK_LIMIT="1") as caller:
        assert (await caller.error("generate_image", prompt="a mug"))["code"] == "prompt_refused"
        await imagine(caller, "a jug")
        assert (await caller.error("generate_image", prompt="a jar"))["code"] == "limit_reached"
    assert (len(sim.submits()), len(sim.ledger)) == (2, 1)


async def test_nothing_is_bought_when_it_cannot_be_recorded(sim: Simulator, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the data folder should be")
    async with connect(sim) as caller:
        error = await caller.error("generate_image", prompt="a mug")
        assert error["code"] == "storage_unavailable"
        assert (await caller.error("list_tasks"))["code"] == "storage_unavailable"
        assert (await caller.error("get_task", task_id="123", wait_seconds=0))["code"] == "storage_unavailable"
        assert (await caller.error("reroll", task_id="123"))["code"] == "storage_unavailable"
        # Repaired, it works without a new start.
        (tmp_path / "data").unlink()
        await imagine(caller)
    assert len(sim.submits()) == len(sim.ledger) == 1


async def test_a_read_only_server_has_no_tool_that_spends(sim: Simulator, connect: Connect) -> None:
    task_id = await foreign(sim)
    async with connect(sim, MJ_READ_ONLY="1") as caller:
        names = {tool.name for tool in (await caller.client.list_tools()).tools}
        assert names >= {"get_task", "list_tasks"}
        assert not names & {"generate_image", "upscale_image", "vary_image", "reroll", "simple_change", "press_button"}
        result = await caller.call("generate_image", prompt="a mug")
        assert result.is_error
        assert "generate_image" in str(result.content)
        sim.finish(task_id)
        task = await caller.task("get_task", task_id=task_id, wait_seconds=10)
        assert task["status"] == "succeeded"
        assert {call["tool"] for call in task["next"]} <= names
    assert len(sim.submits()) == 1
