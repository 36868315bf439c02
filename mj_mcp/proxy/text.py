"""Third-party text made fit to show.

Owns what of the proxy's words may reach a model, a person or a file. Knows no field and no shape.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

Redact = Callable[[str], str]
"""Takes the key out of a text."""

MAX_TEXT = 500
MAX_URL = 4096

_MARKUP = re.compile(r"<[^<>]*>")
_BRACKETS = {ord("<"): " ", ord(">"): " "}
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of control, format (bidi, zero-width, tag), surrogate, private and separator characters."""


def clean(value: object, redact: Redact) -> str:
    """Third-party text made fit to show: no key, no markup, no control, bidi or tag characters, capped."""
    if not isinstance(value, str):
        return ""
    # What is left of an angle bracket after that was woven to become markup, or never ends.
    text = _MARKUP.sub(" ", redact(value)[: 4 * MAX_TEXT]).translate(_BRACKETS)
    text = "".join(c if unicodedata.category(c) not in _UNSAFE else " " if c in "\t\r\n" else "" for c in text)
    # Sought again: what was woven into the key to hide it is gone by now.
    text = redact(" ".join(text.split()))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


_URL = re.compile(r"(?i:https?)://[!#-&(-;=?-\[\]_a-z~]+")
"""Printable ASCII without quotes, angle brackets, backslash, caret, grave, braces and bar."""


def clean_url(value: object, redact: Redact) -> str | None:
    """A link that is nothing but a link: no spaces, quotes or markup; its query is kept (it may be the signature)."""
    if not isinstance(value, str) or len(value) > MAX_URL or not _URL.fullmatch(value) or not _names_a_host(value):
        return None
    plain = unquote(value)
    return value if redact(plain) == plain and redact(value) == value else None


def _names_a_host(url: str) -> bool:
    """Whether the link leads to a host, and shows no other one before an @."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False
