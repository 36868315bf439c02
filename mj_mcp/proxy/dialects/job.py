"""Jobs by id and pictures by number: Legnext, whose base URL is `https://api.legnext.ai/api`.

Owns its requests, and the job object that answers a submit and a fetch alike. Knows nothing of connections.

The shapes come from its documentation, as of late 2026. It is silent about unknown paths, so the dialect is named by a
person.
"""

from __future__ import annotations

import re
from typing import Any

from mj_mcp.proxy.body import is_ok, words_in
from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.dialects.flat import GRID, links_in
from mj_mcp.proxy.http import Answer, Fields, NoAnswer
from mj_mcp.proxy.orders import Change, Imagine, Order, Post
from mj_mcp.proxy.outcomes import Accepted, Outcome, Refused, as_id, read_submit
from mj_mcp.proxy.text import Redact, clean
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode
from mj_mcp.urls import with_part

JOB_STATUSES = {
    "": Status.QUEUED,
    "PENDING": Status.QUEUED,
    "STAGED": Status.QUEUED,
    "COMPLETED": Status.SUCCEEDED,
    "FAILED": Status.FAILED,
}
"""Any other, like PROCESSING, is open."""

JOB_KINDS = {
    "DIFFUSION": Kind.IMAGINE,
    "BLEND": Kind.IMAGINE,
    "UPSCALE": Kind.UPSCALE,
    "VARIATION": Kind.VARIATION,
    "REROLL": Kind.REROLL,
    "DESCRIBE": None,
    "SHORTEN": None,
}
"""Kinds by `task_type`. Any other is a button."""

GRIDS = frozenset({Kind.IMAGINE, Kind.VARIATION, Kind.REROLL})

_SUBTLE_UPSCALE, _STRONG_VARIATION = 0, 1
"""The `type` that is nearest to the U and V buttons: U keeps the picture as it is, V varies strongly by default."""

_ABOUT_THE_PROMPT = re.compile(r"(?i)\b(?:sensitive|moderat|banned|prohibited|content polic)")
"""A 403 says "sensitive content" or "permission denied", and has no name for which it is."""


def read_task(fields: Fields, redact: Redact, origin: str) -> Observation | None:
    """The job of an answer in this shape; None for any other shape."""
    if "job_id" not in fields or "status" not in fields:
        return None
    word = clean(fields["status"], redact)[:64]
    status = JOB_STATUSES.get(word.upper(), Status.PROCESSING)
    task_type = clean(fields.get("task_type"), redact).upper()
    kind = JOB_KINDS.get(task_type, Kind.BUTTON) if task_type else None
    output = fields.get("output")
    done = status is Status.SUCCEEDED
    images, warnings = _images(output if isinstance(output, dict) else {}, kind, redact, origin) if done else ((), ())
    failure = None
    if status is Status.FAILED:
        said = words_in(fields, redact, ("error", "detail")) or "the proxy gave no reason"
        failure = Failure("generation_failed", said)
    return Observation(
        status=status, kind=kind, upstream_status=word or None, failure=failure, images=images, warnings=warnings
    )


def _images(
    output: Fields, kind: Kind | None, redact: Redact, origin: str
) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """The pictures of a success: four links with their parts of the grid to fall back on, or the links as they are."""
    if videos := links_in(output.get("video_urls"), redact, origin):
        return tuple(Image(index, url, "video/mp4") for index, url in enumerate(videos, 1)), ()
    listed = links_in(output.get("image_urls"), redact, origin)
    whole = next(iter(links_in([output.get("image_url")], redact, origin)), None)
    parts = [with_part(whole, number) for number in GRID] if whole else []
    if parts and len(listed) == len(GRID):
        return tuple(Image(n, url, fallback_url=part) for n, url, part in zip(GRID, listed, parts, strict=True)), ()
    listed = listed or (parts if kind in GRIDS else [whole] if whole else [])
    given = bool(output.get("image_url") or output.get("image_urls"))
    missing = WarningCode.LINKS_UNUSABLE.of(1, 1) if given else WarningCode.NO_PICTURES.of()
    return tuple(Image(index, url) for index, url in enumerate(listed, 1)), () if listed else (missing,)


def _read_submit(answer: Answer | NoAnswer, redact: Redact) -> Outcome:
    """A job object is a job that exists, whatever its status; refusals are HTTP errors with the status in `code`."""
    fields = (answer.fields if isinstance(answer, Answer) else None) or {}
    if isinstance(answer, Answer) and is_ok(answer.status) and (job_id := as_id(fields.get("job_id"), redact)):
        return Accepted(job_id)
    outcome = read_submit(answer, redact)
    if isinstance(outcome, Refused) and outcome.status == 403 and _ABOUT_THE_PROMPT.search(words_in(fields, redact)):
        return Refused(Failure("prompt_refused", outcome.failure.message))
    return outcome


def _post(order: Order, _state: str, _parent: Fields | None) -> Post | Failure:
    match order:
        case Imagine(prompt, uploads=()):
            return Post("/v1/diffusion", {"text": prompt})
        case Change(Kind.REROLL, parent_id):
            return Post("/v1/reroll", {"jobId": parent_id})
        case Change(Kind.UPSCALE, parent_id, index):
            return Post("/v1/upscale", _picture(parent_id, index, _SUBTLE_UPSCALE))
        case Change(Kind.VARIATION, parent_id, index):
            return Post("/v1/variation", _picture(parent_id, index, _STRONG_VARIATION))
        case Imagine():
            return Failure("unsupported", "this proxy takes no uploaded pictures; it can fetch a public URL")
        case _:
            return Failure("unsupported", "this proxy offers upscales, variations and rerolls only")


def _picture(parent_id: str, index: int | None, kind: int) -> dict[str, Any]:
    """A picture of a job. It counts from 0 there."""
    return {"jobId": parent_id, "imageNo": (index or 1) - 1, "type": kind}


JOB = Dialect(
    name="job",
    title="a Legnext API",
    auth="x-api-key",
    post=_post,
    read_task=read_task,
    read_submit=_read_submit,
    fetch="/v1/job/{id}",
)
