"""The main job through a real client over stdio: prompt in, pictures out, whatever happens in between.

Every test speaks to the server as a process on pipes, in both generations of the protocol, and to a simulated
proxy over real HTTP. A job moves when the test says so; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import time
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from conftest import KEY, LOAD_SECONDS, PROTOCOLS, Caller, environment, error_of
from mcp_types import CallToolResult, ResourceTemplateReference, TextContent, TextResourceContents

from mj_mcp import __version__
from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and asyncio pipes are of POSIX"),
]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


class Like:
    """Equal to every text of this form: what a test cannot know beforehand in an object that it compares whole."""

    def __init__(self, form: str) -> None:
        self._form = re.compile(form)

    __hash__ = None  # type: ignore[assignment]  # equal to many things

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._form.fullmatch(other) is not None

    def __repr__(self) -> str:
        return f"Like({self._form.pattern!r})"


class Near:
    """Equal to every number between two bounds."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    __hash__ = None  # type: ignore[assignment]  # equal to many things

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and self._low <= other <= self._high

    def __repr__(self) -> str:
        return f"Near({self._low}, {self._high})"


class Either:
    """Equal to each of these: what depends on how far a thing that nobody waits for has come."""

    def __init__(self, *values: object) -> None:
        self._values = values

    __hash__ = None  # type: ignore[assignment]  # equal to many things

    def __eq__(self, other: object) -> bool:
        return any(value == other for value in self._values)

    def __repr__(self) -> str:
        return f"Either{self._values!r}"


DATE = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SUBMISSION = Like(r"sub_[0-9a-f]{32}")
ASKED_OR_NOT = Either(None, "TASK_STATUS_QUEUED")
MEASURED_OR_NOT = Either(None, Near(1, 8192))
JOB = Either(None, Near(0, 60))
"""Seconds that a job just begun is said to take."""


class Whole(UserDict[str, Any]):
    """Equal to structured content with these fields and no others; None stands for a field that is left out."""

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and all(self.get(key) == other.get(key) for key in {*self, *other})

    def __ne__(self, other: object) -> bool:
        return not self == other


def view(**known: Any) -> Whole:
    """The structured content of a task just queued, whole, but for what a test knows better."""
    task: dict[str, Any] = {
        "message": Like("(?s).+"),
        "task_id": None,
        "submission_id": SUBMISSION,
        "kind": "imagine",
        "status": "queued",
        "upstream_status": None,
        "progress": None,
        "prompt": None,
        "parent_id": None,
        "index": None,
        "images": [],
        "failure": None,
        "warnings": [],
        "duplicate_of": None,
        "duplicate_of_open_task": None,
        "submitted_at": DATE,
        "updated_at": DATE,
        "finished_at": None,
        "eta_seconds": JOB,
        "next": [{"tool": "get_task", "arguments": {"task_id": known.get("task_id"), "wait_seconds": Near(1, 25)}}],
    }
    assert known.keys() <= task.keys()
    return Whole(task | known)


def row(of: Whole, **known: Any) -> Whole:
    """The same task as a row of a list."""
    names = ("task_id", "kind", "status", "prompt", "parent_id", "index", "submitted_at", "finished_at")
    handle = {} if of["task_id"] else {"submission_id": of["submission_id"]}
    fields = {name: of[name] for name in names} | {"eta_seconds": of["eta_seconds"], "image_count": len(of["images"])}
    return Whole(handle | fields | known)


def finished(sim: Simulator, task_id: str, pictures: int = 4, **known: Any) -> Whole:
    """The structured content of a task that has succeeded, whole."""
    one = {"task_id": task_id, "index": 1}
    keep: list[dict[str, Any]] = [
        {"tool": "view_image", "arguments": {"task_id": task_id}},
        {"tool": "save_images", "arguments": {"task_id": task_id}},
    ]
    spend: list[dict[str, Any]] = [
        {"tool": "upscale_image", "arguments": one},
        {"tool": "vary_image", "arguments": one},
        {"tool": "reroll", "arguments": {"task_id": task_id}},
    ]
    done = {
        "task_id": task_id,
        "status": "succeeded",
        "upstream_status": "TASK_STATUS_SUCCEED",
        "progress": 100,
        "images": [
            Whole(
                index=index,
                url=Like(rf"{re.escape(sim.url)}/pictures/{task_id}/{index}\.png\?sig=[0-9a-f]{{32}}&exp=0"),
                media_type=Either(None, "image/png"),
                width=MEASURED_OR_NOT,
                height=MEASURED_OR_NOT,
                path=Either(None, Like("/.+")),
            )
            for index in range(1, pictures + 1)
        ],
        "finished_at": DATE,
        "eta_seconds": None,
        "next": keep if known.get("kind") == "upscale" else keep + spend,
    }
    return view(**(done | known))


def texts(result: CallToolResult) -> str:
    """The one text block, which comes first."""
    first, *rest = result.content
    assert isinstance(first, TextContent)
    assert not any(isinstance(block, TextContent) for block in rest)
    return first.text


def files_below(folder: Path) -> dict[Path, bytes]:
    """Every byte that was written there."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What happens here takes no longer, on a machine that has time for it."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began <= seconds + LOAD_SECONDS


async def grid(sim: Simulator, caller: Caller, prompt: str = "a mug") -> str:
    """A finished grid's id."""
    task = await caller.task("generate_image", prompt=prompt, wait_seconds=0)
    sim.finish(task["task_id"])
    done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
    assert done["status"] == "succeeded"
    return str(task["task_id"])


# --- every tool, to the letter


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
        make = await client.get_prompt("make_picture", {"subject": "a blue mug"})
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
    assert listed == {"mj://tasks"}
    assert "mj://tasks/{task_id}" in templates
    assert every.values == [other["task_id"], task_id]
    assert some.values == [task_id]
    assert [type(message.content) for message in make.messages + catch_up.messages] == [TextContent, TextContent]
    assert "a blue mug" in str(make.messages[0].content)
    assert "list_tasks" in str(catch_up.messages[0].content)


# --- waiting


@both_protocols
async def test_a_wait_that_ends_answers_in_time_with_the_task_and_the_next_call(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        await caller.task("list_tasks")  # the journal is open
        with within(4):
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=3)
        # Looked at, so it says what the proxy says.
        assert task == view(task_id=task["task_id"], prompt="a mug", upstream_status="TASK_STATUS_QUEUED")
        assert len(sim.polls(task["task_id"])) >= 1

        sim.process(task["task_id"], progress=40, eta=55)
        (follow_up,) = task["next"]
        with within(2):
            task = await caller.task(follow_up["tool"], **{**follow_up["arguments"], "wait_seconds": 1})
        assert task == view(
            task_id=task["task_id"],
            prompt="a mug",
            status="processing",
            upstream_status="TASK_STATUS_PROCESSING",
            progress=40,
            eta_seconds=55,
        )

        # A wait ends when the job ends, long before its time is up.
        async with anyio.create_task_group() as group, bounded():
            looked = len(sim.polls())

            async def end() -> None:
                await sim.until(lambda: len(sim.polls()) > looked)
                sim.finish(task["task_id"])

            group.start_soon(end)
            with within(10):
                done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=600)
        assert done == finished(sim, task["task_id"], prompt="a mug")

        # A call that does not wait answers as soon as the proxy has.
        sim.inject("submit", faults.delay(1.0))
        began = time.monotonic()
        queued = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        assert 1.0 <= time.monotonic() - began <= 3.0 + LOAD_SECONDS
        assert queued == view(task_id=sim.ledger[-1].task_id, prompt="a jug")
        assert sim.fired == {"delay": 1}


@both_protocols
async def test_a_submit_that_hangs_holds_no_call_beyond_its_time(protocol: str, sim: Simulator, spawn: Spawn) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        await caller.task("list_tasks")  # the journal is open
        answer = asyncio.Event()
        sim.inject("submit", faults.held(answer))
        with within(2):
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=1)
        handle = task["submission_id"]
        assert task == view(
            status="submitting",
            prompt="a mug",
            eta_seconds=None,
            next=[{"tool": "get_task", "arguments": {"task_id": handle, "wait_seconds": 25}}],
        )
        again = await caller.task("get_task", task_id=handle, wait_seconds=0)
        assert again == task
        # The same request meanwhile is the same purchase.
        same = await caller.task("generate_image", prompt="a mug", wait_seconds=0.1)
        assert (same["duplicate_of"], same["duplicate_of_open_task"]) == (handle, True)
        assert same["message"].startswith("Nothing new was started: the same request is open already.")

        (charge,) = sim.ledger
        answer.set()
        sim.finish(charge.task_id)
        done = await caller.task("get_task", task_id=handle, wait_seconds=30)
        assert done == finished(sim, charge.task_id, prompt="a mug", submission_id=handle)
        assert sim.fired == {"held": 1}
        # When no answer ever comes, it is in doubt, and waiting for it ends.
        sim.inject("submit", faults.hang())
        hung = await caller.task("generate_image", prompt="a jug", wait_seconds=0.2)
        assert (hung["status"], hung["task_id"]) == ("submitting", None)
        await sim.stop_listening(abort=True)
        lost = await caller.task("get_task", task_id=hung["submission_id"], wait_seconds=10)
        assert lost["status"] == "unconfirmed"
        assert sim.fired == {"held": 1, "hang": 1}
        assert len(sim.submits()) == 2


@both_protocols
async def test_progress_rises_strictly_and_says_what_it_is_based_on(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    told: list[tuple[float, float | None, str | None]] = []
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        nonlocal heard
        told.append((progress, total, message))
        heard.set()
        heard = anyio.Event()

    async def until(message: str) -> None:
        while not any(message in (said or "") for _, _, said in told):
            await heard.wait()

    async with spawn(sim, protocol=protocol) as caller, bounded(), anyio.create_task_group() as group:
        results: list[CallToolResult] = []

        async def call() -> None:
            arguments = {"prompt": "a mug", "wait_seconds": 20}
            results.append(await caller.client.call_tool("generate_image", arguments, progress_callback=hear))

        sim.inject("submit", faults.delay(1.5))
        group.start_soon(call)
        await until("submitting")
        await until("queued")
        (charge,) = sim.ledger
        sim.process(charge.task_id)
        await until("usually done in about")
        sim.process(charge.task_id, progress=35)
        await until("35 % by the proxy")
        sim.process(charge.task_id, progress=70)
        await until("70 % by the proxy")
        # A proxy that takes it back: what was shown stays.
        sim.process(charge.task_id, progress=20)
        shown = len(told)
        while len(told) == shown:
            await heard.wait()
        sim.finish(charge.task_id)
    (result,) = results
    assert result.structured_content == finished(sim, charge.task_id, prompt="a mug")
    values = [value for value, _, _ in told]
    assert all(before < after for before, after in itertools.pairwise(values))
    assert {total for _, total, _ in told} == {100}
    for value, _, message in told:
        by_proxy = re.fullmatch(r"(\d+) % by the proxy", message or "")
        assert by_proxy is None or value == pytest.approx(int(by_proxy[1]), abs=0.5)
        assert by_proxy or value < 35


# --- interrupted


@both_protocols
async def test_a_cancelled_call_leaves_its_task_alive_with_its_id_recorded(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller, bounded(), anyio.create_task_group() as group:
        # Once while the POST is in flight, once while the job runs.
        for prompt, fault in [("a mug", faults.delay(1.5)), ("a jug", None)]:
            if fault:
                sim.inject("submit", fault)
            scope = anyio.CancelScope()

            async def call(scope: anyio.CancelScope = scope, prompt: str = prompt) -> None:
                with scope:
                    await caller.call("generate_image", prompt=prompt, wait_seconds=60)

            charged, looked = len(sim.ledger), len(sim.polls())
            group.start_soon(call)
            await sim.until(lambda charged=charged: len(sim.ledger) > charged)  # type: ignore[misc]
            charge = sim.ledger[-1]
            if not fault:
                await sim.until(lambda looked=looked: len(sim.polls()) > looked)  # type: ignore[misc]
            scope.cancel()
            page = await caller.task("list_tasks", limit=1)
            (task,) = page["tasks"]
            assert task.get("task_id") == (None if fault else charge.task_id)
            assert ("submission_id" in task) is bool(fault)
            sim.finish(charge.task_id)
            handle = task.get("submission_id", charge.task_id)
            done = await caller.task("get_task", task_id=handle, wait_seconds=10)
            assert done == finished(sim, charge.task_id, prompt=prompt)
        assert [line["outcome"] for line in caller.logged("tool_call") if line["tool"] == "generate_image"] == [
            "cancelled",
            "cancelled",
        ]
    assert len(sim.submits()) == len(sim.ledger) == 2


@both_protocols
async def test_a_killed_server_started_again_lists_its_tasks_and_finishes_watching_them(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        ids = [
            (await caller.task("generate_image", prompt=prompt, wait_seconds=0))["task_id"]
            for prompt in ("a mug", "a jug")
        ]
        caller.kill()
    async with spawn(sim, protocol=protocol) as caller:
        page = await caller.task("list_tasks")
        assert page == {
            "message": "2 tasks, newest first: 2 queued.",
            "tasks": [row(view(task_id=ids[1], prompt="a jug")), row(view(task_id=ids[0], prompt="a mug"))],
        }
        # Watched to their end although nobody waits.
        sim.finish(ids[0])
        looked = len(sim.polls(ids[1]))
        await sim.until(lambda: len(sim.polls(ids[1])) > looked and len(sim.polls(ids[0])) > 0)
        sim.finish(ids[1])
        for task_id, prompt in zip(ids, ("a mug", "a jug"), strict=True):
            done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
            assert done == finished(sim, task_id, prompt=prompt)
    assert len(sim.submits()) == len(sim.ledger) == 2


@both_protocols
async def test_a_lost_answer_is_in_doubt_and_never_bought_again_by_itself(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    sim.inject("submit", faults.reset_after_accept())
    async with spawn(sim, protocol=protocol) as caller:
        result = await caller.call("generate_image", prompt="a mug", wait_seconds=5)
        assert result.is_error
        assert [block.type for block in result.content] == ["text"]
        first = error_of(result)
        assert first == {
            "code": "unconfirmed",
            "message": Like("the submit may have been accepted and charged .*"),
            "next_step": Like("Do not submit it again: .*"),
            "retry_after_seconds": None,
            "submission_id": SUBMISSION,
        }
        handle = first["submission_id"]
        assert handle in texts(result)
        assert sim.fired == {"reset_after_accept": 1}
        assert await caller.error("generate_image", prompt="a mug", wait_seconds=0) == first
        page = await caller.task("list_tasks", status="unconfirmed")
        expected = view(
            submission_id=handle,
            status="unconfirmed",
            prompt="a mug",
            failure={"code": "unconfirmed", "message": Like("(?s).+")},
            eta_seconds=None,
            next=[],
        )
        assert page["tasks"] == [row(expected)]
        # Whoever asks how it stands gets an answer, no error.
        assert await caller.task("get_task", task_id=handle, wait_seconds=0) == expected
        assert len(sim.submits()) == 1
        # Killed in mid-POST, the answer is as lost.
        sim.inject("submit", faults.hang())
        async with anyio.create_task_group() as group:

            async def cut_off() -> None:
                await sim.until(lambda: len(sim.ledger) == 2)
                caller.kill()

            group.start_soon(cut_off)
            with pytest.raises(Exception, match=r"(?i)closed"):
                await caller.call("generate_image", prompt="a jug", wait_seconds=0)

    async with spawn(sim, protocol=protocol) as caller:
        assert await caller.error("generate_image", prompt="a mug", wait_seconds=0) == first
        mark_unconfirmed = await caller.error("generate_image", prompt="a jug", wait_seconds=5)
        assert mark_unconfirmed["code"] == "unconfirmed"
        page = await caller.task("list_tasks", status="unconfirmed")
        assert [task["submission_id"] for task in page["tasks"]] == [mark_unconfirmed["submission_id"], handle]
        assert len(sim.submits()) == len(sim.ledger) == 2
        # Only who says so pays for another.
        await caller.task("generate_image", prompt="a mug", wait_seconds=0, allow_duplicate=True)
    assert len(sim.submits()) == len(sim.ledger) == 3


@both_protocols
async def test_an_identical_request_is_the_running_task_unless_another_is_asked_for(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        answers: list[dict[str, Any]] = []

        async def call() -> None:
            answers.append(await caller.task("generate_image", prompt="a mug", wait_seconds=0))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
        first, second = sorted(answers, key=lambda answer: bool(answer["duplicate_of_open_task"]))
        assert first == view(task_id=sim.ledger[0].task_id, prompt="a mug")
        again = {"tool": "generate_image", "arguments": {"prompt": "a mug", "wait_seconds": 0, "allow_duplicate": True}}
        assert second == view(
            task_id=first["task_id"],
            prompt="a mug",
            duplicate_of=first["submission_id"],
            duplicate_of_open_task=True,
            next=[*first["next"], again],
        )
        assert len(sim.submits()) == 1
        another = await caller.task("generate_image", prompt="a mug", wait_seconds=0, allow_duplicate=True)
        assert another == view(task_id=sim.ledger[1].task_id, prompt="a mug")
        assert len(sim.submits()) == 2

        # The same change asked for in two ways is one purchase, also when it is over.
        sim.finish(first["task_id"])
        await caller.task("get_task", task_id=first["task_id"], wait_seconds=10)
        upscale = {"task_id": first["task_id"], "index": 1, "wait_seconds": 0}
        large = await caller.task("upscale_image", **upscale)
        same = await caller.task("simple_change", content=f"{first['task_id']} U1", wait_seconds=0)
        assert (same["task_id"], same["duplicate_of_open_task"]) == (large["task_id"], True)
        assert len(sim.submits()) == 3
        sim.finish(large["task_id"])
        await caller.task("get_task", task_id=large["task_id"], wait_seconds=10)
        over = await caller.task("upscale_image", **upscale)
        assert (over["task_id"], over["duplicate_of_open_task"]) == (large["task_id"], False)
        assert over["message"].startswith("Nothing new was started: the same request finished ")
        assert over["next"][-1] == {"tool": "upscale_image", "arguments": upscale | {"allow_duplicate": True}}
        assert len(sim.submits()) == 3
        again = await caller.task("upscale_image", **upscale, allow_duplicate=True)
        assert again["task_id"] == sim.ledger[3].task_id
    assert len(sim.submits()) == len(sim.ledger) == 4


# --- the process


@both_protocols
async def test_the_key_is_in_no_result_no_log_and_no_file_even_when_the_proxy_echoes_it(
    protocol: str, sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    results: list[Any] = []

    def echo(answer: dict[str, Any]) -> dict[str, Any]:
        first, *rest = answer["images"]
        return answer | {"images": [first | {"image_url": f"{sim.url}/pictures/1.png?key={KEY}"}, *rest]}

    async with spawn(sim, protocol=protocol, MJ_LOG_LEVEL="debug", MJ_MAX_OPEN_TASKS="50") as caller:
        for number, fault in enumerate(
            [
                faults.code(4, description=f"bad key {KEY}", properties={"key": KEY}),
                faults.code(24, description=KEY, properties={"bannedWord": KEY}),
                faults.result_as(KEY),
                faults.status(500, f"<p>{KEY}</p>".encode(), {"X-Key": KEY}),
                faults.status(400, json.dumps({"error": {"message": KEY}}).encode()),
                faults.status(302, b"", {"Location": f"{sim.url}/{KEY}"}),
            ]
        ):
            sim.inject("submit", fault)
            error = await caller.error("generate_image", prompt=f"mug {number}", wait_seconds=5)
            results.append(error)
            # A good one in between, or the server would pause its submits.
            good = await caller.task("generate_image", prompt=f"jug {number}", wait_seconds=0)
            results.append(good)
        failing = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.fail(failing["task_id"], reason=f"the key {KEY} is bad")
        failed = await caller.task("get_task", task_id=failing["task_id"], wait_seconds=10)
        assert failed["failure"] == {"code": "generation_failed", "message": "the key [redacted] is bad"}
        sim.inject(
            "fetch", Fault(name="echo", edit=lambda answer: echo(answer) if answer["images"] else None), times=99
        )
        shown = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        sim.finish(shown["task_id"])
        pictures = await caller.task("get_task", task_id=shown["task_id"], wait_seconds=10)
        assert [image["index"] for image in pictures["images"]] == [2, 3, 4]
        listed = await caller.call("list_tasks", limit=100)
        resource = await caller.client.read_resource("mj://tasks")
        results += [failed, pictures, listed.model_dump_json(), resource.model_dump_json()]
        requests = caller.logged("upstream_request")
        calls = caller.logged("tool_call")

        # What the log tells of each: one line a call, one a request, and which request is of which call.
        bought = [line for line in calls if line["tool"] == "generate_image"]
        assert [(line["outcome"], line.get("code")) for line in bought[:4]] == [
            ("error", "rejected"),
            ("ok", None),
            ("error", "prompt_refused"),
            ("ok", None),
        ]
        posts = [line for line in requests if line["method"] == "POST"]
        assert [line["call_id"] for line in posts] == [line["call_id"] for line in bought]
        assert [(line["path"], line["status"], line["code"], line["attempt"]) for line in posts[:3]] == [
            ("/mj/submit/imagine", 200, 4, 1),
            ("/mj/submit/imagine", 200, 1, 1),
            ("/mj/submit/imagine", 200, 24, 1),
        ]
        assert all(line["ms"] > 0 for line in requests)
        for line in calls:
            assert {"tool", "outcome", "ms", "call_id"} <= line.keys()
            assert line["outcome"] == "error" or line["tool"] == "list_tasks" or {"polls", "waited"} <= line.keys()
            assert line["outcome"] == "error" or line["tool"] == "list_tasks" or line["task_id"]
        assert len({line["call_id"] for line in calls}) == len(calls)
    assert {"code_4", "code_24", "result_as", "status_500", "status_400", "status_302", "echo"} == set(sim.fired)
    assert KEY not in str(results)
    files = files_below(tmp_path)
    assert {"server.log", "journal.db"} <= {path.name for path in files}
    assert [path for path, data in files.items() if KEY.encode() in data] == []


@asynccontextmanager
async def bounded(seconds: float = 30) -> AsyncIterator[None]:
    """No test waits for ever."""
    with anyio.fail_after(seconds):
        yield


class Wire:
    """The server as a process whose every byte on stdout is seen."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.lines: list[bytes] = []
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)

    async def send(self, line: bytes) -> None:
        await self._stdin.send(line + b"\n")

    async def request(self, method: str, number: int, **params: Any) -> dict[str, Any]:
        """Ask, and read up to the answer."""
        await self.ask(method, number, **params)
        while True:
            line = await self._stdout.receive_until(b"\n", 1 << 22)
            self.lines.append(line)
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number and "method" not in message:
                assert isinstance(message, dict)
                return message

    async def ask(self, method: str, number: int, **params: Any) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())

    async def greet(self) -> None:
        client = {"name": "by-hand", "version": "1"}
        await self.request("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        await self.send(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')

    async def end(self, by: signal.Signals | None = None) -> int:
        """EOF or a signal; what was still to be read, and the exit code."""
        if by is None:
            await self._stdin.aclose()
        else:
            self.process.send_signal(by)
        try:
            while True:
                self.lines.append(await self._stdout.receive_until(b"\n", 1 << 22))
        except (anyio.IncompleteRead, anyio.EndOfStream):
            assert self._stdout.buffer == b""
        return await self.process.wait()


@asynccontextmanager
async def by_hand(sim: Simulator, home: Path) -> AsyncIterator[Wire]:
    environ = {**os.environ, **environment(sim.url, home)}
    with (home / "server.log").open("ab") as log, anyio.fail_after(40):
        async with await anyio.open_process(
            [sys.executable, "-m", "mj_mcp"], env=environ, cwd=home, stderr=log
        ) as process:
            try:
                yield Wire(process)
            finally:
                if process.returncode is None:
                    process.kill()


GARBAGE = [
    b"not json",
    b"",
    b"   ",
    b"{}",
    b"[]",
    b"null",
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 8, "method": "no/such/method"}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "no_such_tool"}}',
    b'{"jsonrpc": "2.0", "id": 10, "method": "tools/call", "params": 5}',
    b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 999}}',
    b'{"jsonrpc": "2.0", "id": 11, "result": {}}',
    b"\xff\xfe\x00\x80",
    b"[" * 10_000,
    b'{"jsonrpc": "2.0", "id": 12, "method": "' + b"x" * 300_000 + b'"}',
]


async def test_stdout_carries_protocol_only_whatever_comes_in(sim: Simulator, tmp_path: Path) -> None:
    async with by_hand(sim, tmp_path) as wire:
        await wire.greet()
        for line in GARBAGE:
            await wire.send(line)
        listed = await wire.request("tools/list", 20)
        assert len(listed["result"]["tools"]) >= 7
        arguments = {"prompt": "a mug", "wait_seconds": 0}
        called = await wire.request("tools/call", 21, name="generate_image", arguments=arguments)
        assert called["result"]["structuredContent"] == view(task_id=sim.ledger[0].task_id, prompt="a mug")
        # Half a line is no message, and the end of the input ends an idle server at once.
        await wire.send(b"ping")
        with within(2):
            assert await wire.end() == 0
    for line in wire.lines:
        assert json.loads(line)["jsonrpc"] == "2.0"
    assert {json.loads(line).get("id") for line in wire.lines} >= {1, 8, 9, 20, 21}
    for line in (tmp_path / "server.log").read_bytes().splitlines():
        assert "Traceback" not in json.loads(line)["event"]


async def test_a_signal_ends_an_idle_server_at_once(sim: Simulator, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with by_hand(sim, tmp_path) as wire:
            await wire.greet()
            with within(2):
                assert await wire.end(by=number) == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("by", [signal.SIGTERM, None], ids=["SIGTERM", "EOF"])
async def test_a_server_told_to_stop_during_a_post_waits_for_the_answer_and_records_it(
    by: signal.Signals | None, sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    sim.inject("submit", faults.delay(2.0))
    async with by_hand(sim, tmp_path) as wire:
        await wire.greet()
        await wire.ask("tools/call", 2, name="generate_image", arguments={"prompt": "a mug", "wait_seconds": 60})
        await sim.until(lambda: len(sim.ledger) == 1)
        with within(5):
            assert await wire.end(by=by) == 0
    assert sim.fired == {"delay": 1}
    async with spawn(sim) as caller:
        page = await caller.task("list_tasks")
    (task,) = page["tasks"]
    assert task == row(view(task_id=sim.ledger[0].task_id, prompt="a mug"))
    assert len(sim.submits()) == 1
