"""What makes answers over HTTP fast, held where it can be seen without a clock."""

from __future__ import annotations

import socket
from collections.abc import Callable

from mj_mcp.server.http import listen
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
