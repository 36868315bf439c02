"""One link, parsed once. Owns which links are acceptable; makes no connections.

A link is parsed here only, so what was checked is what is connected to and sent. The query string is often the
signature, so only characters that a URL may not hold are percent-encoded. No message ever shows more of a link than
its host.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from mj_mcp.errors import ImageUnavailable
from mj_mcp.urls import PORTS, has_controls, link_parts

MAX_LINK = 16_384
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,254})(:[0-9]{1,5})?:?", re.ASCII | re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}", re.ASCII)
_NUMERIC_END = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)\.?$")
_PLAIN = "%/:;=@!$&'()*+,~-._[]"
"""Characters that are kept. The rest is percent-encoded (RFC 3986, section 3.3; servers accept brackets too)."""


@dataclass(frozen=True, slots=True)
class Link:
    """The parsed link of a picture. `host` is in lower case and without brackets; `target` is sent unchanged."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __repr__(self) -> str:
        """Without the target: it may hold a signature."""
        return f"<Link {self.scheme}://{self.authority}/...>"


def parse_link(text: str) -> Link:
    """Parse a link, or raise ImageUnavailable.

    Refused: schemes other than http and https, user names, control characters and backslashes, port 0, and hosts that
    are neither a plain ASCII name nor a plain address (decimal, octal, hexadecimal, percent-encoded, zone ids).
    """
    if len(text) > MAX_LINK:
        raise ImageUnavailable("the picture's link is not a usable URL")
    try:
        parts = link_parts(text.strip(" "))
    except ValueError as failure:
        raise ImageUnavailable(f"the picture's link {failure}") from None
    host = (parts.hostname or "").lower()
    if not _AUTHORITY.fullmatch(parts.netloc) or not _is_host(host):
        raise ImageUnavailable("the picture's link has no usable host")
    target = quote(parts.path or "/", safe=_PLAIN)
    if parts.query:
        target += "?" + quote(parts.query, safe=_PLAIN + "?")
    return Link(parts.scheme, host, parts.port or PORTS[parts.scheme], target)


def follow(link: Link, location: str) -> Link:
    """The target of a redirect. A redirect from https to http is refused."""
    if has_controls(location):
        raise ImageUnavailable(f"the picture's host {link.host} redirects to an unusable URL")
    try:
        there = urljoin(f"{link.scheme}://{link.authority}{link.target}", location)
    except ValueError:
        raise ImageUnavailable(f"the picture's host {link.host} redirects to an unusable URL") from None
    following = parse_link(there)
    if link.scheme == "https" and following.scheme == "http":
        raise ImageUnavailable(f"the picture's host {link.host} redirects from https to http, which is refused")
    return following


def origin(url: str) -> tuple[str, int]:
    """Host (lower case, no trailing dot) and port of a configured URL."""
    parts = urlsplit(url)
    return (parts.hostname or "").lower().rstrip("."), parts.port or PORTS.get(parts.scheme, 443)


def host_matches(host: str, patterns: frozenset[str]) -> bool:
    """Whether a host matches a name exactly, or a pattern `*.example.com`, which means every host below example.com."""
    host = host.rstrip(".")
    wanted = [pattern.strip().lower().rstrip(".") for pattern in patterns]
    return any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in wanted)


def _is_host(host: str) -> bool:
    if ":" in host or _NUMERIC_END.search(host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    return all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))
