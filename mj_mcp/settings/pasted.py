"""A key and URLs as a person pastes them, and as they were meant.

Owns what may be taken off, what is refused, and which hosts are the machine itself. Knows nothing of where they are
set, and its errors never show a value.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote

from mj_mcp.urls import PORTS, parts_of

_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")
_BEARER = re.compile(r"(?i)^(authorization:)?\s*bearer(\s+|$)")
_UNFILLED = re.compile(r"\$\{")
_ROOTED = re.compile(r"(?i)file://(localhost)?/[^/].*")
_BUCKET = re.compile(r"(?i:s3)://[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](/([^/\s]+/)*[^/\s]*)?")
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
    url, parts = _plain_url(text)
    path, _, _ = f"{parts.path}/".partition("/mj/")
    # The scheme stays to the letter: the account is named after the whole.
    return f"{url.partition('://')[0]}://{parts.netloc}{path.rstrip('/')}"


def pasted_public_url(text: str) -> str:
    """The URL below which callers find `/mcp` and `/files/...`, also where the address of `/mcp` itself was pasted.

    Raises:
        ValueError: it is no such URL.
    """
    _, parts = _plain_url(text)
    path = parts.path.rstrip("/").removesuffix("/mcp").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def check_database_url(url: str) -> None:
    """Raises ValueError for what names no PostgreSQL; "" stands for SQLite."""
    parts = parts_of(url)
    if url and (parts.scheme not in {"postgresql", "postgres"} or not (parts.hostname or "host=" in parts.query)):
        raise ValueError("it must begin with postgresql:// and name a host, or be left unset for SQLite")
    if parts.fragment:
        raise ValueError("a # in the password must be written as %23")


def check_archive_url(url: str) -> None:
    """Raises ValueError for what names neither a folder nor a bucket; "" stands for the data folder."""
    parts = parts_of(url)
    if parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        raise ValueError("it must not carry a user name, a password, a query or a fragment")
    named = {"file": _ROOTED, "s3": _BUCKET}.get(parts.scheme)
    if url and (not named or not named.fullmatch(url) or ".." in unquote(parts.path).split("/")):
        given = f"; it begins with {parts.scheme}://" if f"{parts.scheme}://" in url.lower() else ""
        raise ValueError(f"it must be like file:///shared/folder or s3://bucket/prefix{given}")


def _plain_url(text: str) -> tuple[str, SplitResult]:
    url = _cleaned(text)
    parts = parts_of(url)
    if not url.isprintable() or " " in url:
        raise ValueError("it must not hold white space")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("it must not carry a user name, a query or a fragment")
    return url, parts


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
