"""The Tasks extension: who gets a handle, what it answers, and what it survives. The official suite judges shapes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from calls import imagine
from conftest import PROTOCOLS, Caller, Served, error_of
from handles import TASKS, Handle, Handles, ask, take
from lives import PATIENCE, rows, until
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from over_http import ASKING, META, by_hand

from mj_mcp.app import Timings
from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
Serve = Callable[..., AbstractAsyncContextManager[Served]]


async def handle_of(caller: Caller, tool: str = "generate_image", **arguments: Any) -> Handle:
    answer = await take(caller, tool, **({"prompt": "a mug"} if tool == "generate_image" else {}) | arguments)
    assert isinstance(answer, Handle), answer
    return answer


async def refused(caller: Caller, method: str, task_id: str) -> int:
    with pytest.raises(MCPError) as raised:
        await ask(caller, method, task_id)
    return raised.value.code


async def test_a_client_that_declares_it_gets_a_handle_at_once_and_later_what_the_call_would_have_answered(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, extensions=[Handles()], MJ_WAIT_SECONDS="300") as caller:
        with anyio.fail_after(60):
            handle = await handle_of(caller)
        (charge,) = sim.ledger
        working = await ask(caller, "tasks/get", handle.task_id)
        assert (working["status"], working["taskId"]) == ("working", handle.task_id)
        assert "result" not in working
        sim.finish(charge.task_id)
        direct = await caller.call("get_task", task_id=handle.task_id, wait_seconds=20)
        done = await ask(caller, "tasks/get", handle.task_id)
    assert done["status"] == "completed"
    result = CallToolResult.model_validate(done["result"])
    assert not result.is_error
    assert [block.type for block in result.content] == ["text", "image"]
    assert result.structured_content == direct.structured_content
    assert result.content == direct.content
    assert len(sim.ledger) == 1


async def test_a_handle_is_not_completed_before_its_pictures_are_there(sim: Simulator, connect: Connect) -> None:
    """A client does not ask again once it is."""
    let_go = asyncio.Event()
    async with connect(sim, extensions=[Handles()]) as caller:
        handle = await handle_of(caller)
        sim.inject("picture", faults.held(let_go), times=4)
        sim.finish(sim.ledger[0].task_id)
        ended = await caller.task("get_task", task_id=handle.task_id, wait_seconds=20, include_image=False)
        assert ended["status"] == "succeeded"
        early = await ask(caller, "tasks/get", handle.task_id)
        let_go.set()
        done = await ask(caller, "tasks/get", handle.task_id)
    assert sim.faults_left() == 0
    assert (early["status"], early["statusMessage"]) == ("working", "fetching the pictures")
    assert done["status"] == "completed"
    assert [block["type"] for block in done["result"]["content"]] == ["text", "image"]


async def test_the_shape_says_how_often_to_ask_and_that_it_is_kept(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        handle = await handle_of(caller)
        sim.process(sim.ledger[0].task_id, progress=40)
        await caller.task("get_task", task_id=handle.task_id, wait_seconds=0)
        working = await ask(caller, "tasks/get", handle.task_id)
    assert handle.ttl_ms is None
    assert handle.poll_interval_ms >= 1000
    assert handle.created_at <= handle.last_updated_at
    assert working["statusMessage"] == "40 % by the proxy"


async def test_a_handle_is_asked_for_without_a_poll_of_the_proxy(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()], MJ_POLL_SECONDS="60") as caller:
        handle = await handle_of(caller)
        before = len(sim.polls())
        for _ in range(5):
            await ask(caller, "tasks/get", handle.task_id)
    assert len(sim.polls()) == before


async def test_a_call_that_wants_a_handle_waits_in_the_queue_for_its_slot(sim: Simulator, spawn: Connect) -> None:
    async with (
        spawn(sim, extensions=[Handles()], MJ_MAX_OPEN_TASKS="1") as caller,
        anyio.create_task_group() as group,
    ):
        first = await handle_of(caller)
        heard: list[str | None] = []
        taken: list[Handle] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message)

        async def second() -> None:
            answer = await caller.client.session.call_tool(
                "generate_image", {"prompt": "a jug"}, progress_callback=hear, allow_claimed=True
            )
            assert isinstance(answer, Handle), answer
            taken.append(answer)

        group.start_soon(second)
        await until(lambda: any("number 1 in the queue" in (words or "") for words in heard))
        assert not taken
        sim.finish(sim.ledger[0].task_id)
        await until(lambda: taken)
        assert taken[0].task_id != first.task_id


async def test_a_task_that_was_given_up_is_polled_when_its_handle_is_asked_for(
    sim: Simulator, tmp_path: Path, connect: Connect
) -> None:
    hasty = Timings(polling=PollTimings(idle=0.0, give_up=0.0, idle_sweep=0.05))
    async with connect(sim, extensions=[Handles()], timings=hasty) as caller:
        handle = await handle_of(caller)
        await until(lambda: rows(tmp_path)[0]["given_up_at"] is not None)
    sim.finish(sim.ledger[0].task_id)
    async with connect(sim, extensions=[Handles()]) as caller:
        with anyio.fail_after(PATIENCE):
            while (await ask(caller, "tasks/get", handle.task_id))["status"] == "working":
                pass


async def test_every_tool_that_spends_gives_a_handle(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        task_id = await imagine(caller)
        sim.finish(task_id)
        await caller.task("get_task", task_id=task_id, wait_seconds=20)
        calls: dict[str, dict[str, Any]] = {
            "upscale_image": {"task_id": task_id, "index": 1},
            "vary_image": {"task_id": task_id, "index": 2},
            "reroll": {"task_id": task_id},
            "simple_change": {"content": f"{task_id} V3"},
        }
        handles = {(await handle_of(caller, tool, **arguments)).task_id for tool, arguments in calls.items()}
    assert len(handles) == len(calls) == len(sim.ledger) - 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_client_that_does_not_declare_it_never_gets_one(
    protocol: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, protocol=protocol) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=1)
        assert task["status"] == "queued"
        code = await refused(caller, "tasks/get", task["submission_id"])
    assert code == (-32021 if protocol == "2026-07-28" else -32601)


async def test_a_call_that_asks_for_the_id_at_once_gets_it(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        answer = await take(caller, "generate_image", prompt="a mug", wait_seconds=0)
        assert isinstance(answer, CallToolResult)
        assert answer.structured_content is not None
        assert answer.structured_content["task_id"] == sim.ledger[0].task_id


async def test_the_same_call_again_gets_the_same_handle_and_buys_nothing(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        first, again = await handle_of(caller), await handle_of(caller)
        assert again.task_id == first.task_id
        sim.finish(sim.ledger[0].task_id)
        await caller.task("get_task", task_id=first.task_id, wait_seconds=20)
        finished = await take(caller, "generate_image", prompt="a mug")
    assert isinstance(finished, CallToolResult)
    assert finished.structured_content is not None
    assert finished.structured_content["duplicate_of"] == first.task_id
    assert len(sim.ledger) == 1


async def test_what_fails_at_once_is_an_error_and_no_handle(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        wrong = await take(caller, "generate_image", prompt="a mug", chaos=500)
        assert isinstance(wrong, CallToolResult)
        assert error_of(wrong)["code"] == "invalid_request"
        sim.inject("submit", faults.banned_word())
        no = await take(caller, "generate_image", prompt="a mug")
        assert isinstance(no, CallToolResult)
        assert error_of(no)["code"] == "prompt_refused"
    assert sim.faults_left() == 0
    assert sim.ledger == []


async def test_a_job_that_fails_is_completed_with_an_error_of_the_tool(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        handle = await handle_of(caller)
        sim.fail(sim.ledger[0].task_id, "the model broke")
        await caller.call("get_task", task_id=handle.task_id, wait_seconds=20)
        done = await ask(caller, "tasks/get", handle.task_id)
    assert done["status"] == "completed"
    assert "the model broke" in error_of(CallToolResult.model_validate(done["result"]))["message"]


async def test_a_submit_whose_answer_is_lost_ends_as_unconfirmed_and_is_not_bought_again(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        sim.inject("submit", faults.close_after_accept())
        answer = await take(caller, "generate_image", prompt="a mug")
        assert isinstance(answer, CallToolResult)
        error = error_of(answer)
        assert error["code"] == "unconfirmed"
        done = await ask(caller, "tasks/get", error["submission_id"])
    assert done["status"] == "completed"
    assert done["statusMessage"] == "unconfirmed"
    assert len(sim.ledger) == 1


async def test_cancel_and_update_are_acknowledged_and_stop_nothing(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        handle = await handle_of(caller)
        for method in ("tasks/cancel", "tasks/update"):
            assert await ask(caller, method, handle.task_id) == {"resultType": "complete"}
        sim.finish(sim.ledger[0].task_id)
        await caller.call("get_task", task_id=handle.task_id, wait_seconds=20)
        assert (await ask(caller, "tasks/get", handle.task_id))["status"] == "completed"


@pytest.mark.parametrize("task_id", ["sub_" + "0" * 32, "nobody", "", "\u202e" * 300])
async def test_an_id_that_is_no_handle_is_unknown_and_no_request_is_made_for_it(
    task_id: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, extensions=[Handles()]) as caller:
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            assert await refused(caller, method, task_id) == -32602
    assert sim.polls() == []


async def test_the_proxys_own_id_is_no_handle(sim: Simulator, connect: Connect) -> None:
    """It can be guessed."""
    async with connect(sim, extensions=[Handles()]) as caller:
        await handle_of(caller)
        assert await refused(caller, "tasks/get", sim.ledger[0].task_id) == -32602


async def test_a_handle_outlives_the_process_that_gave_it(sim: Simulator, spawn: Connect) -> None:
    async with spawn(sim, extensions=[Handles()]) as caller:
        handle = await handle_of(caller)
        caller.kill()
    sim.finish(sim.ledger[0].task_id)
    async with spawn(sim, extensions=[Handles()]) as caller:
        await caller.task("get_task", task_id=handle.task_id, wait_seconds=20)
        assert (await ask(caller, "tasks/get", handle.task_id))["status"] == "completed"
    assert len(sim.ledger) == 1


async def test_a_handle_is_bound_to_its_owner(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    async with serve_http(sim) as served:
        handles = {}
        for name in ("anna", "bert"):
            token = add_token(tmp_path / "data" / "tokens.json", name, SCOPES, now=0.0)
            http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
            transport = streamable_http_client(served.url, http_client=http)
            async with http, Client(transport, mode="2026-07-28", extensions=[Handles()]) as client:
                caller = Caller(client)
                handles[name] = (await handle_of(caller, prompt=f"a mug for {name}")).task_id
                assert (await ask(caller, "tasks/get", handles[name]))["status"] == "working"
                if name == "bert":
                    assert await refused(caller, "tasks/get", handles["anna"]) == -32602


async def test_a_routing_header_that_names_another_task_is_refused(sim: Simulator, serve_http: Serve) -> None:
    meta = META | {"io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}}}
    async with serve_http(sim) as served, by_hand(served) as client:

        async def post(method: str, header: str, **params: Any) -> dict[str, Any]:
            headers = ASKING | {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": header}
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
            answer = await client.post("/mcp", headers=headers, json=body)
            lines = [
                line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith(("data: {", "{"))
            ]
            return dict(json.loads(lines[-1]))

        bought = await post("tools/call", "generate_image", name="generate_image", arguments={"prompt": "a mug"})
        task_id = bought["result"]["taskId"]
        assert (await post("tasks/get", "another", taskId=task_id))["error"]["code"] == -32020
        assert (await post("tasks/get", task_id, taskId=task_id))["result"]["status"] == "working"
