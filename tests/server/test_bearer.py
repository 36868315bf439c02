"""Logins that were refused, or are no longer there, never open the server again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from mj_mcp.auth.tokens import SCOPES, TokenFile, add_token, revoke_token
from mj_mcp.server.bearer import BearerAuth

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]


class Gate:
    """The reception before a small application."""

    def __init__(self, tokens: Path) -> None:
        reception = BearerAuth(TokenFile(tokens), None, "")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            # What no one has, no one can log or send on.
            assert b"authorization" not in dict(scope["headers"])
            assert scope["user"].access_token.token == ""
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["user"].access_token.subject.encode()})

        self._app = reception.protect(app)
        self.wants_login = reception.wants_login

    async def status(self, token: str) -> int:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/mcp", headers={"Authorization": f"Bearer {token}"})).status_code


async def test_a_bad_login_is_answered_401_however_many_there_were(tmp_path: Path) -> None:
    """Behind one balancer all callers share an address; a client that hears anything else does not log in again."""
    good = add_token(tmp_path / "tokens.json", "anna", SCOPES, now=0.0)
    gate = Gate(tmp_path / "tokens.json")
    found: list[int] = []

    async def guess() -> None:
        found.append(await gate.status("mjt_guess"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(guess)
        assert await gate.status(good) == 200
    assert found == [401] * 200


async def test_nobody_comes_in_by_websocket(tmp_path: Path) -> None:
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("somebody came in")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    for made in (False, True):
        if made:
            add_token(tmp_path / "tokens.json", "anna", SCOPES, now=0.0)
        reception = BearerAuth(TokenFile(tmp_path / "tokens.json"), None, "")
        await reception.protect(app)({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
    assert said == ["websocket.close"] * 2


async def test_a_server_once_closed_stays_closed(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    token = add_token(file, "anna", SCOPES, now=0.0)
    revoke_token(file, "anna")
    gate = Gate(file)
    assert gate.wants_login(), "the last token was revoked before the start"
    file.unlink()
    assert gate.wants_login(), "and now the file is gone"
    assert await gate.status(token) == 401
    assert not Gate(file).wants_login(), "no token was ever made"
