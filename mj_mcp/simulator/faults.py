"""Faults as values: one function for each thing that can go wrong.

Owns what goes wrong and the name under which it is counted: that of the function. `status` and `code` add their number
("status_502", "code_23"); `lost_upstream` is counted under what the relay says.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from mj_mcp.simulator.fault import Fault as Fault  # noqa: PLC0414  # for who writes one of their own
from mj_mcp.simulator.listener import JSON, Reply

Lost = Literal[
    "do_request_failed",
    "read_response_body_failed",
    "unmarshal_response_body_failed",
    "insert_midjourney_task_failed",
]
"""The words with which newapi says that it lost its upstream's answer."""

_INSTANCE: Final = "1118138338562560102"
_ACCEPTED: Final = frozenset({1, 21, 22})
_UNSET: Final = object()
_BACK: Final = {
    "TASK_STATUS_PROCESSING": "TASK_STATUS_QUEUED",
    "TASK_STATUS_SUCCEED": "TASK_STATUS_PROCESSING",
    "TASK_STATUS_FAILED": "TASK_STATUS_PROCESSING",
    "SUBMITTED": "NOT_START",
    "IN_PROGRESS": "SUBMITTED",
    "SUCCESS": "IN_PROGRESS",
    "FAILURE": "IN_PROGRESS",
}
_PICTURES: Final = ("images", "videos", "audios", "imageUrl", "imageUrls", "videoUrl", "videoUrls", "buttons")
_CHALLENGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head>"
    b"<body><h1>Checking your browser</h1><script>/* challenge */</script></body></html>\n"
)


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


# --- submits of the family


def lost_upstream(why: Lost = "do_request_failed", *, accept: bool = True) -> Fault:
    """Lose the upstream's answer, as newapi does: the job exists and is charged, unless `accept` is false."""
    return _relay(400, 4 if why == "insert_midjourney_task_failed" else 5, f"{why} ", why, accept=accept)


def quota_not_enough() -> Fault:
    """Refuse for lack of money, as newapi does."""
    return _relay(400, 4, "quota_not_enough ", "quota_not_enough")


def saturated() -> Fault:
    """Refuse by 429 and code 30, as newapi does."""
    said = "当前分组上游负载已饱和 当前分组负载已饱和\uff0c请稍后再试\uff0c或升级账户以提升服务质量。"
    return _relay(429, 30, said, "saturated")


def queue_full(number: Literal[9, 23] = 23) -> Fault:
    """Refuse for a full queue: 23 as classic does, 9 as plus does."""
    words = {9: "提交失败\uff0c队列已满\uff0c请稍后重试", 23: "队列已满\uff0c请稍后尝试"}
    fault = code(number, description=words[number], result=None, properties={"discordInstanceId": _INSTANCE})
    return replace(fault, name="queue_full")


def queued(ahead: int = 1, number: Literal[1, 22] = 22) -> Fault:
    """Accept, and name the jobs before this one: 22, which newapi rewrites to 1."""
    properties = {"numberOfQueues": ahead, "discordInstanceId": _INSTANCE}
    description = f"排队中\uff0c前面还有{ahead}个任务"
    return replace(code(number, description=description, properties=properties, accept=True), name="queued")


def banned_word(word: str = "nude") -> Fault:
    """Refuse a prompt, as classic does: newapi hands it on."""
    properties = {"promptEn": f"a {word}", "bannedWord": word}
    return replace(code(24, description="可能包含敏感词", properties=properties, result=None), name="banned_word")


def no_account() -> Fault:
    """Refuse because no account of Midjourney is free."""
    return replace(code(3, description="无可用的账号实例", properties={}, result=None), name="no_account")


def unknown_parent() -> Fault:
    """Refuse by 404 and code 3, as plus does for a parent that it does not know (any more)."""
    fault = code(3, http_status=404, description="关联任务不存在或已失效", properties={}, result=None)
    return replace(fault, name="unknown_parent")


def already(task_id: str, number: Literal[1, 21] = 21) -> Fault:
    """Name an existing task instead of making one: 21, which newapi rewrites to 1."""
    fault = code(number, description="任务已存在", properties={"status": "SUCCESS"}, result=task_id)
    return replace(fault, name="already")


def _relay(status: int, number: int, description: str, name: str, *, accept: bool = False) -> Fault:
    body = json.dumps({"description": description, "type": "upstream_error", "code": number}).encode()
    return Fault(name=name, accept=accept, reply=Reply(status, body, JSON))


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
        task = answer.get("task", answer)
        earlier = _BACK.get(task["status"])
        if earlier is None:
            return None
        if task is answer:
            return _pictureless(answer) | {"status": earlier, "failReason": None, "progress": "0%", "finishTime": None}
        return answer | {"task": task | {"status": earlier, "reason": "", "progress_percent": 0}, "images": []}

    return Fault(name="backwards", edit=edit)


def status_text(text: str | None) -> Fault:
    """Show any status: TASK_STATUS_CANCELED, an unknown one, an empty one, null."""

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        if "task" in answer:
            return answer | {"task": answer["task"] | {"status": text}}
        return answer | {"status": text}

    return Fault(name="status_text", edit=edit)


def images_null() -> Fault:
    """Give null for every list and link of pictures."""
    return Fault(name="images_null", edit=_pictureless)


def images_missing() -> Fault:
    """Leave every list and link of pictures out."""

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in answer.items() if name not in _PICTURES}

    return Fault(name="images_missing", edit=edit)


def progress_text(text: str | None) -> Fault:
    """Show any progress of a flat task: "45%", "", null, "Waiting to start"."""
    return Fault(name="progress_text", edit=lambda answer: None if "task" in answer else answer | {"progress": text})


def _pictureless(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | dict.fromkeys(name for name in _PICTURES if name in answer)
