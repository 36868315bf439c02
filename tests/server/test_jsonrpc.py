"""What is no message is answered at once, on pipes and over HTTP, and the next request works.

Also: a client that begins with `server/discover` may start anew with `initialize`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from pipes import PATIENCE, SERVER, Host, host
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync
from conftest import INITIALIZE, Served, environment
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import JSONRPCError

from mj_mcp.server.jsonrpc import Read, read, write
from mj_mcp.server.stdio import LINE_BYTES
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="there the SDK's own transport serves"),
]

PARSE_ERROR, INVALID_REQUEST, UNSUPPORTED_VERSION = -32700, -32600, -32022

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN = {"_meta": META}
BOM = b"\xef\xbb\xbf"


def request(method: str, number: int = 7, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


WHOLE = json.dumps(request("ping", text="x")).encode()
BOMB = b"[" * 100_000

UNREADABLE: dict[str, tuple[bytes, int, int | None]] = {
    "no JSON at all": (b"hello", PARSE_ERROR, None),
    "a header of another protocol": (b"Content-Length: 42", PARSE_ERROR, None),
    "a truncated object": (WHOLE[:-3], PARSE_ERROR, None),
    "two objects": (WHOLE + WHOLE, PARSE_ERROR, None),
    "a NUL": (b"\0", PARSE_ERROR, None),
    "a NUL in a text": (WHOLE.replace(b'"x"', b'"\0"'), PARSE_ERROR, None),
    "a stray byte": (WHOLE.replace(b'"x"', b'"\xff"'), PARSE_ERROR, None),
    "a stray byte alone": (b"\x80", PARSE_ERROR, None),
    "only a byte-order mark": (BOM, PARSE_ERROR, None),
    "a bomb of arrays": (BOMB, PARSE_ERROR, None),
    "a bomb of objects": (b'{"a":' * 100_000, PARSE_ERROR, None),
    "too many digits": (WHOLE.replace(b'"x"', b"9" * 5000), PARSE_ERROR, None),
    "nested too deeply": (WHOLE.replace(b'"x"', b"[" * 300 + b"]" * 300), INVALID_REQUEST, 7),
    "a batch": (b"[" + WHOLE + b"]", INVALID_REQUEST, None),
    "an empty batch": (b"[]", INVALID_REQUEST, None),
    "a number": (b"42", INVALID_REQUEST, None),
    "null": (b"null", INVALID_REQUEST, None),
    "an empty object": (b"{}", INVALID_REQUEST, None),
    "no version": (WHOLE.replace(b'"jsonrpc": "2.0", ', b""), INVALID_REQUEST, 7),
    "an old version": (WHOLE.replace(b'"2.0"', b'"1.0"'), INVALID_REQUEST, 7),
    "an old version after a byte-order mark": (BOM + WHOLE.replace(b'"2.0"', b'"1.0"'), INVALID_REQUEST, 7),
    "no method": (b'{"jsonrpc": "2.0", "id": 7}', INVALID_REQUEST, 7),
    "a method that is no text": (WHOLE.replace(b'"ping"', b"3"), INVALID_REQUEST, 7),
    "params in a list": (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": []}', INVALID_REQUEST, 7),
    "an id that is null": (WHOLE.replace(b"7", b"null"), INVALID_REQUEST, None),
    "an id that is a fraction": (WHOLE.replace(b"7", b"7.5"), INVALID_REQUEST, None),
    "an id that is true": (WHOLE.replace(b"7", b"true"), INVALID_REQUEST, None),
    "a notification without a version": (b'{"method": "notifications/initialized"}', INVALID_REQUEST, None),
    "a result of no shape, whose id may be ours": (b'{"jsonrpc":"2.0","id":7,"result":1}', INVALID_REQUEST, None),
}
"""What is sent, and the code and the id of its answer."""

ANSWERS = {name: (code, number) for name, (_, code, number) in UNREADABLE.items()}


def code_and_id(answer: dict[str, Any]) -> tuple[int, int | None]:
    """The code and the id of an error."""
    assert set(answer) == {"jsonrpc", "id", "error"}
    assert set(answer["error"]) == {"code", "message"}
    return answer["error"]["code"], answer["id"]


def refuse_all(here: Host) -> dict[str, tuple[int, int | None]]:
    found = {}
    for name, (line, *_) in UNREADABLE.items():
        here.put(line + b"\n")
        found[name] = code_and_id(here.next())
    return found


def get_task(task_id: str, number: int, **extra: Any) -> dict[str, Any]:
    return request("tools/call", number, name="get_task", arguments={"task_id": task_id}, **extra)


# --- on pipes


@pytest.mark.parametrize("extra", [{}, MODERN], ids=["older", "sessionless"])
async def test_every_line_is_answered_and_the_next_request_works(
    extra: dict[str, Any], sim: Simulator, tmp_path: Path
) -> None:
    def life() -> None:
        with host(sim, tmp_path) as here:
            assert refuse_all(here) == ANSWERS  # also before the first message
            if not extra:
                here.greet()
            for line, *_ in UNREADABLE.values():
                here.put(line + b"\n")
                number = here.send("tools/list", **extra)
                assert "error" in here.next()
                answer = here.next()
                assert answer["id"] == number
                assert answer["result"]["tools"]

    await run_sync(life)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("extra", [{}, MODERN], ids=["older", "sessionless"])
async def test_a_message_behind_a_byte_order_mark_is_served(
    extra: dict[str, Any], sim: Simulator, tmp_path: Path
) -> None:
    first = request("tools/list", **extra) if extra else {**INITIALIZE, "id": 7}

    def life() -> list[dict[str, Any]]:
        with host(sim, tmp_path) as here:
            answers = []
            for message in (first, request("tools/list", 8, **extra)):
                here.put(BOM + json.dumps(message).encode() + b"\r\n")
                answers.append(here.next())
            return answers

    answers = await run_sync(life)
    assert [(answer["id"], "result" in answer) for answer in answers] == [(7, True), (8, True)]


async def test_half_of_a_surrogate_pair_is_replaced_and_the_request_served(sim: Simulator, tmp_path: Path) -> None:
    def life() -> str:
        with host(sim, tmp_path) as here:
            here.greet()
            return here.buy("a \ud83d mug \ud83d\udca1")

    task_id = await run_sync(life)
    assert [charge.task_id for charge in sim.ledger] == [task_id]
    assert sim.ledger[0].body["prompt"] == "a \ufffd mug \U0001f4a1"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_a_line_that_is_too_long_is_refused_without_being_kept(sim: Simulator, tmp_path: Path) -> None:
    def life() -> tuple[list[dict[str, Any]], int]:
        with host(sim, tmp_path) as here:
            here.greet()
            before = here.resident_bytes()
            for _ in range(100):
                here.put(b"[" * (1 << 20))
            grown = here.resident_bytes() - before
            here.put(b"\n")
            here.write(get_task("x" * LINE_BYTES, 8), request("ping", 9))
            return [here.next() for _ in range(3)], grown

    (bomb, text, ping), grown = await run_sync(life)
    assert [code_and_id(answer) for answer in (bomb, text)] == [(INVALID_REQUEST, None)] * 2
    assert str(LINE_BYTES) in bomb["error"]["message"]
    assert ping == {"jsonrpc": "2.0", "id": 9, "result": {}}
    assert grown < 4 * LINE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
async def test_an_answer_with_the_name_of_a_file_that_is_no_text_arrives(sim: Simulator, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/pictures\xff")

    def life() -> str:
        with host(sim, tmp_path, MJ_OUTPUT_DIR=folder) as here:
            here.greet()
            task_id = here.buy()
            sim.finish(task_id)
            here.ask("tools/call", name="get_task", arguments={"task_id": task_id, "wait_seconds": PATIENCE})
            saved = here.ask("tools/call", name="save_images", arguments={"task_id": task_id})
            return str(saved["result"]["content"][0]["text"])

    assert "/pictures\ufffd/" in await run_sync(life)
    assert os.listdir(folder)  # noqa: PTH208 - the folder as it is


async def test_the_last_line_needs_no_end(sim: Simulator, tmp_path: Path) -> None:
    def life(last: bytes) -> dict[str, Any]:
        with host(sim, tmp_path) as here:
            here.put(last)
            assert here.process.stdin is not None
            here.process.stdin.close()
            answer = here.next()
            assert here.process.wait(PATIENCE) == 0
            return answer

    assert code_and_id(await run_sync(life, WHOLE[:-3])) == (PARSE_ERROR, None)
    assert (await run_sync(life, json.dumps(INITIALIZE).encode()))["result"]["serverInfo"]["name"] == "mj-mcp"


async def test_what_is_no_pipe_is_answered_too(sim: Simulator, tmp_path: Path) -> None:
    """The SDK's own transport takes a stray byte for a character, and an id that is none for no id: not asked here."""
    theirs = [name for name in UNREADABLE if not name.startswith(("a stray", "an id"))]
    asked, heard = tmp_path / "asked", tmp_path / "heard"
    lines = [UNREADABLE[name][0] for name in theirs]
    opening = [request("server/discover", 1, **MODERN), {**INITIALIZE, "id": 2}]
    messages = [BOM + json.dumps(message).encode() for message in (*opening, request("ping", 3, text="\ud800"))]
    asked.write_bytes(b"\n".join([*lines, *messages]) + b"\n")

    def life() -> None:
        with asked.open("rb") as stdin, heard.open("wb") as stdout, (tmp_path / "server.log").open("ab") as log:
            subprocess.run(
                [sys.executable, *SERVER],
                env={**os.environ, **environment(sim.url, tmp_path)},
                stdin=stdin,
                stdout=stdout,
                stderr=log,
                timeout=PATIENCE,
                check=True,
            )

    await run_sync(life)
    answers = [json.loads(line) for line in heard.read_bytes().splitlines()]
    assert [code_and_id(answer) for answer in answers[: len(theirs)]] == [ANSWERS[name] for name in theirs]
    served = {answer["id"]: answer for answer in answers[len(theirs) :]}
    assert served[2]["result"]["protocolVersion"] == "2025-11-25"


# --- from one generation to the other

DISCOVER = request("server/discover", 1, **MODERN)
ANEW = {**INITIALIZE, "id": 2}
CANCELLED = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}


@pytest.mark.parametrize(
    "opening",
    [[DISCOVER], [DISCOVER, {**DISCOVER, "id": 11}], [DISCOVER, CANCELLED]],
    ids=["once", "twice", "taken back"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
async def test_initialize_after_discover_is_served(
    opening: list[dict[str, Any]], sim: Simulator, tmp_path: Path, *, at_once: bool
) -> None:
    def life() -> None:
        with host(sim, tmp_path) as here:
            if at_once:  # as a client has written when the server takes longer to start than it waits
                here.write(*opening, ANEW)
            else:
                here.write(*opening)
                if CANCELLED not in opening:
                    assert here.next()["id"] == 1
                here.write(ANEW)
            assert here.read(2)["result"]["protocolVersion"] == "2025-11-25"
            here.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
            here.write(request("tools/list", 3))
            assert here.read(3)["result"]["tools"]
            here.write(get_task("no such id", 4))
            assert here.read(4)["result"]["isError"]
            here.write(DISCOVER)
            assert code_and_id(here.read(1)) == (INVALID_REQUEST, 1)  # from here on it is the older generation

    await run_sync(life)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


async def test_a_discover_that_initialize_follows_at_once_has_its_answer_first(sim: Simulator, tmp_path: Path) -> None:
    def life() -> list[dict[str, Any]]:
        with host(sim, tmp_path) as here:
            here.write(DISCOVER, ANEW)
            return [here.next(), here.next()]

    discovered, anew = await run_sync(life)
    assert discovered["id"] == 1
    assert discovered["result"]["supportedVersions"] == ["2026-07-28"]
    assert (anew["id"], anew["result"]["protocolVersion"]) == (2, "2025-11-25")


async def test_a_client_that_has_used_the_sessionless_generation_stays_there(sim: Simulator, tmp_path: Path) -> None:
    def life() -> dict[str, Any]:
        with host(sim, tmp_path) as here:
            here.write(DISCOVER, request("tools/list", 3, **MODERN), DISCOVER)
            assert here.read(3)["result"]["tools"]
            here.write(ANEW, request("tools/list", 4, **MODERN))
            refused = here.read(2)
            assert here.read(4)["result"]["tools"]
            return refused

    assert (await run_sync(life))["error"]["code"] == UNSUPPORTED_VERSION


# --- over HTTP

Serve = Callable[..., AbstractAsyncContextManager[Served]]

ASKING = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
SESSIONLESS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_task"}
OLDER = {"MCP-Protocol-Version": "2025-11-25"}


def result(answer: httpx.Response) -> Any:
    """The result in a JSON answer or in a stream of one event."""
    assert answer.status_code == 200
    line = next(line for line in answer.text.splitlines() if "{" in line)
    return json.loads(line.removeprefix("data: "))["result"]


@pytest.mark.parametrize(
    ("headers", "options"),
    [(SESSIONLESS, ()), (OLDER, ()), (OLDER, ("--stateless",))],
    ids=["sessionless", "older, sessions", "older, stateless"],
)
async def test_every_body_is_answered_and_the_next_request_works(
    headers: dict[str, str], options: tuple[str, ...], sim: Simulator, serve_http: Serve
) -> None:
    async with (
        serve_http(sim, *options) as served,
        httpx.AsyncClient(trust_env=False, base_url=served.base, timeout=PATIENCE, headers=ASKING) as client,
    ):
        post = partial(client.post, "/mcp")
        opened = await post(json=INITIALIZE)
        if headers is OLDER and not options:
            headers = headers | {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
        extra = MODERN if headers is SESSIONLESS else {}
        found = {}
        for name, (body, *_) in UNREADABLE.items():
            answer = await post(headers=headers, content=body)
            assert (name, answer.status_code, answer.headers["Content-Type"]) == (name, 400, "application/json")
            found[name] = code_and_id(answer.json())
            assert result(await post(headers=headers, json=get_task("no such id", 8, **extra)))["isError"]
        assert found == ANSWERS
        for text in ("", "\ud800"):
            body = BOM + json.dumps(get_task(f"no such id {text}", 9, **extra)).encode()
            shown = result(await post(headers=headers, content=body))["content"][0]["text"]
            assert "no such id" in shown
            assert ("\ufffd" in shown) == bool(text)
        assert not {line["level"] for line in served.logged()} & {"error", "critical"}
        assert "Traceback" not in served.log.read_text()


# --- any bytes


@settings(max_examples=300)
@given(
    st.binary(max_size=40),
    st.integers(0, len(WHOLE)),
    st.integers(0, len(WHOLE)),
    st.booleans(),
)
def test_any_bytes_are_read_or_answered(put: bytes, start: int, end: int, alone: bool) -> None:
    raw = put if alone else WHOLE[:start] + put + WHOLE[end:]
    found = read(raw)
    if isinstance(found, JSONRPCError):
        assert code_and_id(json.loads(write(found)))[0] in {PARSE_ERROR, INVALID_REQUEST}
    else:
        assert isinstance(read(found.raw), Read)
        assert json.loads(write(found.message)).keys() <= json.loads(found.raw).keys()
