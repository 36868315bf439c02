"""Answers of a proxy to a submit, and what is read from them."""

from __future__ import annotations

import json
from typing import Any

from mj_mcp.logs import redactor
from mj_mcp.proxy.http import Answer
from mj_mcp.proxy.outcomes import Outcome, OutcomeUnknown, Refused, read_submit
from mj_mcp.tasks import Failure

KEY = "sk-canary/5f1b+77"
ID = "1234567890123456"

redact = redactor(KEY)

PAGE = b"<!DOCTYPE html><html><body>Checking your browser <script>secret()</script></body></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000


def answer(body: object, status: int = 200, retry_after: float | None = None, location: str | None = None) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after, location)


def submitted(body: object, status: int = 200, retry_after: float | None = None) -> Outcome:
    return read_submit(answer(body, status, retry_after), redact)


def refused(body: object, status: int = 200, retry_after: float | None = None) -> Failure:
    outcome = submitted(body, status, retry_after)
    assert isinstance(outcome, Refused), outcome
    return outcome.failure


def doubtful(body: object, status: int = 200) -> str:
    outcome = submitted(body, status)
    assert isinstance(outcome, OutcomeUnknown), outcome
    return outcome.reason


CODES = {
    3: "rejected",
    4: "rejected",
    5: "rejected",
    9: "rejected",
    23: "busy",
    24: "prompt_refused",
    30: "busy",
}


def vendor(reason: str, code: int, **more: object) -> dict[str, Any]:
    return {"code": code, "reason": reason, "message": "the vendor's words", "metadata": {"trace_id": "t1"}} | more
