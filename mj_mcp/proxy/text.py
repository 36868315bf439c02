"""Third-party text made safe to show.

Owns which of the proxy's text may reach a model, a person or a file. Knows no fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, unquote

from mj_mcp.errors import InvalidRequest, shortened
from mj_mcp.urls import has_controls, link_parts

Redact = Callable[[str], str]
"""Removes the key from a text."""

MAX_TEXT = 500
MAX_URL = 4096

_MARKUP = re.compile(r"<[^<>]*>")
_BRACKETS = {ord("<"): " ", ord(">"): " "}


def clean(value: object, redact: Redact) -> str:
    """Third-party text made safe to show: no key, no markup, no control, bidi or tag characters, limited in length."""
    if not isinstance(value, str):
        return ""
    # Any angle bracket left is nested markup or markup that never ends.
    text = _MARKUP.sub(" ", redact(value)[: 4 * MAX_TEXT]).translate(_BRACKETS)
    text = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)
    # Redact again: the characters that could split the key are gone now.
    text = redact(" ".join(text.split()))
    return shortened(text, MAX_TEXT)


_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN_IN_LINKS = "!#$%&()*+,/:;=?@[]~"
"""Kept besides letters, digits and `-._`. The apostrophe is encoded, so that a link cannot end a quotation."""


def clean_url(value: object, redact: Redact) -> str | None:
    """A link in ASCII, or None if the value is anything else.

    Characters that a URL may not hold (spaces, quotes, `|`, letters of other scripts) are percent-encoded. The rest is
    unchanged, since the query may be the signature. Control characters, backslashes and non-ASCII letters in the host
    name are refused.
    """
    if not isinstance(value, str) or len(value) > MAX_URL or has_controls(value.strip()):
        return None
    try:
        url = quote(_STRAY_PERCENT.sub("%25", value.strip()), safe=_PLAIN_IN_LINKS)
        parts = link_parts(url)
    except ValueError:  # also half of a surrogate pair
        return None
    if len(url) > MAX_URL or "%" in parts.netloc:
        return None
    plain = unquote(url)
    return url if redact(plain) == plain and redact(url) == url else None


TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Letters, digits and four signs, up to 128 characters: anything else could change the URL."""


def check_task_id(task_id: str) -> str:
    """`task_id`, if it is safe in a URL.

    Raises:
        InvalidRequest: it holds other characters, or is longer than 128.
    """
    if not is_task_id(task_id):
        raise InvalidRequest("task_id", task_id, "1 to 128 letters, digits, `.`, `_`, `:` or `-`")
    return task_id


def is_task_id(text: str) -> bool:
    """Whether the text can be a task id and is safe in a URL."""
    return TASK_ID.fullmatch(text) is not None and set(text) != {"."}
