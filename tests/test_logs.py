"""What is logged: JSON lines on stderr, everybody's in one form, and no secret in any of them.

`configure` sets up a whole process, so each test runs one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Caller

from mj_mcp.logs import HIDDEN, redactor
from mj_mcp.simulator import Simulator

SECRET = 'can"ary\\key+5f1b/=%'

SETUP = f"""
import logging, sys, warnings
import structlog
from mj_mcp import logs
logs.configure(level="debug", style=sys.argv[1], redact=logs.redactor({SECRET!r}))
log = structlog.get_logger("mj_mcp.test")
std = logging.getLogger("mcp.server")
secret = {SECRET!r}
"""


def run(program: str, style: str = "json") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SETUP + program, style], capture_output=True, text=True, check=True, timeout=30
    )


def logged(program: str) -> list[dict[str, Any]]:
    """The lines that this program logs; nothing may be on stdout, and no secret anywhere."""
    done = run(program)
    assert done.stdout == ""
    assert_no_secret(done.stderr)
    return [json.loads(line) for line in done.stderr.splitlines()]


def assert_no_secret(text: str) -> None:
    for form in (SECRET, json.dumps(SECRET)[1:-1], json.dumps(json.dumps(SECRET)[1:-1])[1:-1], "canary", "5f1b"):
        assert form not in text


def test_an_event_is_one_json_line_with_time_level_and_name() -> None:
    (line,) = logged("log.info('tool_call', tool='reroll', ms=1.5, code=None)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "tool_call",
        "level": "info",
        "logger": "mj_mcp.test",
        "tool": "reroll",
        "ms": 1.5,
        "code": None,
    }


def test_loggers_of_the_standard_library_join_in_the_same_form() -> None:
    first, second = logged("std.warning('left %s', 'early', extra={'session': 3}); log.warning('left')")
    assert (first["event"], first["logger"], first["session"]) == ("left early", "mcp.server", 3)
    assert set(first) - {"session"} == set(second)


def test_a_bound_call_id_is_on_every_line_also_on_those_of_others() -> None:
    with_id = "with structlog.contextvars.bound_contextvars(call_id='c1'): log.info('a'); std.info('b')"
    assert [line["call_id"] for line in logged(with_id)] == ["c1", "c1"]


def test_pythons_warnings_join_in() -> None:
    (line,) = logged("warnings.warn('old: ' + secret)")
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert HIDDEN in line["event"]


def test_httpx_is_quiet_below_a_warning() -> None:
    assert logged("logging.getLogger('httpx').info('GET https://x/?sig=1'); log.info('end')")[0]["event"] == "end"


@pytest.mark.parametrize(
    "call",
    [
        "log.info(f'it is {secret}')",
        "log.info('x', value=secret)",
        "log.info('x', value={'deep': [{'er': (secret,)}], secret: {secret}})",
        "log.info('x', value=secret.encode())",
        "log.info('x', value=type('T', (), {'__str__': lambda self: secret})())",
        "log.info('x', value=ValueError(secret))",
        "import json; log.info(json.dumps({'key': secret}))",
        "import urllib.parse; log.info(urllib.parse.quote(secret, safe=''))",
        "log.info(repr(secret))",
        "std.info('it is %s', secret)",
        "std.info('it is %(key)s', {'key': secret})",
        "std.info('x', extra={'value': [secret]})",
        "structlog.contextvars.bind_contextvars(value=secret); std.info('x')",
        "log.bind(value=secret).info('x')",
    ],
)
def test_the_key_is_taken_out_wherever_it_stands(call: str) -> None:
    (line,) = logged(call)
    assert HIDDEN in json.dumps(line)


@pytest.mark.parametrize("logger", ["log", "std"])
def test_the_key_is_taken_out_of_tracebacks_and_their_causes(logger: str) -> None:
    program = f"""
def low(): raise KeyError(secret)
try:
    try:
        low()
    except KeyError as cause:
        raise ValueError('Authorization: Bearer abcdef123456 at https://cdn/x.png?sig=5f1b') from cause
except ValueError:
    {logger}.exception('failed')
"""
    (line,) = logged(program)
    assert "KeyError" in line["exception"]
    assert "ValueError" in line["exception"]
    assert line["exception"].count(HIDDEN) >= 3
    assert "abcdef123456" not in line["exception"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer eyJhbGci.5f1b-_~+/=", "Authorization: Bearer [redacted]"),
        ("{'authorization': 'bearer abc5f1b'}", "{'authorization': 'bearer [redacted]'}"),
        ("https://cdn.example/a/1.png?ex=6&is=5f1b&hm=5f1b", "https://cdn.example/a/1.png?[redacted]"),
        ("<https://cdn.example/1.png?sig=5f1b> and on", "<https://cdn.example/1.png?[redacted]> and on"),
        ("GET /pictures/1.png?sig=5f1b&exp=7 200", "GET /pictures/1.png?sig=[redacted]&exp=[redacted] 200"),
        ("/x?size=3&X-Amz-Signature=5f1b", "/x?size=3&X-Amz-Signature=[redacted]"),
        ("a prompt, with ? and = and & in it", "a prompt, with ? and = and & in it"),
    ],
)
def test_bearer_tokens_and_link_signatures_are_taken_out(text: str, kept: str) -> None:
    first, second = logged(f"log.info({text!r}); std.info('x', extra={{'value': [{text!r}]}})")
    assert first["event"] == kept
    assert second["value"] == [kept]


def test_a_redactor_without_a_secret_changes_nothing() -> None:
    assert redactor("")("text") == "text"


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert redactor("abc", "abcdef")("abcdef abc") == f"{HIDDEN} {HIDDEN}"


def test_console_style_is_text_and_keeps_the_secrets_out_too() -> None:
    program = "\ntry:\n    raise ValueError(secret)\nexcept ValueError:\n    log.exception('failed', value=secret)\n"
    done = run(program, "console")
    assert done.stdout == ""
    assert_no_secret(done.stderr)
    assert "failed" in done.stderr
    assert "Traceback" in done.stderr
    assert "UserWarning" not in done.stderr, "structlog warns when it cannot format tracebacks as it likes"
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stderr.splitlines()[0])


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    import pty  # noqa: PLC0415 - POSIX only

    assert json.loads(run("log.info('hello')", "auto").stderr)["event"] == "hello"
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", f"{SETUP}log.info('hello')", "auto"], stderr=theirs, check=True, timeout=30
        )
        text = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "hello" in text
    assert not text.startswith("{")


@pytest.mark.anyio
async def test_a_servers_log_tells_the_whole_story_of_a_call_and_no_secret(
    sim: Simulator, spawn: Callable[..., AbstractAsyncContextManager[Caller]], tmp_path: Path
) -> None:
    async with spawn(sim, MJ_LOG_LEVEL="debug") as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(task["task_id"])
        done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
        await caller.error("get_task", task_id="no such id!", wait_seconds=0)
        calls = caller.logged("tool_call")
        requests = caller.logged("upstream_request")
    assert [(line["tool"], line["outcome"], line.get("code")) for line in calls] == [
        ("generate_image", "ok", None),
        ("get_task", "ok", None),
        ("get_task", "error", "invalid_request"),
    ]
    bought, waited, _ = calls
    assert bought["task_id"] == waited["task_id"] == task["task_id"]
    assert waited["polls"] >= 1
    assert {"call_id", "ms", "polls", "waited"} <= bought.keys() & waited.keys()
    post = requests[0]
    assert {
        "method": "POST",
        "path": "/mj/submit/imagine",
        "status": 200,
        "code": 1,
        "attempt": 1,
    }.items() <= post.items()
    assert post["call_id"] == bought["call_id"]
    assert post["ms"] > 0
    text = (tmp_path / "server.log").read_text()
    assert KEY not in text
    for image in done["images"]:
        assert image["url"].partition("sig=")[2].partition("&")[0] not in text
