"""The open proxies and the relays in front of them: novicezk (classic), trueai-org (plus), new-api and its forks.

Owns their requests, and the flat task that all of them answer: its fields are at the root. Knows nothing of
connections.

The shapes come from the sources of these projects, as of late 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from mj_mcp.proxy.body import is_nothing
from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.dialects.gateway import MAX_IMAGES, change, simple_change
from mj_mcp.proxy.http import Fields
from mj_mcp.proxy.orders import Blend, Change, Describe, Imagine, Order, Post, Press
from mj_mcp.proxy.outcomes import name_in
from mj_mcp.proxy.text import Redact, clean, clean_url
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode
from mj_mcp.urls import with_part

MAX_LINES = 16
"""Of a description: it has four prompts, with an empty line between two."""

GRID = range(1, 5)
"""A grid is 2x2 pictures in reading order."""

STATUSES = {
    "": Status.QUEUED,
    "NOT_START": Status.QUEUED,
    "SUBMITTED": Status.QUEUED,
    "SUCCESS": Status.SUCCEEDED,
    "FAILURE": Status.FAILED,
    "CANCEL": Status.FAILED,
}
"""Any other, like IN_PROGRESS and MODAL, is open."""

KINDS = {
    "IMAGINE": Kind.IMAGINE,
    "BLEND": Kind.IMAGINE,
    "UPSCALE": Kind.UPSCALE,
    "VARIATION": Kind.VARIATION,
    "REROLL": Kind.REROLL,
    "DESCRIBE": None,
    "SHORTEN": None,
    "UPLOAD": None,
}
"""Kinds by action. Any other action is a button."""

ONE_PICTURE = frozenset({"UPSCALE", "UPSCALE_HD", "DESCRIBE", "SHORTEN", "VIDEO"})
"""Actions with one picture, where no button tells."""

_OF_A_GRID = re.compile(r"MJ::JOB::(?:(?:upsample|variation)::[1-4]|(?:low|high)_variation::[2-4])(?!\d)")
_OWN_TOOL = re.compile(r"MJ::JOB::(?:(upsample|variation)::([1-4])|(reroll)::\d)(?!\d)")
"""Buttons that are kinds of their own."""

_KIND_OF = {"upsample": Kind.UPSCALE, "variation": Kind.VARIATION, "reroll": Kind.REROLL}

_VIDEO = re.compile(r"MJ::JOB::(?:animate|video)_")
_DIALOG = re.compile(r"MJ::CustomZoom\b")
"""Buttons that open a dialog, which asks for a prompt."""
_REGION = re.compile(r"MJ::Inpaint\b")
"""Buttons that ask for a region of the picture, which cannot be given here. They count as not there."""


MOST_BUTTONS = 25
"""As many as a chat message can have."""


@dataclass(frozen=True, slots=True)
class Button:
    """One button. `label` is what callers name, `custom_id` what the proxy wants; it changes with every message."""

    label: str
    custom_id: str

    @property
    def own(self) -> tuple[Kind, int | None] | None:
        """The kind that it is, and of which picture, where it is a kind of its own."""
        match = _OWN_TOOL.match(self.custom_id)
        return (_KIND_OF[match[1] or match[3]], int(match[2]) if match[2] else None) if match else None


def is_flat(fields: Fields) -> bool:
    """Whether it is a task in this shape."""
    return "id" in fields and ("status" in fields or "action" in fields)


def read_task(fields: Fields, redact: Redact, origin: str) -> Observation | None:
    """The task of a fetch answer in this shape; None for any other shape."""
    if not is_flat(fields):
        return None
    word = clean(fields.get("status"), redact)[:64].upper()
    action = clean(fields.get("action"), redact).upper()
    status = STATUSES.get(word, Status.PROCESSING)
    images, warnings = _images(fields, action, redact, origin) if status is Status.SUCCEEDED else ((), ())
    buttons = read_buttons(fields, redact) if status is Status.SUCCEEDED else []
    failure = None
    if status is Status.FAILED:
        canceled = word == "CANCEL"
        said = clean(fields.get("failReason"), redact) or ("canceled" if canceled else "the proxy gave no reason")
        failure = Failure("canceled" if canceled else "generation_failed", said)
    return Observation(
        status=status,
        kind=KINDS.get(action, Kind.BUTTON) if action else None,
        prompt=_prompt(fields, action, redact) or None,
        parent_id=clean(fields.get("parentId"), redact) or None,
        upstream_status=word or None,
        progress=_progress(fields.get("progress")) if word == "IN_PROGRESS" else None,
        failure=failure,
        images=images,
        buttons=tuple(one.label for one in buttons if one.own is None),
        offers=_offers(buttons) if buttons else None,
        warnings=warnings,
    )


def _prompt(fields: Fields, action: str, redact: Redact) -> str:
    """The prompt; for a description, its prompts, one a line."""
    made = fields.get("properties") if action == "DESCRIBE" else None
    texts = str(made.get("finalPrompt") or "").splitlines() if isinstance(made, dict) else []
    lines = [line for text in texts[:MAX_LINES] if (line := clean(text, redact))]
    return "\n".join(lines) or clean(fields.get("prompt"), redact)


def _progress(value: object) -> int | None:
    """Per cent from "45%"; None for 0, which says nothing, and for texts like "Waiting to start"."""
    found = re.fullmatch(r"\s*(\d{1,2})(?:\.\d+)?\s*%?\s*", str(value))
    return int(found[1]) or None if found else None


def _images(fields: Fields, action: str, redact: Redact, origin: str) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """The pictures of a success: one by one where the proxy lists them, else the parts of its grid."""
    videos = [*links_in(fields.get("videoUrls"), redact, origin), *links_in([fields.get("videoUrl")], redact, origin)]
    listed = links_in(fields.get("imageUrls"), redact, origin)
    if videos or action.startswith("VIDEO"):
        found = [Image(index, url, "video/mp4") for index, url in enumerate(dict.fromkeys(videos or listed), 1)]
        return tuple(found), () if found else (WarningCode.NO_PICTURES.of(),)
    whole = next(iter(links_in([fields.get("imageUrl")], redact, origin)), None)
    if _is_grid(fields, action):
        parts = [with_part(whole, number) if whole else None for number in GRID]
        if len(listed) == len(GRID):
            return tuple(Image(n, url, fallback_url=part) for n, url, part in zip(GRID, listed, parts, strict=True)), ()
        listed = [part for part in parts if part] or listed
    elif whole:
        listed = [whole]
    if not listed:
        given = bool(fields.get("imageUrl") or fields.get("imageUrls"))
        return (), ((WarningCode.LINKS_UNUSABLE.of(1, 1) if given else WarningCode.NO_PICTURES.of()),)
    return tuple(Image(index, url) for index, url in enumerate(listed, 1)), ()


def links_in(listed: object, redact: Redact, origin: str) -> list[str]:
    """The usable links of a list of texts or of objects with `url`."""
    entries = listed[:MAX_IMAGES] if isinstance(listed, list) else []
    texts = (entry.get("url") if isinstance(entry, dict) else entry for entry in entries)
    return [_at_origin(url, origin) for text in texts if (url := clean_url(text, redact))]


def _at_origin(url: str, origin: str) -> str:
    """A relay whose own address was never set names localhost in links to itself: `/mj/image/ID` is its own path."""
    parts = urlsplit(url)
    if not origin or not parts.path.startswith("/mj/image/"):
        return url
    return origin + url.removeprefix(f"{parts.scheme}://{parts.netloc}")


def _is_grid(fields: Fields, action: str) -> bool:
    custom_ids = [custom_id for custom_id, _ in _custom_ids(fields)]
    if custom_ids:
        return any(map(_OF_A_GRID.match, custom_ids))
    return action not in ONE_PICTURE


# --------------------------------------------------------------------------------------------------- buttons


def _custom_ids(fields: Fields) -> Iterator[tuple[str, dict[str, Any]]]:
    listed = fields.get("buttons")
    for button in listed if isinstance(listed, list) else []:
        if isinstance(button, dict) and isinstance(custom_id := button.get("customId"), str) and custom_id:
            yield custom_id, button


def read_buttons(fields: Fields, redact: Redact) -> list[Button]:
    """The buttons of a task, each with a label of its own. Those that only have an emoji are named by their id."""
    found: dict[str, Button] = {}
    for custom_id, button in islice(_custom_ids(fields), MOST_BUTTONS):
        if _REGION.match(custom_id):
            continue
        label = clean(button.get("label"), redact)[:40] or _name_of(custom_id)
        found.setdefault(label.lower(), Button(label, custom_id))
    return list(found.values())


def _offers(buttons: Iterable[Button]) -> tuple[Kind, ...]:
    """The kinds of their own among these buttons, each once."""
    return tuple(dict.fromkeys(one.own[0] for one in buttons if one.own is not None))


def _name_of(custom_id: str) -> str:
    """`MJ::JOB::pan_left::1::...` is "Pan left", `MJ::BOOKMARK::...` is "Bookmark"."""
    parts = custom_id.split("::")
    name = parts[2] if len(parts) > 2 and parts[1].upper() == "JOB" else parts[min(1, len(parts) - 1)]
    return re.sub(r"[^A-Za-z0-9 ]+", " ", name).strip().capitalize()[:40] or "Button"


# -------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What differs among the three, in what they take."""

    changes: bool = True
    """submit/change."""
    shorthand: bool = True
    """submit/simple-change."""
    reroll_index: bool = False
    """submit/change wants an index for a reroll too."""
    videos: bool = True
    """Buttons that make videos are passed on."""
    pictures: bool = True
    """submit/describe and submit/blend, and image prompts as data URLs."""


def _post(abilities: _Abilities, order: Order, state: str, parent: Fields | None) -> Post | Failure:
    post = _plain_post(abilities, order, parent or {})
    return replace(post, body=post.body | {"state": state}) if isinstance(post, Post) else post


def _plain_post(abilities: _Abilities, order: Order, parent: Fields) -> Post | Failure:
    match order:
        case Imagine(prompt, uploads=()):
            return Post("/mj/submit/imagine", {"prompt": prompt})
        case Imagine(prompt, uploads):
            return Post("/mj/submit/imagine", {"prompt": prompt, "base64Array": list(uploads)})
        case Describe(upload):
            return Post("/mj/submit/describe", {"base64": upload})
        case Blend(uploads):
            return Post("/mj/submit/blend", {"base64Array": list(uploads), "dimensions": "SQUARE"})
        case Change() | Press():
            buttons = read_buttons(parent, _as_it_is)
            return _action(abilities, order, buttons) if buttons else _change(abilities, order)


def _change(abilities: _Abilities, order: Change | Press) -> Post | Failure:
    """A follow-up of a parent without buttons."""
    if isinstance(order, Press) or not abilities.changes:
        return Failure("unsupported", f"the proxy offers no buttons for task {order.parent_id}")
    if order.shorthand and abilities.shorthand:
        return simple_change(order)
    return change(replace(order, index=1) if order.index is None and abilities.reroll_index else order)


def _action(abilities: _Abilities, order: Change | Press, buttons: list[Button]) -> Post | Failure:
    """A follow-up of a parent with buttons: the one that was asked for, if it is there."""
    found = next((one for one in buttons if _is_meant(order, one)), None)
    if found is None:
        return Failure("unsupported", _missing(order, buttons))
    if _VIDEO.match(found.custom_id) and not abilities.videos:
        return Failure("unsupported", "this relay does not pass on buttons that make videos")
    if _DIALOG.match(found.custom_id) and not (isinstance(order, Press) and order.prompt):
        return Failure("unsupported", f'the button "{found.label}" asks for a prompt: give `prompt`')
    body = {"taskId": order.parent_id, "customId": found.custom_id}
    return Post("/mj/submit/action", body, may_ask=_DIALOG.match(found.custom_id) is not None)


def _is_meant(order: Change | Press, button: Button) -> bool:
    if isinstance(order, Press):
        return button.own is None and _is_named(order, button)
    return button.own == (order.kind, order.index)


def _is_named(press: Press, button: Button) -> bool:
    return " ".join(press.button.lower().split()) == button.label.lower()


def _missing(order: Change | Press, buttons: list[Button]) -> str:
    """What the parent does not offer, and what it does."""
    if isinstance(order, Press):
        if own := next((one.own for one in buttons if _is_named(order, one)), None):
            return f'ask for {_words(*own)} instead of the button "{order.button}"'
        wanted = f'has no button "{order.button}"'
    else:
        wanted = f"does not offer {_words(order.kind, order.index)}"
    there = [f"{kind}s" for kind in _offers(buttons)] + [f'"{one.label}"' for one in buttons if one.own is None]
    return f"task {order.parent_id} {wanted}; it offers: {', '.join(there)}"


def _words(kind: Kind, index: int | None) -> str:
    return f"{'an' if kind is Kind.UPSCALE else 'a'} {kind}" + (f" of picture {index}" if index else "")


def _as_it_is(text: str) -> str:
    return text


def _dialog(task_id: str, prompt: str | None) -> Post:
    return Post("/mj/submit/modal", {"taskId": task_id} | ({"prompt": prompt} if prompt else {}))


CLASSIC = Dialect(
    name="classic",
    title="Midjourney-Proxy",
    auth="secret",
    is_unknown=lambda answer: answer.status == 200 and is_nothing(answer),
    post=partial(_post, _Abilities()),
    read_task=read_task,
    has_buttons=True,  # in a TypeScript port, and only of upscaled pictures
    list_path="/mj/task/list",
    dialog=_dialog,
)

PLUS = Dialect(
    name="plus",
    title="Midjourney-Proxy-Plus",
    auth="secret",
    is_unknown=lambda answer: answer.status == 204,
    post=partial(_post, _Abilities(changes=False, shorthand=False)),
    read_task=read_task,
    has_buttons=True,
    list_path="/mj/task/list",
    dialog=_dialog,
)

NEWAPI = Dialect(
    name="newapi",
    title="a new-api relay",
    auth="bearer",
    is_unknown=lambda answer: name_in(answer.fields or {}) == "task_no_found",
    post=partial(_post, _Abilities(shorthand=False, reroll_index=True, videos=False)),
    read_task=read_task,
    has_buttons=True,
    dialog=_dialog,
)
