"""The simulator's connections, and how it starts and ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from simulators import BEARER, Agent

from mj_mcp.simulator import Charge, Simulator, faults

pytestmark = pytest.mark.anyio


async def test_a_connection_is_kept_and_used_again(agent: Agent) -> None:
    sim = agent.sim
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    for _ in range(2):
        writer.write(b"GET /mj/task/1/fetch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()


async def test_a_client_may_ask_before_it_sends_its_body(agent: Agent) -> None:
    sim = agent.sim
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    head = "POST /mj/submit/imagine HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.format(2).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"{}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()
    await writer.wait_closed()


async def test_a_body_beyond_a_megabyte_is_not_read(agent: Agent) -> None:
    try:
        answer = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", content=bytes(1_200_000), headers=BEARER)
    except httpx.TransportError:
        pass  # the answer was lost to the reset that unread bytes cause
    else:
        assert answer.status_code == 413
    assert agent.sim.requests == []


async def test_leaving_ends_what_hangs_and_drips(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=None) as sim:
        agent = Agent(sim, http)
        sim.inject("fetch", faults.hang())
        sim.inject("fetch", faults.delay(100))
        sim.inject("fetch", faults.drip_body(100))
        task_id = await agent.imagine()
        pending = [asyncio.create_task(agent.fetch(task_id)) for _ in range(3)]
        await sim.until(lambda: sim.fired.total() == 3)
        closed = asyncio.create_task(sim.wait_closed())
        await asyncio.sleep(0)
        assert not closed.done()
    ends = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ends)
    await closed


async def test_it_may_be_left_while_it_does_not_listen() -> None:
    async with Simulator() as sim:
        await sim.stop_listening()
        await sim.stop_listening()
    async with Simulator(port=sim.port) as again:
        assert again.port == sim.port


async def test_a_port_that_is_taken_is_an_error_at_the_start(sim: Simulator, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        async with Simulator(port=sim.port, ledger_path=tmp_path / "ledger"):
            pass


async def test_an_error_of_its_own_is_never_mistaken_for_a_fault(http: httpx.AsyncClient) -> None:
    def complain(charge: Charge) -> None:
        raise AssertionError("no row in the journal")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # the simulator raises when it is left
        async with Simulator(job_seconds=None, on_charge=complain) as sim:
            with pytest.raises(httpx.TransportError):
                await Agent(sim, http).imagine()
    assert [str(error) for error in caught.value.exceptions] == ["no row in the journal"]


async def test_it_writes_nothing_to_stdout_or_stderr(
    http: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    async with Simulator(job_seconds=None, image_edge=64) as sim:
        agent = Agent(sim, http)
        await http.get((await agent.links(await agent.grid()))[0])
    assert capfd.readouterr() == ("", "")
