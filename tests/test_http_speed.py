"""What makes answers over HTTP fast, held where it can be seen without a clock."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mj_mcp.server.http import TAKEN_AT_ONCE, listen, serve_http
from mj_mcp.settings import Settings


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_half(
    settings_for: Callable[..., Settings],
) -> None:
    with (
        listen("127.0.0.1", 0, settings_for("http://127.0.0.1:9"), protected=False) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_crowd_at_the_door_waits_there_and_is_let_in_a_few_at_a_time(
    settings_for: Callable[..., Settings],
) -> None:
    crowd, begun, turn, heard = 100, Counter[int](), 0, asyncio.Condition()

    async def answer(_request: Request) -> Response:
        begun[turn] += 1
        async with heard:
            heard.notify_all()
        return Response()

    async def until(count: int) -> None:
        async with asyncio.timeout(30), heard:
            await heard.wait_for(lambda: begun.total() == count)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen("127.0.0.1", 0, settings_for("http://127.0.0.1:9"), protected=False))

        def come() -> None:  # without the event loop's help, so whoever comes waits for its next turn
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
            client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

        app = Starlette(routes=[Route("/", answer)])
        tasks = [asyncio.create_task(serve_http(app, listener, on_stop=lambda: None))]
        come()
        await until(1)
        begun.clear()
        tasks.append(asyncio.create_task(count_turns()))
        for _ in range(crowd):
            come()
        await until(crowd)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert max(begun.values()) <= TAKEN_AT_ONCE
