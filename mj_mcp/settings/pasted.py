"""A key and URLs as people paste them, corrected to what was meant.

Owns what is removed, what is refused, and which hosts are this machine. Does not know where the values are set, and
its errors never show a value.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from mj_mcp.urls import PORTS, parts_of

_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")
_BEARER = re.compile(r"(?i)^(authorization:)?\s*bearer(\s+|$)")
_UNFILLED = re.compile(r"\$\{")
_ROOTED = re.compile(r"(?i)file://(localhost)?/[^/].*")
_BUCKET = re.compile(r"(?i:s3)://[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](/([^/\s]+/)*[^/\s]*)?")
_UNSEEN = "\ufeff\u200b"


def pasted_key(text: str) -> str:
    """The key without surrounding white space, quotes, or the header that it was copied from.

    Raises:
        ValueError: it is empty, or cannot be a key.
    """
    key = _cleaned(_BEARER.sub("", _cleaned(text)))
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("it must be the key alone, in printable ASCII")
    return key


def pasted_base_url(text: str) -> str:
    """The URL to which the API's `/mj/...` is appended. If one of the API's own addresses was pasted, its base.

    Raises:
        ValueError: it is not such a URL.
    """
    url, parts = _plain_url(text)
    path, _, _ = f"{parts.path}/".partition("/mj/")
    # The scheme is unchanged, since the name of the account depends on the whole URL.
    return f"{url.partition('://')[0]}://{parts.netloc}{path.rstrip('/')}"


def pasted_public_url(text: str) -> str:
    """The URL below which callers find `/mcp` and `/files/...`. If the address of `/mcp` was pasted, its base.

    Raises:
        ValueError: it is not such a URL.
    """
    _, parts = _plain_url(text)
    path = parts.path.rstrip("/").removesuffix("/mcp").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def check_database_url(url: str) -> None:
    """Raises ValueError if it does not name a PostgreSQL database; "" means SQLite."""
    parts = parts_of(url)
    if url and (parts.scheme not in {"postgresql", "postgres"} or not (parts.hostname or "host=" in parts.query)):
        raise ValueError("it must begin with postgresql:// and name a host, or be left unset for SQLite")
    if parts.fragment:
        raise ValueError("a # in the password must be written as %23")


def check_archive_url(url: str) -> None:
    """Raises ValueError if it names neither a folder nor a bucket; "" means the data folder."""
    parts = parts_of(url)
    if parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        raise ValueError("it must not have a user name, a password, a query or a fragment")
    named = {"file": _ROOTED, "s3": _BUCKET}.get(parts.scheme)
    if url and (not named or not named.fullmatch(url) or ".." in unquote(parts.path).split("/")):
        given = f"; it begins with {parts.scheme}://" if f"{parts.scheme}://" in url.lower() else ""
        raise ValueError(f"it must be like file:///shared/folder or s3://bucket/prefix{given}")


def _plain_url(text: str) -> tuple[str, SplitResult]:
    url = _cleaned(text)
    parts = parts_of(url)
    if not url.isprintable() or " " in url:
        raise ValueError("it must not contain white space")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("it must not have a user name, a query or a fragment")
    return url, parts


def _cleaned(text: str) -> str:
    before = None
    while text != before:
        before = text
        text = text.strip().strip(_UNSEEN)
        if len(text) > 1 and text[0] + text[-1] in _QUOTES:
            text = text[1:-1]
    if _UNFILLED.search(text):
        raise ValueError("it contains a ${...} that was not filled in")
    return text


def passwords_in(url: str) -> tuple[str, ...]:
    """The password of a database, plain and as it is written in the URL."""
    parts = urlsplit(url)
    found = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    return tuple({form for password in found for form in (password, unquote(password)) if form})
