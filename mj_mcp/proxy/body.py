"""The body of an answer: its JSON, its error text, and its effective status.

Owns what all proxies, and the gateways in front of them, have in common: the fields in which they put the error, and
how a web page, an empty body or a redirect is described. Knows no submit codes and no task fields.
"""

from __future__ import annotations

import codecs
import re
from urllib.parse import urlsplit

from mj_mcp.proxy.http import Answer, Fields
from mj_mcp.proxy.text import Redact, clean, clean_url

MESSAGE_FIELDS = ("description", "message", "msg", "detail", "err_detail", "error", "reason")
"""Fields with the error text, the plainest first. In some answers `reason` is a code beside the text."""

_NUMBER = re.compile(r"\s*-?[0-9]{1,9}\s*")


def code_in(fields: Fields) -> int | None:
    """The number in `code`, even if it is given as text; None where there is none."""
    code = fields.get("code")
    if isinstance(code, str) and _NUMBER.fullmatch(code):
        return int(code)
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    return code if type(code) is int and abs(code) < 10**9 else None


def is_ok(status: int) -> bool:
    """Whether it is a 2xx."""
    return 200 <= status < 300


def status_of(answer: Answer, fields: Fields) -> int:
    """The HTTP status, or the one in `code` where it says more: some proxies answer 200 or 400 to everything."""
    code = code_in(fields)
    says_little = is_ok(answer.status) or answer.status == 400
    return code if says_little and code is not None and 400 <= code < 600 else answer.status


def words_in(fields: Fields, redact: Redact, names: tuple[str, ...] = MESSAGE_FIELDS) -> str:
    """The error text of the answer, safe to show; "" where there is none."""
    return next(filter(None, (_text(fields.get(name), redact) for name in names)), "")


def _text(value: object, redact: Redact) -> str:
    if isinstance(value, list):  # some proxies list every problem
        value = value[0] if value else None
    if isinstance(value, dict):  # {"error": {"message": ...}}
        return next(filter(None, (clean(value.get(name), redact) for name in MESSAGE_FIELDS)), "")
    return clean(value, redact)


def is_page(answer: Answer) -> bool:
    """Whether it is a web page instead of JSON: the sender does not speak this API."""
    return _plain(answer)[:1] == b"<"


def is_nothing(answer: Answer) -> bool:
    """Whether it is an empty body, `null` or `{}`."""
    return b"".join(_plain(answer).split()) in {b"", b"null", b"{}"}


def _plain(answer: Answer) -> bytes:
    return answer.body.lstrip().removeprefix(codecs.BOM_UTF8).lstrip()


def describe(answer: Answer, redact: Redact) -> str:
    """An unusable answer in our words: its status and the likely mistake, never its markup."""
    at = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        return f"{at} {_redirect(answer, redact)}"
    if is_page(answer):
        return f"{at} with a web page instead of JSON: MJ_BASE_URL may lack a path, or a gateway answers instead"
    if not _plain(answer):
        said = " with an empty body"
    elif (fields := answer.fields) is None:
        said = " with an unreadable body"
    else:
        said = f": {words}" if (words := words_in(fields, redact)) else " without an explanation"
    return at + said + (" (the path of MJ_BASE_URL may be wrong)" if answer.status in {404, 405} else "")


def _redirect(answer: Answer, redact: Redact) -> str:
    """Where a redirect leads, and what to do. It is never followed: the key goes to the configured host only."""
    url = clean_url(answer.location, redact)
    if url is None:
        return "redirects elsewhere: check MJ_BASE_URL"
    parts = urlsplit(url)
    base, api, _ = parts.path.partition("/mj/")
    leads = f"redirects to {parts.scheme}://{parts.netloc}{base}"
    return f"{leads}: set MJ_BASE_URL to that address" if api else f"{leads}, which is not this API: check MJ_BASE_URL"
