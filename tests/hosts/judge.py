"""What each client has to do, and what has to reach its caller.

A check gives a list of losses, each a few words; an empty list is a check that passed.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mj_mcp.simulator import Simulator, faults

CHECKS = ("tools", "success", "argument error", "refused prompt", "busy", "unconfirmed", "view", "charges")
SLOW_JOB = "job of 14 s"
SLOW_JOB_SECONDS = 14.0
MOST_CALLS = 8
ERROR_OBJECT = "io.github.mj-mcp/error"
VIEW_EDGE = 256
"""Pixels asked of `view_image`: no contact sheet has this size."""

_SUBMISSION = re.compile(r"submission_id: (\S+)")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1000,}=*")
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Reached:
    """What a client gave to its caller: text, pictures in base64, and what only some clients give.

    `error`: whether the client calls it an error; `meta`: the result's; `raised`: the exception instead of an answer.
    """

    text: str
    pictures: list[str]
    structured: dict[str, Any] | None = None
    error: bool | None = None
    meta: dict[str, Any] | None = None
    raised: str = ""


Call = Callable[..., Awaitable[Reached]]
Tools = list[dict[str, Any]]


# --- the tools


def compare(ours: Tools, theirs: Tools) -> dict[str, list[str]]:
    """Which kinds of loss there are between the tools of the server and those that the client declares, and where."""
    found = {tool["name"]: tool for tool in theirs}
    losses: dict[str, list[str]] = {}
    for tool in ours:
        name = tool["name"]
        if name not in found:
            losses[f"no {name}"] = [name]
            continue
        for kind, place in _lost_of_tool(tool, found[name]):
            losses.setdefault(kind, []).append(f"{name}.{place}")
    return losses


def _lost_of_tool(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if ours["description"] not in (theirs.get("description") or ""):
        yield "description", ""
    mine, other = ours["schema"], theirs["schema"] or {}
    if set(mine.get("required", ())) != set(other.get("required") or ()):
        yield "required", ""
    properties = other.get("properties") or {}
    for name, node in mine.get("properties", {}).items():
        for kind in _lost_of_node(node, properties[name]) if name in properties else ["argument"]:
            yield kind, name


def _lost_of_node(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Losses of one argument; a client may add null to what may be left out."""
    choices = [theirs, *(theirs.get("anyOf") or ())]
    if ours.get("description", "") not in _first(choices, "description", ""):
        yield "description"
    kinds = {str(kind).lower() for choice in choices for kind in _as_list(choice.get("type"))}
    if not kinds.intersection(_as_list(ours.get("type"))):
        yield "type"
    bounds = [bound for bound in ("minimum", "maximum") if bound in ours]
    if any(_first(choices, bound, None) != ours[bound] for bound in bounds):
        yield "limits"
    if "items" in ours:
        yield from (f"item {loss}" for loss in _lost_of_node(ours["items"], _first(choices, "items", {})))


def _first(choices: list[dict[str, Any]], key: str, default: Any) -> Any:
    return next((choice[key] for choice in choices if choice.get(key) is not None), default)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- the calls


async def make_calls(call: Call, proxy: Simulator) -> dict[str, list[str]]:
    """Losses by check. The proxy's jobs take less than a second; it is told to charge twice and to refuse twice."""
    found = {}
    reached = await call("generate_image", prompt="a red fox in the snow", wait_seconds=20)
    task_id = proxy.ledger[0].task_id if proxy.ledger else "a charge"
    found["success"] = [*_lost_text(reached, task_id, "succeeded"), *_lost_picture(reached), *_lost_message(reached)]
    reached = await call("generate_image", prompt="a red fox", aspect_ratio="wide", version="99")
    found["argument error"] = _lost_error(reached, "invalid_request", "`aspect_ratio`", "`version`")
    reached = await call("generate_image", prompt="a forbiddenword in the snow")
    found["refused prompt"] = _lost_error(reached, "prompt_refused", "forbiddenword")
    proxy.inject("imagine", faults.code(23))
    reached = await call("generate_image", prompt="a grey fox in the snow")
    found["busy"] = [*_lost_error(reached, "busy"), *_not_fired(proxy, "code_23")]
    proxy.inject("imagine", faults.reset_after_accept())
    reached = await call("generate_image", prompt="a black fox in the snow")
    found["unconfirmed"] = [
        *_lost_error(reached, "unconfirmed", "not submit it again"),
        *([] if _SUBMISSION.search(reached.text) else ["no submission_id"]),
        *_not_fired(proxy, "reset_after_accept"),
    ]
    reached = await call("view_image", task_id=task_id, index=2, max_edge=VIEW_EDGE)
    found["view"] = [*_lost_text(reached, task_id), *_lost_picture(reached, VIEW_EDGE)]
    submits, charged = len(proxy.submits()), len(proxy.ledger)
    found["charges"] = [] if (submits, charged) == (4, 2) else [f"{submits} submits and {charged} charges, not 4 and 2"]
    return found


async def play_slow_job(call: Call, proxy: Simulator) -> list[str]:
    """Losses where a model uses a client that cuts calls: it repeats what was cut, and follows the advice.

    When it has the picture, it asks for it once more, as one does that never heard of it: that must not buy.
    """
    wanted = ("generate_image", {"prompt": "a red fox in the snow"})
    step: tuple[str, dict[str, Any]] = wanted
    for _ in range(MOST_CALLS):
        reached = await call(step[0], **step[1])
        if not _lost_picture(reached):
            break
        step = _advised(reached) or step
    again = await call(wanted[0], **wanted[1])
    submits = len(proxy.submits())
    return [
        *_lost_picture(reached),
        *([] if "Nothing new was started" in again.text else ["a repeat that does not say that nothing was started"]),
        *([] if submits == 1 else [f"{submits} submits"]),
    ]


def _advised(reached: Reached) -> tuple[str, dict[str, Any]] | None:
    """The call that the text proposes, as a model reads it."""
    found = re.search(r"get_task with task_id=\W*([\w-]+)\W+(?:and wait_seconds=(\d+))?", reached.text)
    return ("get_task", {"task_id": found[1], "wait_seconds": int(found[2] or 0)}) if found else None


def _lost_text(reached: Reached, *words: str) -> list[str]:
    losses = [f"no {word!r} in the text" for word in words if word not in reached.text]
    if reached.error or reached.raised:
        losses.append("called an error")
    if _BASE64.search(reached.text):
        losses.append("base64 in the text")
    return losses


def _lost_message(reached: Reached) -> list[str]:
    """Hosts that show the structured content alone need the text's words in it."""
    if reached.structured is None or reached.structured.get("message", "?") in reached.text:
        return []
    return ["no message in the structured content"]


def _lost_error(reached: Reached, code: str, *words: str) -> list[str]:
    losses = [] if re.search(rf"\b{code}: ", reached.text) else ["no code"]
    losses += [f"no {word!r}" for word in words if word not in reached.text]
    if reached.meta is not None and reached.meta.get(ERROR_OBJECT, {}).get("code") != code:
        losses.append("no error object")
    return losses + (["not called an error"] if reached.error is False else [])


def _lost_picture(reached: Reached, edge: int | None = None) -> list[str]:
    in_text = _BASE64.search(reached.text)
    if not reached.pictures and not in_text:
        return ["no picture"]
    data = reached.pictures[0] if reached.pictures else in_text[0] if in_text else ""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data.translate(_URL_SAFE)))) as image:
            image.load()
    except (ValueError, OSError):
        return ["a picture that cannot be read"]
    return [] if edge in (None, max(image.size)) else [f"a picture of {max(image.size)} pixels"]


def _not_fired(proxy: Simulator, fault: str) -> list[str]:
    return [] if proxy.fired[fault] == 1 else [f"the fault {fault} met no request"]
