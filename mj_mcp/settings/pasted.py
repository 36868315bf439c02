"""A key and a URL as a person pastes them, and as they were meant.

Owns what may be taken off and what is refused. Knows nothing of where they are set, and its errors never show a value.
"""

from __future__ import annotations

import re

from mj_mcp.urls import PORTS, parts_of

_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")
_BEARER = re.compile(r"(?i)^(authorization:)?\s*bearer(\s+|$)")
_UNFILLED = re.compile(r"\$\{")
_UNSEEN = "\ufeff\u200b"


def pasted_key(text: str) -> str:
    """The key alone: without white space and quotes around it, and without the header that it was copied from.

    Raises:
        ValueError: nothing is left of it, or it cannot be a key.
    """
    key = _cleaned(_BEARER.sub("", _cleaned(text)))
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("it must be the key alone, in printable ASCII")
    return key


def pasted_base_url(text: str) -> str:
    """The URL below which the API's `/mj/...` is joined, also where one of its own addresses was pasted.

    Raises:
        ValueError: it is no such URL.
    """
    url = _cleaned(text)
    parts = parts_of(url)
    if not url.isprintable() or " " in url:
        raise ValueError("it must not hold white space")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("it must not carry a user name, a query or a fragment")
    path, _, _ = f"{parts.path}/".partition("/mj/")
    # The scheme stays to the letter: the account is named after the whole.
    return f"{url.partition('://')[0]}://{parts.netloc}{path.rstrip('/')}"


def _cleaned(text: str) -> str:
    before = None
    while text != before:
        before = text
        text = text.strip().strip(_UNSEEN)
        if len(text) > 1 and text[0] + text[-1] in _QUOTES:
            text = text[1:-1]
    if _UNFILLED.search(text):
        raise ValueError("it holds a ${...} that nobody has filled in")
    return text
