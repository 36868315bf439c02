"""Faults as values, and the script that decides which request gets which fault.

Owns what can go wrong, the name under which it is counted, and the queues. Knows nothing of tasks or sockets: a fault
says what shall happen, and the simulator and the listener do it.

`accept` says whether the request still takes effect: for a submit, whether a job is created and charged although the
answer is wrong. Names are those of the functions; `status` and `code` add their number ("status_502", "code_23").
"""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from mj_mcp.simulator.listener import JSON, Reply, Way

Edit = Callable[[dict[str, Any]], dict[str, Any] | None]

TARGETS: Final = frozenset({"submit", "fetch", "picture", "imagine", "change", "simple-change"})

_ACCEPTED: Final = frozenset({1, 21, 22})
_UNSET: Final = object()
_BACK: Final = {
    "TASK_STATUS_PROCESSING": "TASK_STATUS_QUEUED",
    "TASK_STATUS_SUCCEED": "TASK_STATUS_PROCESSING",
    "TASK_STATUS_FAILED": "TASK_STATUS_PROCESSING",
}
_CHALLENGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head>"
    b"<body><h1>Checking your browser</h1><script>/* challenge */</script></body></html>\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request.

    Attributes:
        name: What `Simulator.fired` counts.
        accept: Whether the request takes effect.
        delay: Seconds of silence, before the request takes effect when `delay_first`, else after.
        until: The answer to a request that took effect waits for this.
        way: How the reply leaves; `pace` is the seconds between two bytes of a drip.
        reply: Replaces the answer.
        edit: Changes the JSON object of the answer; None when this answer offers nothing to change.
        http_status: Replaces the status of the answer.
        effect: What happens to the task before the poll is answered; `task_id` when it is another than the one asked.
    """

    name: str
    accept: bool = True
    delay: float = 0.0
    delay_first: bool = False
    until: asyncio.Event | None = None
    way: Way = "whole"
    pace: float = 0.0
    reply: Reply | None = None
    edit: Edit | None = field(default=None, repr=False, compare=False)
    http_status: int | None = None
    effect: Literal["forget", "stuck"] | None = None
    task_id: str | None = None

    def applied(self, reply: Reply) -> Reply | None:
        """Return the answer changed by this fault; None if there is nothing that it can change."""
        if self.reply is not None:
            reply = self.reply
        if self.edit is not None:
            edited = _edited(reply, self.edit)
            if edited is None:
                return None
            reply = edited
        if self.way in ("half", "drip") and not reply.body:
            return None
        reply = replace(reply, status=self.http_status or reply.status)
        return reply if self.way == "whole" else replace(reply, way=self.way, pace=self.pace)


def _edited(reply: Reply, edit: Edit) -> Reply | None:
    if not isinstance(reply.body, bytes) or not reply.body:
        return None
    answer = json.loads(reply.body)
    changed = edit(answer) if isinstance(answer, dict) else None
    return None if changed is None else replace(reply, body=json.dumps(changed).encode())


# --- the connection


def delay(seconds: float, *, before_accept: bool = False) -> Fault:
    """Answer late: the job exists during the silence, or only after it when `before_accept`."""
    return Fault(name="delay", delay=seconds, delay_first=before_accept)


def held(until: asyncio.Event) -> Fault:
    """Let the request take effect, and answer when a test says so."""
    return Fault(name="held", until=until)


def hang(*, after_accept: bool = True) -> Fault:
    """Never answer, until the connection closes or the simulator stops."""
    return Fault(name="hang", accept=after_accept, way="hang")


def reset_before_accept() -> Fault:
    """Reset the connection; the request had no effect."""
    return Fault(name="reset_before_accept", accept=False, way="reset")


def reset_after_accept() -> Fault:
    """Reset the connection after the request took effect."""
    return Fault(name="reset_after_accept", way="reset")


def close_before_accept() -> Fault:
    """Close cleanly without an answer; the request had no effect."""
    return Fault(name="close_before_accept", accept=False, way="close")


def close_after_accept() -> Fault:
    """Close cleanly without an answer after the request took effect."""
    return Fault(name="close_after_accept", way="close")


def half_body() -> Fault:
    """Send the head and half of the body, then close."""
    return Fault(name="half_body", way="half")


def drip_body(seconds_per_byte: float) -> Fault:
    """Send the correct answer, byte by byte."""
    return Fault(name="drip_body", way="drip", pace=seconds_per_byte)


# --- the answer


def status(
    code: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, accept: bool = False, name: str = ""
) -> Fault:
    """Answer with any status, body and headers."""
    reply = Reply(code, body, tuple((headers or {}).items()))
    return Fault(name=name or f"status_{code}", accept=accept, reply=reply)


def html(status: int = 200, *, accept: bool = False, body: bytes = _CHALLENGE) -> Fault:
    """Answer with a page of HTML, like an edge server or a wrong base URL."""
    reply = Reply(status, body, (("Content-Type", "text/html; charset=utf-8"),))
    return Fault(name="html", accept=accept, reply=reply)


def wrong_json(body: bytes, *, accept: bool = False) -> Fault:
    """Answer 200 with this as JSON: `null`, `{}`, `[]`, nothing, NaN, or `deep()`."""
    return Fault(name="wrong_json", accept=accept, reply=Reply(200, body, JSON))


def deep(levels: int = 100_000) -> bytes:
    """Return JSON that is nested this deep, for `wrong_json`."""
    return b"[" * levels + b"]" * levels


def retry_after(value: str, code: int = 429, *, accept: bool = False) -> Fault:
    """Answer 429 (or another status) with this Retry-After: seconds, a date, or nonsense."""
    return status(code, headers={"Retry-After": value}, accept=accept, name="retry_after")


# --- submits


def code(
    number: int,
    *,
    http_status: int = 200,
    description: str = "so says the script",
    properties: dict[str, Any] | None = None,
    result: object = _UNSET,
    accept: bool = False,
) -> Fault:
    """Answer a submit with this code. With `accept` the job exists and `result` is its id unless given."""
    answer: dict[str, Any] = {"code": number, "description": description}
    if properties is not None:
        answer["properties"] = properties
    if result is not _UNSET:
        answer["result"] = result
    name = f"code_{number}"
    if not accept:
        return Fault(name=name, accept=False, reply=Reply(http_status, json.dumps(answer).encode(), JSON))
    return Fault(name=name, edit=lambda given: given | answer if _accepted(given) else None, http_status=http_status)


def result_as(shape: object) -> Fault:
    """Give the id of an accepted submit as "int", as "list" (of one), "missing", or as any other value itself."""

    def edit(answer: dict[str, Any]) -> dict[str, Any] | None:
        if not _accepted(answer):
            return None
        rest = {name: value for name, value in answer.items() if name != "result"}
        match shape:
            case "missing":
                return rest
            case "int":
                return rest | {"result": int(answer["result"])}
            case "list":
                return rest | {"result": [answer["result"]]}
        return rest | {"result": shape}

    return Fault(name="result_as", edit=edit)


def _accepted(answer: dict[str, Any]) -> bool:
    return answer.get("code") in _ACCEPTED


# --- fetches


def empty() -> Fault:
    """Answer one fetch with 200 and no body."""
    return Fault(name="empty", reply=Reply(200, b"", JSON))


def forget(task_id: str | None = None) -> Fault:
    """Forget the fetched task (or another), and answer as for an unknown one."""
    return Fault(name="forget", effect="forget", task_id=task_id)


def stuck(task_id: str | None = None) -> Fault:
    """Freeze the fetched task (or another) from this poll on."""
    return Fault(name="stuck", effect="stuck", task_id=task_id)


def backwards() -> Fault:
    """Show the task one status earlier than it is. Does nothing for a queued one."""

    def edit(answer: dict[str, Any]) -> dict[str, Any] | None:
        earlier = _BACK.get(answer["task"]["status"])
        if earlier is None:
            return None
        return answer | {
            "task": answer["task"] | {"status": earlier, "reason": "", "progress_percent": 0},
            "images": [],
        }

    return Fault(name="backwards", edit=edit)


def status_text(text: str | None) -> Fault:
    """Show any status: TASK_STATUS_CANCELED, an unknown one, an empty one, null."""
    return Fault(name="status_text", edit=lambda answer: answer | {"task": answer["task"] | {"status": text}})


def images_null() -> Fault:
    """Give null for images, videos and audios."""
    return Fault(name="images_null", edit=lambda answer: answer | dict.fromkeys(("images", "videos", "audios")))


def images_missing() -> Fault:
    """Leave images, videos and audios out."""
    kept = ("extra", "task")
    return Fault(name="images_missing", edit=lambda answer: {name: answer[name] for name in kept})


class Script:
    """Decides which fault the next request gets: first the injected ones in order, then random ones."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = {target: deque() for target in TARGETS}
        self._dice: dict[str, tuple[random.Random, float, tuple[Fault, ...]]] = {}

    def inject(self, where: str, fault: Fault, times: int) -> None:
        """Queue a fault for the next `times` requests of this kind. Raises ValueError for an unknown kind."""
        self._queues[_checked(where)].extend([fault] * times)

    def seed(self, seed: int, rate: float, where: Sequence[str], choices: Sequence[Fault]) -> None:
        """Choose faults for requests of these kinds at random; a rate of 0 stops that."""
        for target in where:
            dice = random.Random(f"{seed}/{target}")  # noqa: S311  # repeatable, no secret
            self._dice[_checked(target)] = (dice, rate, tuple(choices))

    def clear(self) -> None:
        """Remove queued and random faults."""
        for queue in self._queues.values():
            queue.clear()
        self._dice.clear()

    def left(self) -> int:
        """Count the injected faults that no request has got yet."""
        return sum(map(len, self._queues.values()))

    def next(self, targets: Sequence[str]) -> Fault | None:
        """Return the fault for a request that matches all of these kinds, the most specific first."""
        for target in targets:
            if self._queues[target]:
                return self._queues[target].popleft()
        for target in targets:
            dice, rate, choices = self._dice.get(target, (None, 0.0, ()))
            if dice is not None and dice.random() < rate:
                return dice.choice(choices)
        return None


def _checked(where: str) -> str:
    if where not in TARGETS:
        raise ValueError(f"no request is of kind {where!r}; they are {', '.join(sorted(TARGETS))}")
    return where
