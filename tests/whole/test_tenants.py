"""Two callers of one server over HTTP: whatever they ask in whatever order, neither learns of the other's tasks."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from conftest import KEY, Caller, Served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference

from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")]

Serve = Callable[..., AbstractAsyncContextManager[Served]]

NAMES = ("tenant-anna", "tenant-ben")
"""A hyphen keeps them from turning up in a picture's base64 by chance."""


@dataclass
class Tenant:
    """A caller, in both generations of the protocol, and what it has bought."""

    name: str
    callers: list[Caller]
    handles: list[str] = field(default_factory=list)
    bought: int = 0

    @property
    def mark(self) -> str:
        """Stands in every prompt of this caller."""
        return f"{self.name}s-own"


ByHandle = Callable[[Caller, str], Awaitable[Any]]

BY_HANDLE: dict[str, ByHandle] = {
    "get_task": lambda caller, handle: caller.call("get_task", task_id=handle, wait_seconds=0),
    "get_task, waiting": lambda caller, handle: caller.call("get_task", task_id=handle, wait_seconds=0.2),
    "view_image": lambda caller, handle: caller.call("view_image", task_id=handle, index=1),
    "view_image, the sheet": lambda caller, handle: caller.call("view_image", task_id=handle),
    "view_image, compared": lambda caller, handle: caller.call("view_image", compare=[f"{handle}#1"]),
    "wait_for_tasks": lambda caller, handle: caller.call("wait_for_tasks", task_ids=[handle], wait_seconds=0),
    "a reference": lambda caller, handle: caller.call(
        "generate_image", prompt="like it", image_urls=[f"{handle}#1"], wait_seconds=0
    ),
    "save_images": lambda caller, handle: caller.call("save_images", task_id=handle),
    "upscale_image": lambda caller, handle: caller.call("upscale_image", task_id=handle, index=1, wait_seconds=0),
    "vary_image": lambda caller, handle: caller.call("vary_image", task_id=handle, index=2, wait_seconds=0),
    "reroll": lambda caller, handle: caller.call("reroll", task_id=handle, wait_seconds=0),
    "simple_change": lambda caller, handle: caller.call("simple_change", content=f"{handle} U1", wait_seconds=0),
    "press_button": lambda caller, handle: caller.call(
        "press_button", task_id=handle, button="Zoom Out 2x", wait_seconds=0
    ),
    "list_tasks, from a cursor": lambda caller, handle: caller.call("list_tasks", cursor=handle),
    "task resource": lambda caller, handle: caller.client.read_resource(f"mj://tasks/{handle}"),
    "image resource": lambda caller, handle: caller.client.read_resource(f"mj://tasks/{handle}/images/1"),
    "completion": lambda caller, handle: caller.client.complete(
        ResourceTemplateReference(uri="mj://tasks/{task_id}"), {"name": "task_id", "value": handle}
    ),
}

AtLarge = Callable[[Caller, Tenant, Tenant], Awaitable[Any]]

AT_LARGE: dict[str, AtLarge] = {
    "list_tasks": lambda caller, _me, _other: caller.call("list_tasks", limit=100),
    "get_usage": lambda caller, _me, _other: caller.call("get_usage"),
    "tasks resource": lambda caller, _me, _other: caller.client.read_resource("mj://tasks"),
    "resources": lambda caller, _me, _other: caller.client.list_resources(),
    "templates": lambda caller, _me, _other: caller.client.list_resource_templates(),
    "prompts": lambda caller, _me, _other: caller.client.list_prompts(),
    "completion of a prompt": lambda caller, _me, _other: caller.client.complete(
        PromptReference(name="vary_theme"), {"name": "picture", "value": ""}
    ),
    "completion": lambda caller, _me, _other: caller.client.complete(
        ResourceTemplateReference(uri="mj://tasks/{task_id}"), {"name": "task_id", "value": ""}
    ),
}


class House:
    """One server, one account at the proxy, two tenants."""

    def __init__(self, sim: Simulator, tenants: list[Tenant]) -> None:
        self.sim = sim
        self.tenants = tenants
        self.foreign_asked = 0

    async def buy(self, who: int, generation: int, finish: bool) -> None:
        me = self.tenants[who]
        me.bought += 1
        task = await me.callers[generation].task(
            "generate_image", prompt=f"{me.mark} number {me.bought}", wait_seconds=0
        )
        me.handles += [task["task_id"], task["submission_id"]]
        if finish:
            self.sim.finish(task["task_id"])
            await me.callers[generation].task("get_task", task_id=task["task_id"], wait_seconds=20)

    async def ask(self, who: int, generation: int, what: str, pick: int) -> None:
        """Anything that names a task, about the other's: the answer is that of a task which does not exist."""
        me, other = self.tenants[who], self.tenants[1 - who]
        if not other.handles:
            return
        handle = other.handles[pick % len(other.handles)]
        absent = "sub_" + "0" * 32 if handle.startswith("sub_") else "9" * len(handle)
        submits, fetches = len(self.sim.submits()), len(self.sim.polls(absent))
        answer = await text_of(BY_HANDLE[what](me.callers[generation], handle))
        nothing = await text_of(BY_HANDLE[what](me.callers[generation], absent))
        assert answer.replace(handle, "ID") == nothing.replace(absent, "ID"), what
        self.check(me, other, answer.replace(handle, "ID"))
        assert len(self.sim.submits()) == submits, "nothing is bought from another's task"
        assert len(self.sim.polls(absent)) == fetches, "nobody adopts what nobody here bought"
        self.foreign_asked += 1

    async def look_around(self, who: int, generation: int, what: str) -> None:
        """Anything that names no task."""
        me, other = self.tenants[who], self.tenants[1 - who]
        self.check(me, other, await text_of(AT_LARGE[what](me.callers[generation], me, other)))

    async def use(self, who: int, generation: int, what: str, pick: int) -> None:
        """The same about one's own: it works as ever."""
        me, other = self.tenants[who], self.tenants[1 - who]
        if me.handles:
            handle = me.handles[pick % len(me.handles)]
            said = await text_of(BY_HANDLE[what](me.callers[generation], handle))
            assert "task_not_found" not in said
            self.check(me, other, said)
            made = re.findall(r'sub_[0-9a-f]{32}|(?<="task_id":")\d+', said)
            me.handles += [found for found in made if found not in me.handles]

    def check(self, me: Tenant, other: Tenant, said: str) -> None:
        assert other.mark not in said
        assert other.name not in said
        assert [handle for handle in other.handles if handle in said] == []


async def text_of(answer: Awaitable[Any]) -> str:
    """Everything that an answer says, errors too."""
    try:
        found = await answer
    except MCPError as failure:
        return f"error {failure.error.model_dump_json()}"
    return str(found.model_dump_json())


people = st.integers(0, 1)
picks = st.integers(0, 50)
steps = st.one_of(
    st.tuples(st.just("buy"), people, people, st.booleans()),
    st.tuples(st.just("ask"), people, people, st.sampled_from(sorted(BY_HANDLE)), picks),
    st.tuples(st.just("use"), people, people, st.sampled_from(sorted(BY_HANDLE)), picks),
    st.tuples(st.just("look_around"), people, people, st.sampled_from(sorted(AT_LARGE))),
)


def opened(portal: BlockingPortal, stack: ExitStack, served: Served, home: Path) -> list[Tenant]:
    tenants = []
    for name in NAMES:
        headers = {"Authorization": f"Bearer {add_token(home / 'data' / 'tokens.json', name, SCOPES, now=0.0)}"}
        callers = []
        for mode in ("2026-07-28", "legacy"):
            http = create_mcp_http_client(headers=headers)
            stack.enter_context(portal.wrap_async_context_manager(http))
            client = Client(streamable_http_client(served.url, http_client=http), mode=mode)
            callers.append(Caller(stack.enter_context(portal.wrap_async_context_manager(client))))
        tenants.append(Tenant(name, callers))
    return tenants


def test_no_answer_of_one_caller_ever_tells_of_another(serve_http: Serve, tmp_path: Path) -> None:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        sim = stack.enter_context(
            portal.wrap_async_context_manager(portal.call(lambda: Simulator(key=KEY, job_seconds=None, image_edge=64)))
        )
        serving = serve_http(sim, MJ_MAX_OPEN_TASKS="1000", MJ_ARCHIVE="0")
        served = stack.enter_context(portal.wrap_async_context_manager(serving))
        house = House(sim, opened(portal, stack, served, tmp_path))
        for who in (0, 1):
            portal.call(house.buy, who, 0, True)

        @settings(max_examples=12, suppress_health_check=list(HealthCheck))
        @given(st.lists(steps, min_size=2, max_size=8))
        def run(story: list[tuple[Any, ...]]) -> None:
            for verb, *arguments in story:
                portal.call(getattr(house, verb), *arguments)

        run()
        # Chance asked some of it; each thing is asked at least once by each.
        for who in (0, 1):
            for what in sorted(BY_HANDLE):
                portal.call(house.ask, who, 0, what, 0)  # by task id
                portal.call(house.ask, who, 1, what, 1)  # by submission id
            for what in sorted(AT_LARGE):
                portal.call(house.look_around, who, 0, what)
        assert house.foreign_asked >= 4 * len(BY_HANDLE)
        assert "Traceback" not in served.log.read_text()
