"""How long a call blocks when it does not say, and how long the next one should: by setting, by client, or 25 s."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from conftest import PROTOCOLS, Caller

from mj_mcp.server.client_timeouts import (
    CLIENT_WAIT_SECONDS,
    DEFAULT_WAIT_SECONDS,
    SHARED_NAMES,
    SHARED_WAITS,
    TASKS_REMEMBERED,
    ProposedWaits,
    wait_budget,
)
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


def proposed(
    client: str | None, *, remaining: float | None = None, limit: float | None = None, returns: int = 0
) -> int:
    waits = ProposedWaits()
    for _ in range(returns):
        waits.came_back("me", "sub_1")
    return waits.seconds(client, "me", "sub_1", remaining=remaining, limit=limit)


@pytest.mark.parametrize("name", [None, "", "some-agent", "claude"])
def test_a_client_that_we_do_not_know_gets_what_all_survive(name: str | None) -> None:
    assert wait_budget(name) == DEFAULT_WAIT_SECONDS == 25


def test_names_are_met_in_any_case() -> None:
    assert wait_budget(" Visual Studio Code ") == CLIENT_WAIT_SECONDS["visual studio code"]
    assert all(name == name.lower() for name in CLIENT_WAIT_SECONDS)


@pytest.mark.parametrize("name", sorted(SHARED_NAMES))
def test_a_name_that_hasty_clients_share_gets_three_seconds(name: str) -> None:
    """The shortest default of those clients is 5 s, and the answer has to travel."""
    assert wait_budget(name) == 3


@pytest.mark.parametrize("name", sorted(SHARED_NAMES))
def test_the_proposed_waits_of_one_task_grow_as_such_a_client_comes_back(name: str) -> None:
    assert [proposed(name, returns=returns) for returns in range(5)] == [3, 10, 25, 25, 25]


def test_the_waits_of_another_task_or_owner_begin_anew() -> None:
    waits = ProposedWaits()
    waits.came_back("me", "sub_1")
    assert waits.seconds("mcp", "me", "sub_1", remaining=None, limit=None) == SHARED_WAITS[1]
    assert waits.seconds("mcp", "me", "sub_2", remaining=None, limit=None) == SHARED_WAITS[0]
    assert waits.seconds("mcp", "you", "sub_1", remaining=None, limit=None) == SHARED_WAITS[0]


def test_returns_are_remembered_for_a_bounded_number_of_tasks() -> None:
    waits = ProposedWaits()
    for number in range(TASKS_REMEMBERED + 1):
        waits.came_back("me", f"sub_{number}")
    assert waits.seconds("mcp", "me", "sub_0", remaining=None, limit=None) == SHARED_WAITS[0]
    assert waits.seconds("mcp", "me", "sub_1", remaining=None, limit=None) == SHARED_WAITS[1]


@pytest.mark.parametrize(
    ("client", "remaining", "limit", "seconds"),
    [
        ("some-agent", None, None, 25),
        ("some-agent", 100.0, None, 25),
        ("some-agent", 7.2, None, 13),
        ("some-agent", 0.0, None, 5),
        ("claude-code", 40.0, None, 45),
        ("claude-code", None, None, 110),
        ("mcp", 1.0, None, 3),
        ("mcp", None, 110.0, 110),
        ("some-agent", None, 0.0, 1),
        ("some-agent", None, 7.9, 7),
    ],
)
def test_the_proposed_wait_sees_the_end_of_the_job_or_what_the_client_survives(
    client: str, remaining: float | None, limit: float | None, seconds: int
) -> None:
    assert proposed(client, remaining=remaining, limit=limit) == seconds


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_clients_own_time_is_used_unless_the_operator_set_one(
    protocol: str, sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLIENT_WAIT_SECONDS, "hasty", 0.0)
    async with connect(sim, protocol=protocol, host="Hasty") as caller:
        task = await caller.task("generate_image", prompt="a mug")
        assert (task["status"], task["images"]) == ("queued", [])
        assert (await caller.task("get_task", task_id=task["task_id"]))["status"] == "queued"
    async with connect(sim, protocol=protocol, host="other", MJ_WAIT_SECONDS="0") as caller:
        assert (await caller.task("generate_image", prompt="a jug"))["status"] == "queued"


async def test_what_is_proposed_grows_with_each_return_for_the_task(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, host="mcp") as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        waits = [task["next"][0]["arguments"]["wait_seconds"]]
        for _ in range(3):
            task = await caller.task("get_task", task_id=task["task_id"], wait_seconds=0)
            waits.append(task["next"][0]["arguments"]["wait_seconds"])
    assert waits[0] == 3
    assert waits == sorted(waits)
    assert waits[1] > 3
