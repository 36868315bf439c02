"""Structured content compared whole: what a test knows, and the form of what it cannot know."""

from __future__ import annotations

import re
import time
from collections import UserDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from conftest import LOAD_SECONDS, Caller
from mcp_types import CallToolResult, TextContent

from mj_mcp.simulator import Simulator


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
        "button": None,
        "buttons": None,
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


@asynccontextmanager
async def bounded(seconds: float = 30) -> AsyncIterator[None]:
    """No test waits for ever."""
    with anyio.fail_after(seconds):
        yield
