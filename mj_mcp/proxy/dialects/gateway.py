"""The gateway of the specification: the requests to it, and how its task is read.

Owns its paths and request bodies, and every field and status of its task. Knows nothing of connections.

The shapes come from the API's specification, the deviations from its public relatives.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from mj_mcp.proxy.body import MESSAGE_FIELDS, words_in
from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.http import Fields
from mj_mcp.proxy.orders import Change, Imagine, Order, Post
from mj_mcp.proxy.text import Redact, clean, clean_url
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode

MAX_IMAGES = 16


ENDS: dict[str, Status] = {
    **dict.fromkeys(("SUCCEED", "SUCCEEDED", "SUCCESS", "COMPLETED", "FINISHED", "DONE"), Status.SUCCEEDED),
    **dict.fromkeys(("FAILED", "FAILURE", "FAIL", "ERROR"), Status.FAILED),
    **dict.fromkeys(("CANCELED", "CANCELLED", "CANCEL"), Status.FAILED),
}
"""The end states, with or without `TASK_STATUS_` before them. The specification's are SUCCEED and FAILED."""

REASON_FIELDS = ("reason", "err_detail", "fail_reason", "failReason", *MESSAGE_FIELDS)
"""Fields in which a failed task gives its reason."""


def _number(value: Any) -> float | None:  # noqa: ANN401 - raw JSON
    """A number, or a text with one ("45%"). 0 counts as missing: many services never fill it in."""
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 1e6 else None


_Number = Annotated[float | None, BeforeValidator(_number)]


class _FetchTask(BaseModel):
    status: Any = None
    eta: _Number = None
    progress_percent: _Number = None


class _FetchAnswer(BaseModel):
    """The fetch answer. Every list may be missing or null, and entries that cannot be read are skipped."""

    task: _FetchTask
    images: Any = None


def read_task(fields: Fields, redact: Redact, _origin: str) -> Observation | None:
    """The task of a fetch answer in this shape; None for any other shape."""
    try:
        body = _FetchAnswer.model_validate(fields)
    except ValidationError:
        return None
    word = clean(body.task.status, redact)[:64] or None
    end = (word or "").upper().removeprefix("TASK_STATUS_")
    status = ENDS.get(end, Status.QUEUED if end == "QUEUED" else Status.PROCESSING)
    images, warnings = _images(body.images, redact) if status is Status.SUCCEEDED else ((), ())
    failure = None
    if status is Status.FAILED:
        canceled = end.startswith("CANCEL")
        said = words_in(fields["task"], redact, REASON_FIELDS) or words_in(fields, redact, REASON_FIELDS)
        reason = said or ("canceled" if canceled else "the proxy gave no reason")
        failure = Failure("canceled" if canceled else "generation_failed", reason)
    progress = body.task.progress_percent
    return Observation(
        status=status,
        upstream_status=word,
        progress=min(int(progress), 99) or None if progress is not None and status is not Status.SUCCEEDED else None,
        eta_seconds=body.task.eta,
        failure=failure,
        images=images,
        warnings=warnings,
    )


def _images(listed: object, redact: Redact) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    entries = listed if isinstance(listed, list) else []
    images = tuple(
        Image(index=index, url=url)
        for index, entry in enumerate(entries[:MAX_IMAGES], start=1)
        if isinstance(entry, dict) and (url := clean_url(entry.get("image_url"), redact))
    )
    if len(images) < len(entries):
        return images, (WarningCode.LINKS_UNUSABLE.of(len(entries) - len(images), len(entries)),)
    return images, () if images else (WarningCode.NO_PICTURES.of(),)


# ---------------------------------------------------------------------------------------------------- requests

ACTIONS = {Kind.UPSCALE: ("UPSCALE", "U"), Kind.VARIATION: ("VARIATION", "V"), Kind.REROLL: ("REROLL", "R")}
"""The kinds that submit/change and submit/simple-change know."""


def change(order: Change) -> Post:
    """POST /mj/submit/change; `index` is sent for UPSCALE and VARIATION only."""
    body: dict[str, Any] = {"taskId": order.parent_id, "action": ACTIONS[order.kind][0]}
    return Post("/mj/submit/change", body if order.index is None else body | {"index": order.index})


def simple_change(order: Change) -> Post:
    """POST /mj/submit/simple-change with "ID U1", "ID V3" or "ID R"."""
    letter = ACTIONS[order.kind][1]
    return Post("/mj/submit/simple-change", {"content": f"{order.parent_id} {letter}{order.index or ''}"})


def _post(order: Order, _state: str, _parent: Fields | None) -> Post | Failure:
    match order:
        case Imagine(prompt, uploads=()):
            return Post("/mj/submit/imagine", {"prompt": prompt})
        case Change():
            return simple_change(order) if order.shorthand else change(order)
        case Imagine():
            return Failure("unsupported", "this proxy takes no uploaded pictures; it can fetch a public URL")
        case _:
            return Failure("unsupported", "this proxy offers upscales, variations and rerolls only")


GATEWAY = Dialect(
    name="gateway",
    title="a Midjourney gateway",
    auth="bearer",
    post=_post,
    read_task=read_task,
)
