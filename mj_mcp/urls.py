"""Which URLs are usable and safe, how a link names a part of a picture, and how this machine reaches them.

Owns the rules that settings, logins, the proxy's answers and pictures share, and the environment's `HTTPS_PROXY`,
`NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`. Does not know who connects.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from functools import cache
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

PORTS = {"http": 80, "https": 443}
"""The allowed schemes, each with its default port."""

UNUSABLE_TUNNEL = "HTTPS_PROXY cannot be used: it must be like http://host:port"
"""The value is not shown: it may hold a password."""

PARTS = (
    "xywh=percent:0,0,50,50",
    "xywh=percent:50,0,50,50",
    "xywh=percent:0,50,50,50",
    "xywh=percent:50,50,50,50",
)
"""The four parts of a 2x2 grid in reading order, as fragments of its link (W3C Media Fragments)."""

_NEVER = re.compile(r"[\x00-\x1f\x7f\\]")


def parts_of(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: it is not a URL. The standard library's own message would show the value.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it must be a URL") from None
    return parts


def link_parts(url: str) -> SplitResult:
    """The parts of an http or https link. It must name a host, and no user name before an @.

    Raises:
        ValueError: it is not such a link. The message continues the sentence "the link ...".
    """
    try:
        parts = parts_of(url)
    except ValueError:
        raise ValueError("is not a usable URL") from None
    if has_controls(url):
        raise ValueError("is not a usable URL")
    if parts.scheme not in PORTS:
        raise ValueError("is neither http nor https")
    if "@" in parts.netloc:
        raise ValueError("carries a user name, which is refused")
    if not parts.hostname or parts.port == 0:
        raise ValueError("has no usable host")
    return parts


def has_controls(url: str) -> bool:
    """Whether it holds characters that `urlsplit` drops silently, or a backslash, which browsers read as a slash."""
    return _NEVER.search(url) is not None


def with_part(url: str, number: int) -> str:
    """The link of part 1 to 4 of the 2x2 grid behind `url`, which is picture 1 to 4 of its task. It opens the grid."""
    return f"{url.partition('#')[0]}#{PARTS[number - 1]}"


def part_of(url: str) -> tuple[str, int | None]:
    """The link to fetch, and the number of the part that `url` names; None where it means the whole picture."""
    plain, _, fragment = url.partition("#")
    return (plain, PARTS.index(fragment) + 1) if fragment in PARTS else (url, None)


def is_loopback(host: str) -> bool:
    """Whether this host, a name or an address without a port, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_safe(url: str) -> bool:
    """Whether nobody can read or change what is sent: https, or http on this machine."""
    try:
        parts = parts_of(url)
    except ValueError:
        return False
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def read_tunnel(url: str) -> str | None:
    """The HTTP proxy through which `url` is reached; None where it is reached directly.

    Plain http is always reached directly, because an HTTP proxy would see everything. https is only tunnelled.
    """
    parts = urlsplit(url)
    proxy = getproxies_environment().get("https")
    if parts.scheme != "https" or not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def tunnel_parts(proxy: str) -> SplitResult:
    """The parts of that HTTP proxy's URL. Raises ValueError: it is not a URL."""
    parts = parts_of(proxy)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(UNUSABLE_TUNNEL)
    return parts


@cache
def authorities() -> ssl.SSLContext:
    """The certificate authorities of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else certifi's.

    Reading them takes about 20 ms and 1 to 2 MiB, so all clients of the process share them.

    Raises:
        OSError: they cannot be read, or there are none.
    """
    import httpx  # noqa: PLC0415 - it takes a tenth of the start, and is needed at the first request

    return httpx.create_ssl_context()
