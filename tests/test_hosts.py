"""How long a call blocks when it does not say: by a person's setting, by its host, or 25 s."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from conftest import PROTOCOLS, Caller

from mj_mcp.server.hosts import DEFAULT_WAIT_SECONDS, HOST_WAIT_SECONDS, wait_seconds_for
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [None, "", "some-agent", "claude"])
def test_a_host_that_we_do_not_know_gets_what_all_survive(name: str | None) -> None:
    assert wait_seconds_for(name) == DEFAULT_WAIT_SECONDS == 25


def test_names_are_met_in_any_case() -> None:
    assert wait_seconds_for("Visual Studio Code") == HOST_WAIT_SECONDS["visual studio code"]
    assert all(name == name.lower() for name in HOST_WAIT_SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_hosts_own_time_is_used_unless_a_person_set_one(
    protocol: str,
    sim: Simulator,
    connect: Callable[..., AbstractAsyncContextManager[Caller]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HOST_WAIT_SECONDS, "hasty", 0.0)
    async with connect(sim, protocol=protocol, host="Hasty") as caller:
        task = await caller.task("generate_image", prompt="a mug")
        assert (task["status"], task["images"]) == ("queued", [])
    async with connect(sim, protocol=protocol, host="other", MJ_WAIT_SECONDS="0") as caller:
        assert (await caller.task("generate_image", prompt="a jug"))["status"] == "queued"
